"""Fixtures shared by all rooms: where the public data and the gold reports lie, when they are there."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("PETGROUND_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`shared_data("acrin_042")` -> folder of that archive, unzipped once per test run; skips when it is missing."""
    unpacked: dict[str, Path] = {}

    def find(name: str) -> Path:
        archive = SHARED / "data" / f"{name}.zip"
        if not archive.is_file():
            pytest.skip(f"public data {name}.zip is not beside the checkout (set PETGROUND_SHARED)")
        if name not in unpacked:
            folder = tmp_path_factory.mktemp(name)
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)
            unpacked[name] = folder / name
        return unpacked[name]

    return find


@pytest.fixture(scope="session")
def gold_dir() -> Path:
    """Folder of the annotated report language; skips when it is missing."""
    folder = SHARED / "gold"
    if not folder.is_dir():
        pytest.skip("the gold reports are not beside the checkout (set PETGROUND_SHARED)")
    return folder

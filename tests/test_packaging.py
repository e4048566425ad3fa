"""The wheel holds every package, and nothing that would sit at the top of site-packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("configs", "kernels", "labeling", "models", "pipeline", "training")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_every_folder_with_code_is_listed() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "petground." + ".".join(file.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    }
    assert found - set(listed) == set(), "these would be left out of the wheel"
    assert set(listed) - found - {"petground.kernels"} == set(), "these do not exist"


def test_kernels_is_no_regular_package() -> None:
    # A kernels/__init__.py at the root would shadow Hugging Face's `kernels` whenever the root is on sys.path.
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_no_medical_image_or_table_is_tracked() -> None:
    suffixes = (".dcm", ".nii", ".nii.gz", ".parquet", ".ckpt", ".safetensors")
    ignored = {".git", ".venv", "demo", "build", ".work"}
    stray = [
        path.relative_to(ROOT).as_posix()
        for room in (*ROOMS, "tests", "docs", "benchmarks", "data_cards")
        for path in (ROOT / room).rglob("*")
        if path.name.endswith(suffixes) and not ignored & set(path.parts)
    ]
    assert stray == []

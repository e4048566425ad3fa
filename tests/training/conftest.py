"""Modules beside the tests that several of them import (`patch_work`), and fixtures from them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def patch_work_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from patch_work import make_work

    return make_work(tmp_path_factory.mktemp("patches") / "work")


@pytest.fixture
def patch_work(patch_work_once: Path, tmp_path: Path) -> Path:
    """A work folder of four exams that are larger than a patch, each with a lesion at the left and two at the right."""
    return Path(shutil.copytree(patch_work_once, tmp_path / "work"))

"""Modules beside the tests that several of them import (`dicom_series`, `review_work`), and fixtures from them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with a labelled exam, its ambiguous and excluded findings, and an exam that failed."""
    from review_work import make_work

    return make_work(tmp_path / "work")

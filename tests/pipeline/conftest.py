"""Modules beside the tests that several of them import (`dicom_series`, `review_work`), and fixtures from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with a labelled exam, its ambiguous and excluded findings, and an exam that failed."""
    from review_work import make_work

    return make_work(tmp_path / "work")


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """An exam with a lesion low at the left and one high at the right."""
    from ground_exam import make_exam

    return make_exam(tmp_path / "exam_7")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The network that every checkpoint loads as: it reads sides and nothing else."""
    from ground_exam import stand_in

    return stand_in(monkeypatch)

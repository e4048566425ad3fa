"""What a tracking server is told of a run: settings, and of paths their last names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petground.training import loggers
from petground.training.loggers import MlflowConfig, run_loggers


class _Tracker:
    def __init__(self, experiment: str, **more: Any):
        self.told: dict[str, Any] = {}

    def log_hyperparams(self, settings: dict[str, Any]) -> None:
        self.told = settings


def test_no_folder_goes_to_a_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "MLFlowLogger", _Tracker)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "miller" / "bert").mkdir(parents=True)
    settings = {
        "plans": {"file": Path("/home/miller/study/plans.json"), "configuration": "3d_fullres"},
        "text": {"name": "miller/bert", "revision": None, "layers": ["/home/miller/x", "q_proj"]},
        "other": {
            "name": "zzxslp/RadBERT-RoBERTa-4m",
            "file": r"C:\Users\miller\plans.json",
            "up": "../miller/weights",
        },
        "lr": 1e-3,
    }
    tracker = run_loggers(tmp_path / "run", MlflowConfig(), settings)[-1]
    assert tracker.told == {  # type: ignore[attr-defined]
        "plans": {"file": "plans.json", "configuration": "3d_fullres"},
        "text": {"name": "bert", "revision": None, "layers": ["x", "q_proj"]},
        "other": {"name": "zzxslp/RadBERT-RoBERTa-4m", "file": "plans.json", "up": "weights"},
        "lr": 1e-3,
    }

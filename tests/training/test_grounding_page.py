"""docs/grounding.md says what docs/results/grounding.json holds, and what is not there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("grounding_page")


def test_the_page_is_as_it_would_be_written(page: ModuleType) -> None:
    kept = ROOT / "docs" / "results" / "grounding.json"
    result = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None
    assert (ROOT / "docs" / "grounding.md").read_text(encoding="utf-8") == page.written(result), (
        "docs/grounding.md is stale; run: python benchmarks/grounding_page.py"
    )


def test_figures_become_rows_and_gaps_are_told(page: ModuleType) -> None:
    def share(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 40}

    row = {
        "f1": share(0.75), "f1_overlap": share(0.875), "mean_dice": share(0.5), "left_right_confusion": share(0.0525),
        "mean_dice_as_marked": share(0.25), "parameters": 734567, "references": 253,
        "false_positives_per_absent_sentence": share(0.25), "false_positives_per_swapped_sentence": share(0.5),
        "shuffled_f1": 0.125, "steps": 1883, "training_seconds": 3600.0,
        "less_first": {"f1": {"value": -0.125, "low": -0.25, "high": 0.0125, "n": 40}, "p": 0.0712},
    }  # fmt: skip
    figures = {"models": {"faithful": row}, "not_run_yet": ["ours", "llmseg"], "train_exams": 300, "test_exams": 60}
    made = {"command": "python benchmarks/run.py grounding", "commit": "abc", "machine": "m", "note": "Two at a time."}
    text = page.written({**made, "libraries": {"torch": "2", "numpy": "2"}, "figures": figures})
    assert (
        "| ConTEXTual Net 3D, small | 0.73 M | 0.750 (0.700 to 0.800) "
        "| -0.125 (-0.250 to +0.013), p 0.071 | 0.88 (0.82 to 0.93) | 0.50 (0.45 to 0.55) "
        "| 0.25 (0.20 to 0.30) | 5.2 % (0.2 to 10) of 40 | 25.0 % (20 to 30) of 40 "
        "| 50.0 % (45 to 55) of 40 | - | 0.12 | - | 1883 steps, 60 min |"
    ) in text
    assert "60 of another seed, with 253 lesions," in text
    assert "Not run yet: ours, LLMSeg." in text
    assert "What the text costs: not measured yet." in text
    assert text.rstrip().endswith("Two at a time.")
    pair = {"ratio": 1.04, "quartiles": [0.98, 1.07], "seconds": 2.0, "against_seconds": 1.92, "pairs": 7}
    costs = dict.fromkeys(page.COSTS, 1.04)
    figures |= {**costs, "cost": dict.fromkeys(page.COSTS, pair), "device": "CPU, 2 threads"}
    figures |= {"patch_zyx": [128, 96, 160], "window_zyx": [64, 64, 64], "exam_zyx": [128, 64, 64]}
    figures["sentences_in_a_step"] = 4
    figures["parameters"] = {"ours": 103.4e6}
    text = page.written({**made, "libraries": {"torch": "2", "numpy": "2"}, "figures": figures})
    assert "| 1.04 (0.98 to 1.07) | 1.05 | 2.00 s, 1.92 s | 7 |" in text
    assert "with 4 sentences, as the config trains, against one without text | 1.04 (0.98 to 1.07) | - |" in text
    assert (
        "(103 M parameters) on random numbers, patch 128 x 96 x 160, exam 128 x 64 x 64 in windows of 64 x 64 x 64, CPU"
        in text
    )

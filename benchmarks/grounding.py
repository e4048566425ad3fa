"""Which model grounds best: ours, the paper's and its rivals on mirrored phantoms; and what the text costs.

Run by `python benchmarks/run.py grounding`. About three hours on two cores, minutes on a GPU. It may be stopped at any
moment, and stops by itself after PETGROUND_BENCH_MINUTES (170): the next call goes on where it was, in
PETGROUND_BENCH_FOLDER (build/bench_grounding), and the table grows. PETGROUND_BENCH_MODELS=ours,blind takes only some.

300 mirrored exams (`petground phantom --mirrored`, seed 11) are labelled from their reports and train every model
alike: same grid, same sentences, same steps (configs/train/bench_*.yaml). 60 exams of another seed, never looked at,
are grounded; masks are scored against the truth. Lesions come in pairs of like SUVmax on both sides, so a model that
does not read the side is right half of the time at best.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from steps import Steps, from_environment

MODELS = ("ours", "faithful", "blind", "projections", "llmseg")
TRAIN, TEST = (300, 11), (60, 12)  # exams, seed
ROOT = Path(__file__).resolve().parent.parent


def measure() -> dict[str, Any]:
    steps = from_environment(ROOT / "build" / "bench_grounding")
    names = tuple(filter(None, os.environ.get("PETGROUND_BENCH_MODELS", "").split(","))) or MODELS
    steps.phantoms("train", *TRAIN)
    steps.phantoms("test", *TEST)
    for name in names:
        steps.train_and_evaluate(name, f"--config=bench_{name}")
    return {**_cost(steps), **_figures(steps.folder)}


def _cost(steps: Steps) -> dict[str, Any]:
    """The ratios of grounding_cost.py, measured once, in a process of their own."""
    path = steps.folder / "cost.json"
    if not path.is_file() and time.monotonic() < steps.until:
        told = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("grounding_cost.py"))],
            stdout=subprocess.PIPE,
            check=True,
        )
        path.write_bytes(told.stdout)
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return figures


def _figures(folder: Path) -> dict[str, Any]:
    rows, missing = {}, []
    for name in MODELS:
        path = folder / name / "evaluation" / "metrics.json"
        if not path.is_file():
            missing.append(name)
            continue
        metrics = json.loads(path.read_text(encoding="utf-8"))
        right = metrics["runs"]["right"]
        rows[name] = {
            "f1": right["f1"]["paper"],
            "f1_overlap": right["f1"]["overlap"],
            "mean_dice": right["mean_dice"],
            **{key: metrics[key] for key in ("left_right_confusion", "presence_auroc") if key in metrics},
            "shuffled_f1": metrics["f1"].get("shuffled"),
            "references": metrics["references"],
            **_training(folder / name),
        }
    return {
        "train_exams": TRAIN[0],
        "test_exams": TEST[0],
        "f1": {name: row["f1"]["value"] for name, row in rows.items()},
        "models": rows,
        "not_run_yet": missing,
    }


def _training(run: Path) -> dict[str, Any]:
    """Steps, seconds and parameters of a run, over all its attempts."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("version_*/run.json"))]
    if not records:
        return {}
    return {
        "steps": records[-1]["steps"],
        "parameters": records[-1]["parameters"],
        "precision": records[-1]["precision"],
    }

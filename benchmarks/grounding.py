"""Which model grounds best: ours, the paper's and its rivals on mirrored phantoms; and what the text costs.

Run by `python benchmarks/run.py grounding`. Hours on two cores: the table tells the seconds of each model's training
and evaluation. It may be stopped at any moment, and stops by itself after
PETGROUND_BENCH_MINUTES (170): the next call goes on where it was, in PETGROUND_BENCH_FOLDER (build/bench_grounding),
and the table grows. PETGROUND_BENCH_MODELS=ours,blind takes only some. What was made by other code, configs or settings
than those of today is made anew, and is in no table until then (steps.py).

300 mirrored exams (`petground phantom --mirrored`, seed 11) are labelled from their reports and train every model
alike: same grid, same exams, same steps of eight sentences (configs/train/bench_*.yaml). 60 exams of another seed,
which nobody trains or validates on, are grounded; masks are scored against the truth. Lesions come in pairs of like
SUVmax on both sides, so a model that does not read the side is right half of the time at best.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sources import hashes
from steps import Steps, from_environment

from petground.pipeline.files import read_json, write_bytes
from petground.pipeline.stage import content_hash
from petground.training.compare import compare

MODELS = ("ours", "faithful", "blind", "projections", "llmseg")
TRAIN, TEST = (300, 11), (60, 12)  # exams, seed
COPIED = (
    "left_right_confusion",
    "presence_auroc",
    "false_positives_per_absent_sentence",
    "false_positives_per_swapped_sentence",
    "false_positives_per_denied_sentence",
)
ROOT = Path(__file__).resolve().parent.parent


def measure() -> dict[str, Any]:
    steps = from_environment(ROOT / "build" / "bench_grounding")
    names = tuple(filter(None, os.environ.get("PETGROUND_BENCH_MODELS", "").split(","))) or MODELS
    steps.phantoms("train", *TRAIN)
    steps.phantoms("test", *TEST)
    for name in MODELS:
        steps.train_and_evaluate(name, f"--config=bench_{name}", run=name in names)
    return {**_cost(steps), **_figures(steps)}


def _cost(steps: Steps) -> dict[str, Any]:
    """The ratios of grounding_cost.py, measured once for each state of it, its config and the code that it calls."""
    script = Path(__file__).with_name("grounding_cost.py")
    config = ROOT / "configs" / "train" / "ours.yaml"
    code = hashes("petground.models", "petground.kernels", "petground.training")
    path = steps.folder / f"cost_{content_hash([script.read_text(), config.read_text(), code])}.json"
    if not path.is_file() and time.monotonic() < steps.until:
        told = subprocess.run([sys.executable, "-P", str(script)], stdout=subprocess.PIPE, check=True)
        write_bytes(path, told.stdout)
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return figures


def _figures(steps: Steps) -> dict[str, Any]:
    rows, missing = {}, []
    for name in MODELS:
        metrics = steps.metrics(name)
        if metrics is None:
            missing.append(name)
            continue
        right = metrics["runs"]["right"]
        rows[name] = {
            "f1": right["f1"]["paper"],
            "f1_overlap": right["f1"]["overlap"],
            "mean_dice": right["mean_dice"],
            "mean_dice_as_marked": right["mean_dice_as_marked"],
            **{key: metrics[key] for key in COPIED if key in metrics},
            "shuffled_f1": metrics["f1"].get("shuffled"),
            "references": metrics["references"],
            **_training(steps, name),
        }
    for name, difference in against_first([steps.folder / name / "evaluation" for name in rows]).items():
        rows[name]["less_first"] = difference
    return {
        "train_exams": TRAIN[0],
        "test_exams": TEST[0],
        "f1": {name: row["f1"]["value"] for name, row in rows.items()},
        "models": rows,
        "not_run_yet": missing,
    }


def against_first(evaluations: Sequence[Path]) -> dict[str, Any]:
    """{model: {"f1": its F1 less that of the first, with an interval, "p"}}, paired within patients (`compare`)."""
    if len(evaluations) < 2:
        return {}
    out = evaluations[0].parent.parent / "compared"
    compare(list(evaluations), out)
    rows = read_json(out / "compare.json")["rows"][1:]
    return {
        folder.parent.name: {key: row["minus_first"]["paper"][key] for key in ("f1", "p")}
        for folder, row in zip(evaluations[1:], rows, strict=True)
    }


def _training(steps: Steps, name: str) -> dict[str, Any]:
    """Steps, parameters and machine of a run, and seconds of training and evaluation, over all attempts."""
    record = steps.record(name)
    return {
        **{key: record[key] for key in ("steps", "parameters", "precision", "device", "threads") if key in record},
        "training_seconds": steps.seconds(f"fit_{name}"),
        "evaluation_seconds": steps.seconds(f"evaluate_{name}"),
    }

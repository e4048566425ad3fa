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

MODELS = ("ours", "faithful", "blind", "projections", "llmseg")
TRAIN, TEST = (300, 11), (60, 12)  # exams, seed
ROOT = Path(__file__).resolve().parent.parent


def measure() -> dict[str, Any]:
    folder = Path(os.environ.get("PETGROUND_BENCH_FOLDER", ROOT / "build" / "bench_grounding"))
    until = time.monotonic() + 60.0 * float(os.environ.get("PETGROUND_BENCH_MINUTES", "170"))
    names = tuple(filter(None, os.environ.get("PETGROUND_BENCH_MODELS", "").split(","))) or MODELS
    for part, (exams, seed) in {"train": TRAIN, "test": TEST}.items():
        made = folder / part
        _run(
            folder,
            f"phantom_{part}",
            until,
            "phantom",
            "--mirrored",
            f"--exams={exams}",
            f"--seed={seed}",
            f"--out={made}",
        )
        _run(folder, f"label_{part}", until, "label", f"--reports={made}/reports.csv", f"--exams={made}/exams",
             f"--out={folder}/work_{part}")  # fmt: skip
    for name in names:
        _train_and_evaluate(folder, name, until)
    return {**_cost(folder, until), **_figures(folder)}


def _cost(folder: Path, until: float) -> dict[str, Any]:
    """The ratios of grounding_cost.py, measured once, in a process of their own."""
    path = folder / "cost.json"
    if not path.is_file() and time.monotonic() < until:
        told = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("grounding_cost.py"))],
            stdout=subprocess.PIPE,
            check=True,
        )
        path.write_bytes(told.stdout)
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return figures


def _train_and_evaluate(folder: Path, name: str, until: float) -> None:
    run = folder / name
    _run(folder, f"fit_{name}", until, "train", "fit", f"--config=bench_{name}", f"--data.work={folder}/work_train",
         f"--run_dir={run}", "--ckpt_path=last")  # fmt: skip
    _run(folder, f"evaluate_{name}", until, "evaluate", f"--labels={folder}/work_test", f"--truth={folder}/test",
         f"--checkpoint={run}/checkpoints/last.ckpt", f"--out={run}/evaluation")  # fmt: skip


def _run(folder: Path, step: str, until: float, *arguments: str) -> None:
    """Runs a petground command once; a step that is done is not run again, one that is out of time is stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{step}.done"
    if mark.is_file() or time.monotonic() >= until:
        return
    if step.startswith("evaluate") and not (folder / f"fit_{step.removeprefix('evaluate_')}.done").is_file():
        return
    sys.stderr.write(f"{step} ...\n")
    with (folder / f"{step}.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "petground.pipeline.cli", *arguments], stdout=log, stderr=log
        )
        try:
            code = process.wait(timeout=max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            sys.stderr.write(f"{step}: out of time, goes on with the next call\n")
            return
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if code != 0:
        sys.exit(f"{step} failed with exit code {code}: see {folder / step}.log")
    mark.write_text(" ".join(arguments), encoding="utf-8")


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

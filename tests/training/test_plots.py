"""Plots: files are made, and the curves are those of the log."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from petground.training.metrics import Score, missed
from petground.training.plots import curves_of_run, logs_of_run, plot_dice, plot_precision_recall, plot_training
from petground.training.references import Reference


def some(n: int) -> tuple[list[Reference], list[Score]]:
    rng = np.random.default_rng(4)
    references, scores = [], []
    for i in range(n):
        volume, suv = float(np.exp(rng.normal(1, 1.5))), float(np.exp(rng.normal(2, 0.6)))
        tracer = ("FDG", "DCFPyL", "DOTATATE")[i % 3]
        references.append(Reference(f"e{i // 2}", str(i), f"p{i // 2}", tracer, "", suv, volume, None, None, Path()))
        value = float(np.clip(rng.normal(0.7, 0.2), 0, 1))
        hit = Score(True, value > 0.4, value, suv, value > 0.5, float(rng.uniform(0.5, 1)), volume)
        scores.append(missed(presence=0.2) if i % 7 == 0 else hit)
    return references, scores


def test_plots_are_written_whole(tmp_path: Path) -> None:
    references, scores = some(60)
    plot_precision_recall(tmp_path / "pr.png", references, scores)
    plot_dice(tmp_path / "dice.png", references, scores)
    for name in ("pr.png", "dice.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dice.png", "pr.png"]


def test_plots_stand_a_model_that_never_answers(tmp_path: Path) -> None:
    references, _ = some(3)
    plot_precision_recall(tmp_path / "pr.png", references, [missed()] * 3)
    plot_dice(tmp_path / "dice.png", references, [missed()] * 3)
    assert (tmp_path / "pr.png").is_file()


def test_training_curves_leave_out_empty_cells(tmp_path: Path) -> None:
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,step,train/loss,val/f1,lr\n0,10,1.5,,0.1\n0,20,nan_cell,,\n0,20,,0.25,\n1,30,0.7,,0.2\n")
    curves = curves_of_run([log])
    assert curves["train/loss"] == ([10.0, 30.0], [1.5, 0.7])
    assert curves["val/f1"] == ([20.0], [0.25])
    assert plot_training(tmp_path / "training.png", [log])
    assert (tmp_path / "training.png").is_file()
    log.write_text("epoch,step\n")
    assert not plot_training(tmp_path / "none.png", [log])
    assert not (tmp_path / "none.png").exists()


def test_a_run_taken_up_again_is_one_curve(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    for attempt, content in enumerate(("step,train/loss\n1,3\n2,2\n3,9\n", "step,train/loss\n3,1.5\n4,1\n")):
        log = tmp_path / "run" / f"version_{attempt}" / "metrics.csv"
        log.parent.mkdir()
        log.write_text(content)
        os.utime(log, (1000 + attempt, 1000 + attempt))
    logs = logs_of_run(checkpoint)
    assert [log.parent.name for log in logs] == ["version_0", "version_1"]
    assert curves_of_run(logs)["train/loss"] == ([1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.5, 1.0])
    assert logs_of_run(tmp_path / "elsewhere" / "a" / "b" / "x.ckpt") == []

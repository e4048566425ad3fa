"""Flags of a training that takes a second: two stages of four and eight features at 16 mm, a random text encoder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tiny_text import make_text_model


def text_encoder(folder: Path) -> Path:
    place = folder / "encoder"
    return place if place.is_dir() else make_text_model(place, "bert")


def small_flags(work: Path, run: Path, **more: Any) -> list[str]:
    """`fit` with its flags; of more, a double underscore stands for a dot, None takes a flag out."""
    flags: dict[str, Any] = {
        "data.work": work, "run_dir": run, "data.validation_fraction": 0.25, "data.sentences": 2,
        "data.absent_fraction": 0.5,
        "model.text.name": text_encoder(work.parent), "model.text.local_files_only": "true",
        "model.net.features": "[4,8]", "model.net.encoder": "plain", "model.net.blocks_per_stage": 1,
        "model.net.decoder_convs": 1, "model.net.fusion_stages": "[0]", "model.net.coarse_heads": "false",
        "model.grid.spacing_xyz_mm": "[16.,16.,16.]", "model.grid.shape_zyx": "[24,12,20]",
        "model.optimizer.lr": 0.01, "model.optimizer.warmup_steps": 1, "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
        "trainer.num_sanity_val_steps": 0,
    }  # fmt: skip
    flags |= {name.replace("__", "."): value for name, value in more.items()}
    return ["fit", *(f"--{key}={value}" for key, value in flags.items() if value is not None)]


def logged(folder: Path, name: str = "train/loss") -> dict[int, float]:
    """A metric by step, of a run's version_N."""
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}

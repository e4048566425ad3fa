"""What accompanies every training: checkpoints, progress lines, and the run's record."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, ProgressBar, RichProgressBar

from petground.pipeline.files import write_json
from petground.training.checkpoints import BestCheckpoint
from petground.training.ema import AsTrained
from petground.training.module import GroundingModule
from petground.training.resume import MidEpoch
from petground.training.runtime import native_bf16

__all__ = ["PlainProgress", "RunRecord", "default_callbacks"]

SAVE_EVERY = timedelta(minutes=10)  # within an epoch: what a machine that is taken away costs at most
_log = logging.getLogger(__name__)


def default_callbacks(root: Path, *, validated: bool = True) -> list[Callback]:
    """Best (by val/f1, when `validated`; the newest otherwise) and last checkpoint, learning-rate log, progress for a
    terminal or for a log file."""
    progress: ProgressBar = RichProgressBar() if sys.stdout.isatty() else PlainProgress()
    folder = root / "checkpoints"  # one place for all attempts, so that `--ckpt_path last` finds it
    best = BestCheckpoint(
        dirpath=folder,
        filename="best",
        monitor="val/f1" if validated else None,
        mode="max",
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    # after the epoch, not after its validation: Lightning resumes from there to the same steps
    last = {"dirpath": folder, "filename": "last", "enable_version_counter": False}
    return [
        best,
        ModelCheckpoint(**last, save_on_train_epoch_end=True),
        ModelCheckpoint(**last, train_time_interval=SAVE_EVERY),
        LearningRateMonitor("step"),
        AsTrained(),
        MidEpoch(),
        RunRecord(),
        progress,
    ]


class PlainProgress(ProgressBar):
    """A line every `seconds` seconds, and after each validation: for logs and pipes."""

    def __init__(self, seconds: float = 30.0):
        super().__init__()
        self.seconds = seconds
        self._off = False
        self._said = 0.0
        self._start: tuple[float, int] = (0.0, 0)

    def disable(self) -> None:
        self._off = True

    def enable(self) -> None:
        self._off = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = (time.monotonic(), trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._said >= self.seconds:
            self._say(trainer, "train/loss")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._say(trainer, "train/loss", "val/loss", "val/f1")

    def _say(self, trainer: pl.Trainer, *names: str) -> None:
        if not trainer.is_global_zero or self._off:
            return
        now = time.monotonic()
        self._said = now
        began, first = self._start
        done, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        each = (now - began) / max(1, done - first)
        metrics = trainer.callback_metrics
        figures = "".join(f"  {name} {float(metrics[name]):.3f}" for name in names if name in metrics)
        left = max(0, total - done) * each
        sys.stderr.write(f"step {done}/{total}{figures}  {each:.2f} s/step, {left / 60:.1f} min left\n")
        sys.stderr.flush()


class RunRecord(Callback):
    """Writes run.json into the run's folder at the start and end.

    Versions, state of the checkout, hashes of the data, splits, device, steps, seconds, the best score.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # not at on_fit_start: the module notes its splits there, after its callbacks
        self._began = time.monotonic()
        self._write(trainer, pl_module, finished=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module, finished=True)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, *, finished: bool) -> None:
        folder = trainer.log_dir  # asks all processes: not of one
        if not trainer.is_global_zero or not folder or not isinstance(module, GroundingModule):
            return
        best = getattr(trainer.checkpoint_callback, "best_model_score", None)
        record = {
            "finished": finished,
            "steps": int(trainer.global_step),
            "seconds": round(time.monotonic() - self._began, 1),
            "best_val_f1": None if best is None else round(float(best), 4),
            "best_checkpoint": getattr(trainer.checkpoint_callback, "best_model_path", "") or None,
            "precision": str(trainer.precision),
            "native_bf16": native_bf16(module.device),
            "device": _device(module.device),
            "threads": torch.get_num_threads(),
            "devices": trainer.world_size,
            "exams_per_step": _exams_per_step(trainer),
            "parameters": sum(p.numel() for p in module.net.parameters()),
            **module.made(),
        }
        write_json(Path(folder) / "run.json", record)


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _exams_per_step(trainer: pl.Trainer) -> int:
    """Of all devices, per optimizer step."""
    loader = trainer.train_dataloader
    return int(getattr(loader, "batch_size", None) or 1) * trainer.world_size * trainer.accumulate_grad_batches

"""Checkpoint files: written whole or not at all, read with words for what is wrong, found where the run lies today."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from petground.labeling.errors import InputError
from petground.pipeline.files import write_bytes

__all__ = ["CHECKPOINT_KEY", "BestCheckpoint", "WholeFiles", "read_checkpoint"]

CHECKPOINT_KEY = "petground"  # how the model came to be: `GroundingModule.made`

_log = logging.getLogger(__name__)
_NEEDED = ("hyper_parameters", "state_dict", CHECKPOINT_KEY)
_DAMAGED = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, EOFError, OSError, pickle.UnpicklingError)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of this project, on the CPU. Raises InputError where there is none that is whole."""
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}", fix="train first, or name a .ckpt file of the run")
    try:
        # weights_only: a checkpoint comes from elsewhere, and a pickle may run anything
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise InputError(f"{path.name} is no whole checkpoint ({type(error).__name__})", fix=_others(path)) from error
    if not isinstance(content, dict) or any(name not in content for name in _NEEDED):
        raise InputError(f"{path.name} is no checkpoint of petground", fix="name a .ckpt file of `petground train`")
    return content


def _others(path: Path) -> str:
    beside = sorted(one.name for one in path.parent.glob("*.ckpt") if one != path)
    return f"use {' or '.join(beside)} of the same folder, or train anew" if beside else "train anew"


class WholeFiles(TorchCheckpointIO):
    """A checkpoint is written beside its place and moved there: a kill leaves the one before.

    Lightning's own goes by the system's folder for temporary files and is copied from there where that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getvalue())


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt, by val/f1: also where the run was moved since, and the newest where nothing validated at all."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's, which would forget the best score where the folder is another one than then."""
        here = Path(self.dirpath or ".")

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {name: moved(state_dict[name]) for name in names if name in state_dict}
        best = {moved(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        if all(Path(path).is_file() for path in best):
            state_dict = {**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        best, last = (Path(self.dirpath or ".") / f"{name}.ckpt" for name in ("best", "last"))
        if not self.best_model_path and last.is_file():
            write_bytes(best, last.read_bytes())
        if "threshold" not in getattr(pl_module, "provenance", {}):
            _log.warning(
                "nothing validated: best.ckpt is the newest checkpoint; voxels and presence are limited at 0.5, which "
                "no exam has chosen"
            )

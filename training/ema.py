"""A moving average of the weights, kept beside them: Lightning's callback, with a decay that warms up."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from petground.labeling.errors import ConfigError

__all__ = ["AsTrained", "moving_average"]


def moving_average(decay: float) -> WeightAveraging:
    """Validation, checkpoints and the trained model use the average; training goes on from the weights themselves.

    The decay rises as (1 + n) / (10 + n) until it is reached (Polyak averaging with the warm-up of TensorFlow's
    ExponentialMovingAverage): else the weights of the first steps would stay in the average of a short training.
    """

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        return old.lerp(new.to(old.dtype), 1.0 - _decay(decay, int(updates)))

    return WeightAveraging(avg_fn=average, use_buffers=False)


def _decay(decay: float, updates: int) -> float:
    return min(decay, (1 + updates) / (10 + updates))


class AsTrained(Callback):
    """Refuses to go on without the moving average from a checkpoint that has one: the average would be trained."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        averaged = any(isinstance(one, WeightAveraging) for one in trainer.callbacks)  # type: ignore[attr-defined]
        if trainer.state.fn == "fit" and "current_model_state" in checkpoint and not averaged:
            raise ConfigError(
                "this training kept a moving average of its weights, and is to go on without",
                fix="give the same model.optimizer.ema as before",
            )

"""Going on from a checkpoint: within an epoch, too, and only with the network that the weights are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from petground.labeling.errors import ConfigError
from petground.models.networks import VERSION

__all__ = ["MidEpoch", "require_same_model"]

MOST = 6  # settings that are named


class MidEpoch(Callback):
    """A training that is stopped within an epoch goes on with the rest of that epoch.

    A time limit, an early stop and max_steps end the epoch that runs as if it were whole, and Lightning's loops would
    go on with the next one: what was left of it would never be seen. The checkpoint is written as after its last step
    instead, and the data leave out what was taken.
    """

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
        taken = batches["current"]["ready"]
        if batches["is_last_batch"] or taken >= trainer.num_training_batches:
            return
        # gradients that wait for their step are in no checkpoint: their exams are to come again
        waiting = taken % trainer.accumulate_grad_batches if taken > trainer.accumulate_grad_batches else 0
        ended = int(epochs["current"]["processed"] > epochs["current"]["completed"])  # not a save on the way
        for count in ("total", "current"):
            epochs[count]["processed"] -= ended
            for name in ("ready", "started", "processed"):
                batches[count][name] -= waiting
            batches[count]["completed"] -= waiting + ended  # as in the hook after a step: it goes on from there
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= int(ended or waiting > 0)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        if hasattr(data, "taken"):
            loops = checkpoint["loops"]["fit_loop"]
            epoch = loops["epoch_progress"]["current"]["completed"]
            data.taken = (epoch, loops["epoch_loop.batch_progress"]["current"]["ready"])


def require_same_model(checkpoint: Mapping[str, Any], module: Any) -> None:
    """Raises ConfigError where the weights are of a network or text encoder that computes otherwise, or do not fit."""
    if module.provenance.get("network") != VERSION:
        raise ConfigError(
            "this checkpoint's weights are of a network that computes otherwise than this release's",
            fix="train anew, or use the release that it was trained with",
        )
    others = [] if _fits(checkpoint["state_dict"], module) else _other_settings(checkpoint, module)
    if others:  # with none the file is not whole, which is told where it is loaded
        raise ConfigError(
            f"the checkpoint is of another network: {'; '.join(others[:MOST])}",
            fix="give the --config it was trained with, and the same flags: RUN/version_N/config.yaml holds them",
        )
    made_with = module.provenance.get("text_key")
    if made_with is not None and made_with != module.bank.encoder.key:
        raise ConfigError(
            f"the text encoder '{module.text_config.name}' is not the one this checkpoint was trained with",
            fix="install the same version of it, or name its folder",
        )


def _fits(weights: Mapping[str, Tensor], module: Any) -> bool:
    here = module.state_dict()
    return here.keys() == weights.keys() and all(here[name].shape == weights[name].shape for name in here)


def _other_settings(checkpoint: Mapping[str, Any], module: Any) -> list[str]:
    """Settings of network and text encoder that the checkpoint tells otherwise, each in words."""
    before = checkpoint.get("hyper_parameters", {})
    now = {"net": asdict(module.net_config), "text": asdict(module.text_config)}
    return [
        f"model.{part}.{name} is {_short(value)} here, {_short(before[part][name])} there"
        for part in now
        for name, value in now[part].items()
        if name in before.get(part, {}) and name != "pretrained" and before[part][name] != value
    ]


def _short(value: Any) -> str:
    said = str(value)
    return said if len(said) <= 60 else said[:57] + "..."

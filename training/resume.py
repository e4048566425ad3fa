"""Going on from a checkpoint: within an epoch, too, and only with the network that the weights are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from petground.labeling.errors import ConfigError
from petground.models.networks import VERSION
from petground.pipeline.splits import patient_hash

__all__ = ["MidEpoch", "require_same_model", "require_unseen"]

MOST = 6  # settings that are named
# what may differ: the network computes the same; which text encoder it is, its key tells and not its name
FREE = ("pretrained", "checkpointing", "patch_step", "lr_factor", "local_files_only", "name")


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
        waiting = taken % trainer.accumulate_grad_batches
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
        recipe = checkpoint.get("hyper_parameters", {}).get("optimizer", {}).get("name")
        now = getattr(getattr(pl_module, "optimizer_config", None), "name", None)
        if trainer.state.fn == "fit" and recipe and now and recipe != now:
            raise ConfigError(
                f"the checkpoint was trained by {recipe}, whose state {now} cannot go on from",
                fix=f"go on with --model.optimizer.name {recipe}",
            )
        data = getattr(trainer, "datamodule", None)
        if hasattr(data, "taken"):
            loops = checkpoint["loops"]["fit_loop"]
            epoch = loops["epoch_progress"]["current"]["completed"]
            data.taken = (epoch, loops["epoch_loop.batch_progress"]["current"]["ready"])


def require_same_model(checkpoint: Mapping[str, Any], module: Any) -> None:
    """Raises ConfigError where the weights are of a network, grid or text encoder that computes otherwise."""
    if module.provenance.get("network") != VERSION:
        raise ConfigError(
            "this checkpoint's weights are of a network or grid that computes otherwise than this release's",
            fix="train anew, or use the release that it was trained with",
        )
    others = _other_settings(checkpoint, module)
    if others:
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


def require_unseen(before: Mapping[str, Any], data: Any) -> None:
    """Raises ConfigError where weights that are trained on would be judged by patients that they learnt from.

    A split is worked out from the exams that have a label: a review or a new labelling moves patients. before: the
    checkpoint's provenance; data: who trains, validates and is kept for the test now.
    """
    for part, did in (("val", "trained"), ("test", "trained"), ("test", "validated")):
        known = set(before.get(f"{did}_patients", []))
        lost = {data.exams[exam].patient_id for exam in data.split.get(part, [])}
        lost = {patient for patient in lost if patient_hash(patient) in known}
        if lost:
            raise ConfigError(
                f"{len(lost)} patients of '{part}' have {did} in this checkpoint: the split is another one than then",
                fix="give the split of then, --data.splits RUN/version_N/splits.json",
            )


def _other_settings(checkpoint: Mapping[str, Any], module: Any) -> list[str]:
    """Settings of network, grid and text encoder that the checkpoint tells otherwise, each in words."""
    before = checkpoint.get("hyper_parameters", {})
    now = {"net": module.net_config, "grid": module.grid, "text": module.text_config}
    return [
        f"model.{part}.{name} is {_short(value)} here, {_short(before[part][name])} there"
        for part, config in now.items()
        for name, value in asdict(config).items()
        if name in before.get(part, {}) and name not in FREE and _plain(before[part][name]) != _plain(value)
    ]


def _plain(value: Any) -> Any:
    """The same for a tuple and a list, for files know no tuples, and with any kernel."""

    def less(found: dict[str, Any]) -> dict[str, Any]:
        return {key: one for key, one in found.items() if key != "backend"}

    return json.loads(json.dumps(value), object_hook=less)


def _short(value: Any) -> str:
    said = str(value)
    return said if len(said) <= 60 else said[:57] + "..."

"""The Lightning module: a grounding network, its text encoder, how it is trained, and how it predicts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor

from petground.labeling.errors import ConfigError, InputError, PetgroundError
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.text.bank import TextBank
from petground.models.text.encoder import TextConfig, TextEncoder
from petground.models.unet import Decoded
from petground.pipeline.splits import patient_hash
from petground.training.grid import GridSpec
from petground.training.hits import Hits, count_hits
from petground.training.inference import Prediction
from petground.training.losses import LossConfig, deep_loss
from petground.training.metrics import PROBABILITY
from petground.training.runtime import native_bf16

__all__ = ["GroundingModule", "OptimizerConfig"]

CHECKPOINT_KEY = "petground"
DECODED_VOXELS = 2_000_000  # at once, over sentences
THRESHOLDS = (PROBABILITY, 0.3, 0.2, 0.1)  # the published one first: it wins a tie
PRESENCES = (0.0, 0.1, 0.3, 0.5, 0.7)  # 0: the presence head is not asked
T = TypeVar("T")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay over the whole training.

    Args:
        lr: peak learning rate.
        weight_decay: of weights; biases and norms have none.
        warmup_steps: optimizer steps from zero to the peak.
        final: the learning rate ends at this share of the peak.
    """

    lr: float = 5e-5
    weight_decay: float = 0.01
    warmup_steps: int = 500
    final: float = 0.01

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.warmup_steps < 0 or not 0 <= self.final <= 1:
            raise ConfigError(f"optimizer settings out of range: {self}")

    def factor(self, step: int, total: int) -> float:
        """Learning rate at a step as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps))
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + float(np.cos(np.pi * done)))


class GroundingModule(pl.LightningModule):
    """A network that marks in a PET/CT what a sentence tells of.

    Args:
        net: the network; the defaults are those of ConTEXTual Net 3D.
        text: the frozen text encoder.
        grid: size, spacing and windows of the input.
        loss: weights of Dice and cross-entropy.
        optimizer: learning rate and schedule.
    """

    def __init__(
        self,
        net: NetConfig = NetConfig(),  # noqa: B008 (frozen)
        text: TextConfig = TextConfig(),  # noqa: B008 (frozen)
        grid: GridSpec = GridSpec(),  # noqa: B008 (frozen)
        loss: LossConfig = LossConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerConfig = OptimizerConfig(),
    ):
        super().__init__()
        # a checkpoint hands back plain mappings
        self.net_config = _typed(NetConfig, net)
        self.text_config = _typed(TextConfig, text)
        self.grid = _typed(GridSpec, grid)
        self.loss_config = _typed(LossConfig, loss)
        self.optimizer_config = _typed(OptimizerConfig, optimizer)
        if not self.net_config.fits(self.grid.shape_zyx):
            raise ConfigError(
                f"grid shape_zyx {tuple(self.grid.shape_zyx)} and {len(self.net_config.features)} stages do not fit",
                fix=f"axes (z, y, x) must be multiples of {self.net_config.divisor_zyx}",
            )
        encoder = TextEncoder(self.text_config)
        self.net = GroundingNet(self.net_config, encoder.channels)
        self.bank = TextBank(encoder)
        self.provenance: dict[str, Any] = {}
        self._hits = self._no_hits()

    # --- use ---

    @property
    def presence_threshold(self) -> float:
        """Presence below which a sentence gets an empty mask; chosen with `threshold`; 0 without a presence head."""
        return float(self.provenance.get("presence_threshold", 0.0))

    @property
    def threshold(self) -> float:
        """Probability above which a voxel is marked: the one with the best F1 when the run last validated, else 0.5."""
        return float(self.provenance.get("threshold", PROBABILITY))

    def embed(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """S sentences -> token states [S, P, D] and mask [S, P] bool on the module's device."""
        tokens, mask = self.bank(sentences)
        return tokens.to(self.device), mask.to(self.device)

    @torch.inference_mode()
    def predict(self, image: NDArray[np.float32], sentences: Sequence[str], *, chunk: int | None = None) -> Prediction:
        """Image [2, Z, Y, X] in 0..1 from `to_model_grid`, S sentences -> what the network says to each.

        The image is encoded once; `chunk` sentences are decoded at a time, by default as many as keep the full
        resolution's features at the size of some million voxels.
        """
        if image.shape != (self.net_config.in_channels, *self.grid.shape_zyx):
            raise InputError(f"image {image.shape} is not on the model's grid {tuple(self.grid.shape_zyx)}")
        chunk = chunk or max(1, DECODED_VOXELS // int(np.prod(self.grid.shape_zyx)))
        training = self.training
        self.eval()
        out = np.empty((len(sentences), *self.grid.shape_zyx), dtype=np.float32)
        presence = np.empty(len(sentences), dtype=np.float32) if self.net_config.presence else None
        tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=native_bf16(self.device)):
            features = self.net.encode(tensor)
            for start in range(0, len(sentences), chunk):
                tokens, mask = self.embed(sentences[start : start + chunk])
                decoded = self.net.decode(features, tokens[None], mask[None])
                out[start : start + chunk] = decoded.stages[-1][0].float().sigmoid().cpu().numpy()
                if presence is not None and decoded.presence is not None:
                    presence[start : start + chunk] = decoded.presence[0].float().sigmoid().cpu().numpy()
        self.train(training)
        return Prediction(out, presence)

    # --- training ---

    def setup(self, stage: str) -> None:
        """Reads every sentence once, before the first step."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "prompts"):
            self.bank = TextBank(self.bank.encoder, Path(data.cache) / "text")
            self.bank.add(data.prompts())
            self.bank.encoder.unload()

    def on_fit_start(self) -> None:
        """Notes who trains and validates, after a resumed checkpoint has told who did before: nobody is forgotten."""
        data = getattr(self.trainer, "datamodule", None)
        if data is None or not hasattr(data, "split"):
            return
        before = self.provenance.get("splits", {})
        for name, did in (("train", "trained"), ("val", "validated")):
            exams = data.split.get(name, [])
            hashes = {patient_hash(data.exams[exam].patient_id) for exam in exams}
            known = self.provenance.get(f"{did}_on", before.get(name, []))
            self.provenance[f"{did}_on"] = sorted({*known, *exams})
            self.provenance[f"{did}_patients"] = sorted({*self.provenance.get(f"{did}_patients", []), *hashes})
        self.provenance["splits"] = {name: list(exams) for name, exams in data.split.items()}

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor:
        losses = self._losses(batch)
        if not torch.isfinite(losses["loss"]):
            raise PetgroundError(
                f"the loss is {float(losses['loss'].detach())} at step {self.global_step}",
                case=", ".join(batch["exam_id"]),
                fix="lower the learning rate, or look at this exam's image and labels",
                reason="not_finite",
            )
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=1)
        return losses["loss"]

    def on_validation_epoch_start(self) -> None:
        self._hits = self._no_hits()

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        decoded = self._decoded(batch)
        losses = deep_loss(Decoded(decoded.stages[-1:], decoded.presence), batch["target"], self.loss_config)
        self.log("val/loss", losses["loss"], batch_size=1, sync_dist=True)
        probability = decoded.stages[-1].float().sigmoid().flatten(0, 1).cpu().numpy()
        target = batch["target"].flatten(0, 1).cpu().numpy() > 0.5
        said = np.ones(len(target)) if decoded.presence is None else _numpy(decoded.presence.sigmoid().flatten())
        for threshold in THRESHOLDS:
            for presence, hits in count_hits(probability, target, threshold, said, self._presences).items():
                self._hits[threshold, presence] += hits

    def on_validation_epoch_end(self) -> None:
        scores = {}
        for limits, hits in self._hits.items():
            counts = torch.tensor([hits.true, hits.predicted, hits.wanted], dtype=torch.float32, device=self.device)
            true, predicted, wanted = self.trainer.strategy.reduce(counts, reduce_op="sum").tolist()
            scores[limits] = Hits(int(true), int(predicted), int(wanted)).f1
        best = max(scores, key=lambda limits: scores[limits])
        self.provenance["threshold"], self.provenance["presence_threshold"] = best
        self.log("val/f1", scores[best], prog_bar=True)
        self.log("val/threshold", best[0])
        if self.net_config.presence:
            self.log("val/presence_threshold", best[1])

    @property
    def _presences(self) -> tuple[float, ...]:
        return PRESENCES if self.net_config.presence else PRESENCES[:1]

    def _no_hits(self) -> dict[tuple[float, float], Hits]:
        return {(threshold, presence): Hits() for threshold in THRESHOLDS for presence in self._presences}

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> OptimizerLRScheduler:
        config = self.optimizer_config
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: config.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Everything needed to build the model again, as plain values that `weights_only` loading accepts."""
        checkpoint["hyper_parameters"] = {
            "net": asdict(self.net_config),
            "text": asdict(self.text_config),
            "grid": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.grid).items()},
            "loss": asdict(self.loss_config),
            "optimizer": asdict(self.optimizer_config),
        }
        checkpoint[CHECKPOINT_KEY] = self.made()

    def made(self) -> dict[str, Any]:
        """How this model came to be: versions, text encoder, splits, steps; goes with checkpoint and run folder.

        trained_on, validated_on: exam ids of this and all earlier fits of these weights; trained_patients,
        validated_patients: `patient_hash` of their patients.
        """
        return {
            **self.provenance,
            "versions": _versions(),
            "text_key": self.bank.encoder.key,
            "step": int(self.global_step),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the checkpoint says of its making. Raises ConfigError when the text encoder is another."""
        self.provenance = dict(checkpoint.get(CHECKPOINT_KEY, {}))
        made_with = self.provenance.get("text_key")
        if made_with is not None and made_with != self.bank.encoder.key:
            raise ConfigError(
                f"the text encoder '{self.text_config.name}' is not the one this checkpoint was trained with",
                fix="install the same version of it, or name its folder",
            )

    def _losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return deep_loss(self._decoded(batch), batch["target"], self.loss_config, batch.get("present"))

    def _decoded(self, batch: Mapping[str, Any]) -> Decoded:
        exams, sentences = batch["target"].shape[:2]
        tokens, mask = self.embed([sentence for one in batch["sentences"] for sentence in one])
        tokens, mask = tokens.unflatten(0, (exams, sentences)), mask.unflatten(0, (exams, sentences))
        return self.net.decode(self.net.encode(batch["image"]), tokens, mask, batch.get("box"))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def _typed(kind: type[T], value: T | Mapping[str, Any]) -> T:
    if not isinstance(value, Mapping):
        return value
    return kind(**{k: tuple(v) if kind is GridSpec and isinstance(v, list) else v for k, v in value.items()})


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("petground", "torch", "lightning", "monai", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

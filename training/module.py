"""The Lightning module: a grounding network, its text encoder, how it is trained, and how it predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor

from petground.labeling.errors import ConfigError, PetgroundError
from petground.models.blocks.own_losses import listening, own_losses
from petground.models.net_config import NetConfig
from petground.models.networks import VERSION, build_network, learned_prompts
from petground.models.text.bank import TextBank
from petground.models.text.encoder import TextConfig, TextEncoder
from petground.models.text.trained import build_text_model
from petground.models.unet import Decoded
from petground.pipeline.prompts import PromptMode
from petground.training.checkpoints import CHECKPOINT_KEY
from petground.training.compiled import Steps, compiled_steps
from petground.training.grid import GridSpec
from petground.training.hits import Hits, best_limits, count_hits
from petground.training.inference import Prediction
from petground.training.losses import LossConfig, deep_loss, losses_by_exam, outcome, over_sentences, with_blocks
from petground.training.metrics import PROBABILITY
from petground.training.optimizers import (
    OptimizerConfig,
    clip_gradients,
    follow_config,
    gradient_norm,
    make_optimizer,
    parameter_groups,
    steps_of,
)
from petground.training.plans import PlansConfig, require_fit, resolve, with_spacing
from petground.training.predict import answers_to, predict
from petground.training.provenance import noted, versions
from petground.training.resume import require_same_model, require_unseen
from petground.training.runtime import channels_last_on_cpu, of_all_processes, seed_step

__all__ = ["GroundingModule", "OptimizerConfig"]

THRESHOLDS = (PROBABILITY, 0.3, 0.2, 0.1)  # the published one first: it wins a tie
PRESENCES = tuple(n / 20 for n in range(20))  # 0: the presence head is not asked
T = TypeVar("T")


class GroundingModule(pl.LightningModule):
    """A network that marks in a PET/CT what a sentence tells of.

    Args:
        net: the network; the defaults are those of ConTEXTual Net 3D.
        text: the text encoder: frozen, or trained with the network.
        grid: size, spacing and windows of the input.
        loss: weights of Dice, cross-entropy and what else is trained.
        optimizer: recipe, learning rate, schedule, moving average.
        plans: nnU-Net's plans: encoder, spacing and patch are theirs. They are read once; a checkpoint holds the
            network and grid that came of them.
        compile: torch.compile of the training step; its first steps take minutes. How much it saves was
            not measured: time it on your device (docs/training.md).
    """

    def __init__(
        self,
        net: NetConfig = NetConfig(),  # noqa: B008 (frozen)
        text: TextConfig = TextConfig(),  # noqa: B008 (frozen)
        grid: GridSpec = GridSpec(),  # noqa: B008 (frozen)
        loss: LossConfig = LossConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        plans: PlansConfig | None = None,
        compile: bool = False,
    ):
        super().__init__()
        # a checkpoint hands back plain mappings
        self.net_config = _typed(NetConfig, net)
        self.text_config = _typed(TextConfig, text)
        self.grid = _typed(GridSpec, grid)
        if plans is not None:
            self.net_config, self.grid = resolve(_typed(PlansConfig, plans), self.net_config, self.grid)
        require_fit(self.net_config, self.grid)
        self.net_config = with_spacing(self.net_config, self.grid)
        self.loss_config = _typed(LossConfig, loss)
        self.optimizer_config = _typed(OptimizerConfig, optimizer)
        encoder = TextEncoder(self.text_config)
        self.net = build_network(self.net_config, encoder.channels)
        if learned_prompts(self.net) is not None and self.text_config.train != "frozen":
            raise ConfigError(
                f"learned prompts are for a frozen language model, model.text.train is {self.text_config.train}",
                fix="set model.text.train: frozen, or model.net.llmseg.prompts: 0",
            )
        self.bank = TextBank(encoder)  # of a frozen encoder; one that is trained reads in every step
        self.text_model = build_text_model(self.text_config)
        self.compile_steps = compile
        self._steps: Steps | None = None
        self._in_step: list[str] = []  # exams whose gradients go into the next step
        self.provenance: dict[str, Any] = {}
        self._hits = self._no_hits()
        self._validation = torch.zeros(2)  # sum of the exams' losses, exams

    # --- use ---

    @property
    def presence_threshold(self) -> float:
        """Presence below which a sentence gets an empty mask; chosen with `threshold`, else 0.5; 0 without a head."""
        return float(self.provenance.get("presence_threshold", PROBABILITY if self.net_config.presence else 0.0))

    @property
    def threshold(self) -> float:
        """Probability above which a voxel is marked: the one with the best F1 when the run last validated, else 0.5."""
        return float(self.provenance.get("threshold", PROBABILITY))

    @property
    def trained_in_full(self) -> bool:
        """Whether the last fit worked in float32 throughout (`--trainer.precision 32-true`): then answers do, too."""
        return str(self.provenance.get("precision", "")).startswith(("32", "64"))

    @property
    def prompt(self) -> PromptMode:
        """Whether the model reads a finding's SUV and slice, as its training data said: see `GroundingData`."""
        mode: PromptMode = self.provenance.get("prompt", "words")
        return mode

    def embed(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """S sentences -> token states [S, P, D] and mask [S, P] bool on the module's device."""
        prompts = learned_prompts(self.net)
        if prompts is not None:  # gradients go through the language model: there is nothing to keep
            tokenizer, model = self.bank.encoder.model_on(self.device)
            answer: tuple[Tensor, Tensor] = prompts(model, tokenizer, sentences, self.text_config.max_tokens)
            return answer
        tokens, mask = self.bank(sentences) if self.text_model is None else self.text_model(sentences)
        return tokens.to(self.device), mask.to(self.device)

    def predict(self, image: NDArray[np.float32], sentences: Sequence[str], **how: Any) -> Prediction:
        """Image [2, Z, Y, X] in 0..1 from `to_model_grid`, S sentences -> what the network says to each.

        The image, or with a patch grid each window of it, is encoded once for all sentences. how: of
        `training.predict.predict`: chunk, how many sentences are decoded at a time; near, where windows matter; tick.
        """
        return predict(self, image, sentences, **how)

    # --- training ---

    def setup(self, stage: str) -> None:
        """Reads every sentence once, before the first step, where nothing in the reading is trained."""
        strategy = self.trainer.strategy
        untaught = self.net_config.presence and not self.loss_config.presence
        if isinstance(strategy, DDPStrategy) and (self.net_config.idle or untaught):
            # it would wait for ever for gradients of parameters that have none in a step
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        if strategy.root_device.type == "cpu":  # before DDP, whose buckets keep the order that they find
            channels_last_on_cpu(self.net)
        data = getattr(self.trainer, "datamodule", None)
        frozen = self.text_model is None and learned_prompts(self.net) is None
        if data is not None and hasattr(data, "prompts") and frozen:
            self.bank = TextBank(self.bank.encoder, Path(data.cache) / "text")
            self.bank.add(data.prompts())
            self.bank.encoder.unload()

    def on_fit_start(self) -> None:
        """Notes who trains and validates, after a resumed checkpoint has told who did before: nobody is forgotten."""
        data = getattr(self.trainer, "datamodule", None)
        self.provenance["precision"] = str(self.trainer.precision)
        if data is not None and hasattr(data, "split"):
            require_unseen(self.provenance, data)
            stopped = any(isinstance(one, EarlyStopping) for one in self.trainer.callbacks)  # type: ignore[attr-defined]
            if stopped and not data.split.get("val"):
                raise ConfigError(
                    "early_stop counts validations, and no exam validates", fix="add exams, or leave it out"
                )
            self.provenance = noted(self.provenance, data)

    def on_train_start(self) -> None:
        """After a checkpoint was loaded, whose optimizer came with its own rates."""
        for optimizer, schedule in zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, strict=True):
            follow_config(optimizer, schedule.scheduler, self.optimizer_config, self._groups(), steps_of(self.trainer))

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor:
        self._in_step += batch["exam_id"]
        seed_step(self.current_epoch, batch_index, self.global_rank)
        each = self._losses_by_exam(batch)
        finite = torch.isfinite(each["loss"].detach()).tolist()
        if not all(finite):
            bad = [exam for exam, good in zip(batch["exam_id"], finite, strict=True) if not good]
            raise PetgroundError(
                f"the loss is {float(each['loss'].detach().sum())} at step {self.global_step}",
                case=", ".join(bad),
                fix="lower the learning rate, or look at this exam's image and labels",
                reason="not_finite",
            )
        losses = {name: values.mean() for name, values in each.items()}
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=1, sync_dist=True)
        return losses["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stops before gradients that are not finite are made weights: the loss alone tells of it a step too late."""
        exams, self._in_step = self._in_step, []
        norm = gradient_norm(optimizer)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if math.isfinite(norm) or (scaler is not None and scaler.get_scale() >= 1.0):
            return  # in float16 a scale that is too large overflows: the scaler leaves such a step out and lowers it
        raise PetgroundError(
            f"the norm of the gradient is {norm} at step {self.global_step}, though the loss is finite",
            case=", ".join(of_all_processes(exams)),  # their gradients are summed: whose it is cannot be told
            fix="lower the learning rate, or look at these exams' images and labels",
            reason="not_finite",
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(self.trainer, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_validation_epoch_start(self) -> None:
        self._hits = self._no_hits()
        self._validation = torch.zeros(2, device=self.device)

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        if batch["exam_id"] == [None]:  # another process has one exam more
            return
        parts = []
        for decoded, wanted in answers_to(self, batch):
            parts.append((deep_loss(decoded, wanted, self.loss_config), wanted))
            probability = decoded.stages[-1].float().sigmoid().flatten(0, 1).cpu().numpy()
            target = wanted.flatten(0, 1).cpu().numpy() > 0.5
            head = decoded.presence
            said = np.ones(len(target)) if head is None else head.sigmoid().flatten().float().cpu().numpy()
            for threshold in THRESHOLDS:
                for presence, hits in count_hits(probability, target, threshold, said, self._presences).items():
                    self._hits[threshold, presence] += hits
        loss = over_sentences(parts, self.loss_config)
        self._validation += torch.stack([loss.detach(), torch.ones_like(loss)])

    def on_validation_epoch_end(self) -> None:
        loss, exams = self.trainer.strategy.reduce(self._validation, reduce_op="sum").tolist()
        self.log("val/loss", loss / max(1.0, exams), sync_dist=True)  # the same in every process
        counts = torch.tensor([[h.true, h.predicted, h.wanted] for h in self._hits.values()], device=self.device)
        counts = self.trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        hits = {limits: Hits(*row) for limits, row in zip(self._hits, counts, strict=True)}
        threshold, presence = best_limits(hits)
        if not self.trainer.sanity_checking:  # of two exams, which a resumed model's limits outweigh
            self.provenance["threshold"], self.provenance["presence_threshold"] = threshold, presence
        self.log("val/f1", hits[threshold, presence].f1, prog_bar=True, sync_dist=True)
        self.log("val/threshold", threshold, sync_dist=True)
        if self.net_config.presence:
            self.log("val/presence_threshold", presence, sync_dist=True)

    @property
    def _presences(self) -> tuple[float, ...]:
        return PRESENCES if self.net_config.presence else PRESENCES[:1]

    def _no_hits(self) -> dict[tuple[float, float], Hits]:
        return {(threshold, presence): Hits() for threshold in THRESHOLDS for presence in self._presences}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        total = steps_of(self.trainer)
        optimizer, schedule = make_optimizer(self.optimizer_config, self._groups(), total, scaled=scaled)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        parts = [(self.net, 1.0), (self.text_model, self.text_config.lr_factor)]
        return parameter_groups(self.optimizer_config, parts)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_steps": None}  # compiled code belongs to this process and this module

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Everything needed to build the model again, as plain values that `weights_only` loading accepts."""
        checkpoint["hyper_parameters"] = {
            "net": asdict(self.net_config),
            # weights that are trained in full are in the checkpoint, and need not be had from elsewhere again
            "text": asdict(replace(self.text_config, pretrained=self.text_config.train != "full")),
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
            "versions": versions(),
            "text_key": self.bank.encoder.key,
            "network": VERSION,
            "step": int(self.global_step),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the checkpoint says of its making. Raises ConfigError when text encoder or network are others."""
        self.provenance = dict(checkpoint.get(CHECKPOINT_KEY, {}))
        require_same_model(checkpoint, self)

    def _losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of a whole batch."""
        return {name: values.mean() for name, values in self._losses_by_exam(batch).items()}

    def _losses_by_exam(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        target, present, weight = batch["target"], batch.get("present"), self.loss_config.blocks
        with listening(self.net if self.training and weight else None) as held:
            decoded = self._decoded(batch)
        own = own_losses(held, outcome(decoded, target, present)) if held else {}
        return with_blocks(losses_by_exam(decoded, target, self.loss_config, present), own, weight)

    def _decoded(self, batch: Mapping[str, Any]) -> Decoded:
        exams, sentences = batch["target"].shape[:2]
        tokens, mask = self.embed([sentence for one in batch["sentences"] for sentence in one])
        tokens, mask = tokens.unflatten(0, (exams, sentences)), mask.unflatten(0, (exams, sentences))
        encode, decode = self.net.encode, self.net.decode
        if self.compile_steps and self.training:
            self._steps = self._steps or compiled_steps(self.net)
            encode, decode = self._steps
        return decode(encode(batch["image"]), tokens, mask, batch.get("box"))


def _typed(kind: type[T], value: T | Mapping[str, Any]) -> T:
    if not isinstance(value, Mapping):
        return value
    return kind(**{k: tuple(v) if kind is GridSpec and isinstance(v, list) else v for k, v in value.items()})

"""Optimizer recipes: AdamW with warm-up and cosine decay, and nnU-Net's SGD with polynomial decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from petground.labeling.errors import ConfigError

__all__ = [
    "OptimizerConfig",
    "clip_gradients",
    "follow_config",
    "gradient_norm",
    "make_optimizer",
    "parameter_groups",
    "steps_of",
]

# what a recipe takes where the config says nothing. sgd: nnU-Net's (Isensee et al., Nature Methods 2021, and its
# nnUNetTrainer: lr 0.01, momentum 0.99 with Nesterov, weight decay 3e-5, (1 - done) ** 0.9, no warm-up)
_RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 5e-5, "weight_decay": 0.01, "warmup_steps": 500, "schedule": "cosine", "final": 0.01},
    "sgd": {
        "lr": 0.01,
        "weight_decay": 3e-5,
        "warmup_steps": 0,
        "schedule": "poly",
        "final": 0.0,
        "momentum": 0.99,
    },
}


@dataclass(frozen=True)
class OptimizerConfig:
    """What changes the weights. What is null is the recipe's own.

    Args:
        name: "adamw", or "sgd" with Nesterov momentum, nnU-Net's recipe.
        lr: peak learning rate; adamw 5e-5, sgd 0.01.
        weight_decay: of weights; biases and norms have none. adamw 0.01, sgd 3e-5.
        warmup_steps: optimizer steps from zero to the peak; adamw 500, sgd 0.
        schedule: how it falls over the rest of the training: cosine (adamw), poly (sgd; nnU-Net's, power 0.9, here by
            step and not by epoch), constant.
        final: the learning rate ends at this share of the peak; adamw 0.01, sgd 0.
        momentum: of sgd alone, 0.99.
        ema: decay of a moving average of the weights, e.g. 0.999; validation and checkpoints use the average. 0: none.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    warmup_steps: int | None = None
    schedule: Literal["cosine", "poly", "constant"] | None = None
    final: float | None = None
    momentum: float | None = None
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _RECIPES:
            raise ConfigError(f"no optimizer '{self.name}'", fix=f"one of {', '.join(_RECIPES)}")
        recipe = _RECIPES[self.name]
        if self.momentum is not None and "momentum" not in recipe:
            raise ConfigError(f"{self.name} has no momentum setting", fix="leave it out, or take name: sgd")
        for option, value in recipe.items():
            if getattr(self, option) is None:
                object.__setattr__(self, option, value)
        ranges = {
            "lr": 0 < self.peak < math.inf,
            "weight_decay": (self.weight_decay or 0) >= 0,
            "warmup_steps": self.warm_up >= 0,
            "schedule": self.schedule in ("cosine", "poly", "constant"),
            "final": 0 <= (self.final or 0) <= 1,
            "momentum": 0 <= (self.momentum or 0) < 1,
            "ema": 0 <= self.ema < 1,
        }
        for option, good in ranges.items():
            if not good:
                raise ConfigError(f"model.optimizer.{option} is out of range: {getattr(self, option)}")

    @property
    def peak(self) -> float:
        return float(self.lr or 0.0)

    @property
    def warm_up(self) -> int:
        return int(self.warmup_steps or 0)

    def factor(self, step: int, total: int) -> float:
        """Learning rate at a step as a share of the peak."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = min(1.0, (step - self.warm_up) / max(1, total - self.warm_up))
        left = {"cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "poly": (1.0 - done) ** 0.9, "constant": 1.0}
        final = float(self.final or 0.0)
        return final + (1.0 - final) * left[str(self.schedule)]


def steps_of(trainer: Any) -> int:
    """Optimizer steps of the whole training. Raises ConfigError when nothing bounds them: the schedule needs an end."""
    total = float(trainer.estimated_stepping_batches)
    if not math.isfinite(total):
        raise ConfigError(
            "the training has no end over which the learning rate could fall",
            fix="give --trainer.max_epochs or --trainer.max_steps beside max_time",
        )
    return int(total)


def make_optimizer(
    config: OptimizerConfig, groups: Sequence[dict[str, Any]], total: int, *, scaled: bool = False
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """The recipe over `total` steps for groups of parameters; the schedule is to be stepped once per optimizer step.

    A step is one pass over a parameter, its gradient and its moments, and not one for each operation (`fused`). Not
    where gradients come `scaled` (float16), which such a step wants to unscale by itself.
    """
    optimizer: torch.optim.Optimizer
    fused = None if scaled else True  # None: what PyTorch takes by itself
    if config.name == "sgd":
        momentum = float(config.momentum or 0.0)
        optimizer = torch.optim.SGD(groups, lr=config.peak, momentum=momentum, nesterov=momentum > 0, fused=fused)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.peak, fused=fused)
    return optimizer, LambdaLR(optimizer, lambda step: config.factor(step, total))


def follow_config(
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    config: OptimizerConfig,
    groups: Sequence[dict[str, Any]],
    total: int,
) -> None:
    """Gives an optimizer that a checkpoint filled the rates of `config` again; moments and steps stay the checkpoint's,
    in the memory order of the parameters here: a step in one pass reads them side by side, without looking at strides.

    groups: of `parameter_groups`, as the optimizer was made with.
    """
    fused = optimizer.defaults["fused"]
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            elif fused and name == "step":
                state[name] = torch.as_tensor(value, dtype=torch.float32, device=parameter.device)
    share = config.factor(schedule.last_epoch, total)
    schedule.base_lrs = [group["lr"] for group in groups]
    for old, new in zip(optimizer.param_groups, groups, strict=True):
        old |= {"lr": new["lr"] * share, "initial_lr": new["lr"], "weight_decay": new["weight_decay"], "fused": fused}
        if config.name == "sgd":
            old |= {"momentum": float(config.momentum or 0.0), "nesterov": bool(config.momentum)}


def parameter_groups(config: OptimizerConfig, parts: Sequence[tuple[nn.Module | None, float]]) -> list[dict[str, Any]]:
    """For each part its weights, and its biases and norms (of one dimension or none), which have no weight decay.

    parts: modules with their learning rate as a share of the peak. Parameters that are not trained are left out.
    """
    groups = []
    for module, share in parts:
        trained = [] if module is None else [p for p in module.parameters() if p.requires_grad]
        weights, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        for params, decay in ((weights, config.weight_decay), (rest, 0.0)):
            if params:
                groups.append({"params": params, "weight_decay": decay, "lr": config.peak * share})
    return groups


def clip_gradients(trainer: Trainer, optimizer: torch.optim.Optimizer, most: float | None, how: str | None) -> None:
    """As Lightning does it in full precision: in mixed precision it refuses optimizers whose step could unscale
    gradients, and ours are none where gradients are scaled."""
    Precision.clip_gradients(
        trainer.precision_plugin, optimizer, most or 0.0, GradClipAlgorithmType(how or GradClipAlgorithmType.NORM)
    )


def gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Of all gradients that the optimizer would step by; not finite when one of them is not."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))

"""Losses for masks of which most are small and some are empty on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool3d, binary_cross_entropy_with_logits

from petground.labeling.errors import ConfigError
from petground.models.unet import Decoded

__all__ = ["LossConfig", "deep_loss", "grounding_loss"]


@dataclass(frozen=True)
class LossConfig:
    """Dice plus weighted cross-entropy.

    Args:
        dice: weight of the soft Dice of sentences whose finding is in the image.
        ce: weight of the cross-entropy, over all sentences.
        positive_weight: a lesion voxel counts so many times a background voxel.
        place: weight of the cross-entropy over places: which voxel of the exam the sentence means.
        presence: weight of the presence head's cross-entropy, when the network has one.
        ce_floor_voxels: the cross-entropy of a sentence is divided by its lesion's weighted size plus this number.
    """

    dice: float = 1.0
    ce: float = 1.0
    positive_weight: float = 10.0
    place: float = 0.0
    presence: float = 0.5
    ce_floor_voxels: float = 50.0

    def __post_init__(self) -> None:
        if (
            min(self.dice, self.ce, self.place, self.presence) < 0
            or self.dice + self.ce == 0
            or self.positive_weight <= 0
        ):
            raise ConfigError("loss weights must not be negative, nor all zero")
        if self.ce_floor_voxels <= 0:
            raise ConfigError(f"ce_floor_voxels is {self.ce_floor_voxels}", fix="a positive number of voxels")


def grounding_loss(logits: Tensor, target: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Logits and target [B, S, Z, Y, X], target in 0..1 -> {"loss", "dice", "ce", "place" when it has a weight}.

    Dice (Milletari et al. 2016, denominators not squared) is undefined on an empty target: such sentences are
    left out of it and judged by cross-entropy alone. The mean cross-entropy over all voxels would nearly vanish, as a
    lesion has a few of some hundred thousand; each sentence's sum is divided by its lesion's size instead.
    """
    logits, target = logits.float(), target.float()
    axes = (2, 3, 4)
    probability = logits.sigmoid()
    size = target.sum(axes)
    present = (size > 0).float()
    overlap = (probability * target).sum(axes)
    dice = 1.0 - (2.0 * overlap + 1.0) / (probability.sum(axes) + size + 1.0)
    dice = (dice * present).sum() / present.sum().clamp(min=1.0)
    weight = torch.as_tensor(config.positive_weight, device=logits.device)
    ce = binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none").sum(axes)
    ce = (ce / (size * config.positive_weight + config.ce_floor_voxels)).mean()
    losses = {"loss": config.dice * dice + config.ce * ce, "dice": dice, "ce": ce}
    if config.place:
        losses["place"] = _place_loss(logits, target)
        losses["loss"] = losses["loss"] + config.place * losses["place"]
    return losses


def deep_loss(decoded: Decoded, target: Tensor, config: LossConfig, present: Tensor | None = None) -> dict[str, Tensor]:
    """What the network said, target [B, S, Z, Y, X] -> losses, "loss" over all stages and the presence head.

    Deep supervision as in nnU-Net: each coarser stage counts half of the next finer one. A coarse voxel belongs to the
    lesion when any of its voxels does (averaging would lose the small ones). present: [B, S], 1 where the exam has what
    the sentence tells of, 0 where not, NaN where this image cannot show it; by default whether the target has a voxel.
    """
    *coarser, last = decoded.stages
    losses = grounding_loss(last, target, config)
    for distance, logits in enumerate(reversed(coarser), start=1):
        coarse = adaptive_max_pool3d(target.float(), logits.shape[2:])
        losses["loss"] = losses["loss"] + 0.5**distance * grounding_loss(logits, coarse, config)["loss"]
    if decoded.presence is not None and config.presence:
        wanted = (target.amax((2, 3, 4)) > 0).float() if present is None else present.to(target.device)
        judged = ~wanted.isnan()
        each = binary_cross_entropy_with_logits(decoded.presence.float(), wanted.nan_to_num(), reduction="none")
        losses["presence"] = (each * judged).sum() / judged.sum().clamp(min=1)
        losses["loss"] = losses["loss"] + config.presence * losses["presence"]
    return losses


def _place_loss(logits: Tensor, target: Tensor) -> Tensor:
    """-log of the softmax over all voxels summed over the lesion's; mean over the sentences that have a lesion.

    Dice and voxel-wise cross-entropy hardly feel where a prediction lies until it touches the lesion. This does, from
    the first step: it starts at log(voxels / lesion voxels) and every voxel outside pays for its share.
    """
    logits, target = logits.flatten(2), target.flatten(2)
    peak = target.amax(-1, keepdim=True)
    inside = logits.masked_fill((target < 0.5 * peak) | (peak <= 0), float("-inf"))
    present = peak.squeeze(-1) > 0
    if not present.any():
        return logits.sum() * 0.0
    return (logits.logsumexp(-1)[present] - inside[present].logsumexp(-1)).mean()

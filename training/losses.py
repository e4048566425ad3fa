"""Losses for masks of which most are small and some are empty on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool3d, binary_cross_entropy_with_logits

from petground.labeling.errors import ConfigError
from petground.models.blocks.own_losses import Outcome
from petground.models.unet import Decoded

__all__ = ["LossConfig", "deep_loss", "grounding_loss", "losses_by_exam", "outcome", "over_sentences", "with_blocks"]


@dataclass(frozen=True)
class LossConfig:
    """Dice plus weighted cross-entropy.

    Args:
        dice: weight of the soft Dice of sentences whose finding is in the image.
        ce: weight of the cross-entropy, over all sentences.
        positive_weight: a lesion voxel counts so many times a background voxel.
        place: weight of the cross-entropy over places: which voxel of the exam the sentence means.
        presence: weight of the presence head's cross-entropy, when the network has one.
        blocks: weight of the losses that the network's blocks have of their own, each with its paper's coefficient in
            the block's `loss_weight`; 0 leaves them out. They are part of training's loss, not of validation's.
        ce_floor_voxels: the cross-entropy of a sentence is divided by its lesion's weighted size plus this number.
    """

    dice: float = 1.0
    ce: float = 1.0
    positive_weight: float = 10.0
    place: float = 0.0
    presence: float = 0.5
    ce_floor_voxels: float = 50.0
    blocks: float = 1.0

    def __post_init__(self) -> None:
        if (
            min(self.dice, self.ce, self.place, self.presence, self.blocks) < 0
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
    Of a 2.5D network every view is judged, by the target's projection, and the mean counts.
    """
    views = [_stages_loss(view.stages, target, config) for view in decoded.parts or (decoded,)]
    losses = {name: torch.stack([view[name] for view in views]).mean() for name in views[0]}
    if decoded.presence is not None and config.presence:
        wanted = _present(target, present)
        judged = ~wanted.isnan()
        each = binary_cross_entropy_with_logits(decoded.presence.float(), wanted.nan_to_num(), reduction="none")
        losses["presence"] = (each * judged).sum() / judged.sum().clamp(min=1)
        losses["loss"] = losses["loss"] + config.presence * losses["presence"]
    return losses


def over_sentences(parts: Sequence[tuple[Mapping[str, Tensor], Tensor]], config: LossConfig) -> Tensor:
    """The loss of an exam's sentences that were judged some at a time, as if at once.

    parts: `deep_loss` of answers of one stage, and their target [B, S, Z, Y, X]. Each of its terms is a mean over the
    sentences that it judges: Dice and place over those that have a lesion.
    """
    lesions = torch.stack([(target.flatten(2).amax(2) > 0).sum() for _, target in parts]).float()
    asked = torch.tensor([float(target.shape[:2].numel()) for _, target in parts], device=lesions.device)
    total = torch.zeros((), device=lesions.device)
    for name, over in {"dice": lesions, "ce": asked, "place": lesions, "presence": asked}.items():
        if name in parts[0][0]:
            each = torch.stack([losses[name].float() for losses, _ in parts])
            total = total + getattr(config, name) * (each * over).sum() / over.sum().clamp(min=1)
    return total


def losses_by_exam(
    decoded: Decoded, target: Tensor, config: LossConfig, present: Tensor | None = None
) -> dict[str, Tensor]:
    """As `deep_loss`, of each of B exams alone, [B]: their mean is the batch's loss.

    So a step is the same for B exams at once, for B steps whose gradients are accumulated, and for B processes with an
    exam each: the number of sentences that have a lesion differs from exam to exam, and a mean over all would not be.
    """
    each = []
    for one in range(len(target)):
        row = slice(one, one + 1)
        each.append(deep_loss(_of_exams(decoded, row), target[row], config, None if present is None else present[row]))
    return {name: torch.stack([losses[name] for losses in each]) for name in each[0]}


def with_blocks(losses: Mapping[str, Tensor], own: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Losses by exam with the blocks' own, [B] each, which are in "loss" by their weight."""
    if not own:
        return dict(losses)
    return {**losses, **own, "loss": losses["loss"] + weight * torch.stack(list(own.values())).sum(0)}


@torch.no_grad()
def outcome(decoded: Decoded, target: Tensor, present: Tensor | None = None) -> Outcome:
    """How the answers of a training step turned out, for the blocks' own losses; present as in `deep_loss`.

    Right is an answer whose highest voxel lies in the lesion (the pointing game of arXiv 1608.00507), or which marks no
    voxel where there is none.
    """
    logits, target = decoded.stages[-1].flatten(2), target.flatten(2)
    highest, where = logits.max(dim=-1)
    inside = target.gather(-1, where[..., None])[..., 0] > 0.5
    right = torch.where(target.amax(-1) > 0.5, inside, highest < 0.0)
    return Outcome(right.float(), _present(target, present))


def _present(target: Tensor, present: Tensor | None) -> Tensor:
    """[B, S], by default whether the target [B, S, ...] has a voxel."""
    return (target.flatten(2).amax(2) > 0).float() if present is None else present.to(target.device)


def _of_exams(decoded: Decoded, rows: slice) -> Decoded:
    return Decoded(
        [stage[rows] for stage in decoded.stages],
        None if decoded.presence is None else decoded.presence[rows],
        tuple(_of_exams(part, rows) for part in decoded.parts),
    )


def _stages_loss(stages: Sequence[Tensor], target: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Stages from coarse to fine, each on its own grid; a view's grid is one voxel deep along its ray."""
    *coarser, last = stages
    losses = grounding_loss(last, _on_grid(target, last), config)
    for distance, logits in enumerate(reversed(coarser), start=1):
        coarse = grounding_loss(logits, _on_grid(target, logits), config)["loss"]
        losses["loss"] = losses["loss"] + 0.5**distance * coarse
    return losses


def _on_grid(target: Tensor, logits: Tensor) -> Tensor:
    """The target as large as the logits, [B, S, z, y, x]: the maximum over what each voxel covers."""
    grid = logits.shape[2:]
    return target if target.shape[2:] == grid else adaptive_max_pool3d(target.float(), grid)


def _place_loss(logits: Tensor, target: Tensor) -> Tensor:
    """-log of the softmax over all voxels summed over the lesion's; mean over the sentences that have a lesion.

    Dice and voxel-wise cross-entropy hardly feel where a prediction lies until it touches the lesion. This does, from
    the first step: it starts at log(voxels / lesion voxels) and every voxel outside pays for its share.
    """
    logits, target = logits.flatten(2), target.flatten(2)
    peak = target.amax(-1, keepdim=True)
    present = peak > 0
    # where there is no lesion nothing is left out, so that it comes to 0: rows that are picked would be copied
    inside = logits.masked_fill(present & (target < 0.5 * peak), float("-inf"))
    missed = (logits.logsumexp(-1) - inside.logsumexp(-1)) * present.squeeze(-1)
    return missed.sum() / present.sum().clamp(min=1)

"""How well masks answer sentences: the published F1 and its companions, as pure functions over arrays.

A prediction is the one connected component, of the voxels above 0.5, with the highest mean probability (method of
arXiv 2502.00528); with nothing above, the model says "not there". Against a reference mask the component is a hit or
not, by one of three rules:

- paper:   it overlaps the reference and its SUVmax agrees with the reference's within 0.1
- overlap: it overlaps the reference in at least one voxel
- dice50:  its Dice coefficient with the reference exceeds 0.5

TP = hits; FP = components that are no hit; FN = references without a hit. A component in the wrong place therefore
counts twice, as FP and as FN. F1 is micro: counts are summed over all sentences first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RULES",
    "Component",
    "PrecisionRecall",
    "Score",
    "best_component",
    "counts",
    "diameter_mm",
    "dice",
    "f1",
    "missed",
    "precision_recall",
    "score_component",
    "size_class",
    "uptake_class",
]

PROBABILITY = 0.5  # arXiv 2502.00528: components of the thresholded probability map
SUV_AGREEMENT = 0.1  # arXiv 2502.00528: a true positive's SUVmax agrees within 0.1 [g/ml]
RULES = ("paper", "overlap", "dice50")
SIZE_EDGES_MM = (10.0, 20.0, 40.0)  # node size limit (RECIST 1.1: 10 mm short axis), then doublings
UPTAKE_EDGES_SUV = (5.0, 10.0)
_ROUNDING = 1e-6  # 5.1 - 5.0 is 0.09999999999999964 in float64 and 0.10000038 in float32


class Component(NamedTuple):
    """mask [I, J, K] bool, empty when the model says no; presence in [0, 1].

    presence: mean probability inside the component, or the highest probability anywhere when there is none (which
    is then at most the threshold), so that presence sorts all answers on one scale.
    """

    mask: NDArray[np.bool_]
    presence: float

    @property
    def empty(self) -> bool:
        return not bool(self.mask.any())


@dataclass(frozen=True)
class Score:
    """One sentence's answer against its reference.

    answered: the model gave a mask at all. overlap, dice: with the reference mask (dice 0 when unanswered).
    suv: SUVmax inside the answer, NaN when unanswered. suv_agrees: within 0.1 of the reference's.
    presence: the component's, for precision-recall curves. volume_ml of the answer. right_mm: how far right of the
    body's midline the answer's hottest voxel lies [mm], negative: left; None when unanswered or unknown. marked_dice:
    of what the model marked, where the answer's outline was drawn anew on the PET; None: where it was not.
    """

    answered: bool
    overlap: bool
    dice: float
    suv: float
    suv_agrees: bool
    presence: float
    volume_ml: float
    right_mm: float | None = None
    marked_dice: float | None = None

    @property
    def own_dice(self) -> float:
        """Of the model's own mask, whoever drew the outline."""
        return self.dice if self.marked_dice is None else self.marked_dice

    def hit(self, rule: str) -> bool:
        """True when the answer counts as found under one of RULES."""
        if rule == "paper":
            return self.overlap and self.suv_agrees
        if rule == "overlap":
            return self.overlap
        if rule == "dice50":
            return self.dice > 0.5
        raise ValueError(f"rule '{rule}' is not one of {', '.join(RULES)}")


class PrecisionRecall(NamedTuple):
    """Curve over falling presence; recall[i], precision[i] of all answers with presence >= threshold[i]."""

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    threshold: NDArray[np.float64]
    average_precision: float


def best_component(
    probability: NDArray[Any], *, threshold: float = PROBABILITY, where: NDArray[np.bool_] | None = None
) -> Component:
    """The 26-connected component above `threshold` with the highest mean probability; ties go to the larger one.

    probability: [I, J, K] float in [0, 1]; NaN counts as 0. where: [I, J, K] bool, of which the component has a voxel.
    Raises ValueError when it has not three axes.
    """
    if probability.ndim != 3:
        raise ValueError(f"probability has shape {probability.shape}, expected three axes")
    above = probability > threshold
    looked = above if where is None else above & where
    if not looked.any():
        seen = probability if where is None else probability[where]
        return Component(np.zeros(probability.shape, dtype=bool), float(np.nan_to_num(seen, nan=0.0).max(initial=0.0)))
    components = cc3d.connected_components(above.astype(np.uint8), connectivity=26)
    inside = components[above]
    sizes = np.bincount(inside)
    sums = np.bincount(inside, weights=probability[above])
    means = np.divide(sums, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    chosen = max(np.unique(components[looked]).tolist(), key=lambda label: (means[label], sizes[label]))
    return Component(components == chosen, float(means[chosen]))


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """2 |a and b| / (|a| + |b|); two empty masks agree: 1."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0


def score_component(
    component: Component,
    reference: NDArray[np.bool_] | None,
    pet: NDArray[Any],
    *,
    suv_reference: float,
    voxel_ml: float,
) -> Score:
    """Compares an answer with a reference mask; all three arrays [I, J, K] on the PET grid, pet in SUVbw [g/ml].

    reference: None where nothing is there, and no answer is right.
    Raises ValueError when shapes differ or the reference is empty (nothing could ever be found there).
    """
    shape = pet.shape if reference is None else reference.shape
    if not component.mask.shape == shape == pet.shape:
        raise ValueError(f"shapes differ: answer {component.mask.shape}, reference {shape}, PET {pet.shape}")
    if reference is not None and not reference.any():
        raise ValueError("the reference mask is empty")
    if component.empty:
        return missed(presence=component.presence)
    suv = float(pet[component.mask].max())
    return Score(
        answered=True,
        overlap=reference is not None and bool((component.mask & reference).any()),
        dice=0.0 if reference is None else dice(component.mask, reference),
        suv=suv,
        suv_agrees=reference is not None and abs(suv - suv_reference) <= SUV_AGREEMENT + _ROUNDING,
        presence=component.presence,
        volume_ml=float(np.count_nonzero(component.mask)) * voxel_ml,
    )


def missed(*, presence: float = 0.0) -> Score:
    """The score of a sentence without an answer, or of a reference whose sentence was never read."""
    return Score(False, False, 0.0, float("nan"), False, presence, 0.0)


def counts(scores: Sequence[Score], rule: str) -> NDArray[np.float64]:
    """[N, 3]: true positives, false positives and false negatives of each sentence (0 or 1 each)."""
    hits = np.array([s.hit(rule) for s in scores], dtype=bool)
    answered = np.array([s.answered for s in scores], dtype=bool)
    return np.stack([hits, answered & ~hits, ~hits], axis=-1).astype(np.float64).reshape(len(scores), 3)


def f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Micro F1 of summed counts [..., 3] (TP, FP, FN) -> [...]; NaN where there is nothing to count."""
    tp, fp, fn = sums[..., 0], sums[..., 1], sums[..., 2]
    total = 2 * tp + fp + fn
    ratio: NDArray[np.float64] = np.divide(2 * tp, total, out=np.full(np.shape(total), np.nan), where=total > 0)
    return ratio


def precision_recall(scores: Sequence[Score], rule: str) -> PrecisionRecall:
    """Sweeps the presence score: at each value all answers at least as present count, against every reference.

    Recall stops at the share of references found when every answer counts. Average precision is the area under the
    steps. With no answer at all the curve is empty and the area 0. Raises ValueError without references.
    """
    if not scores:
        raise ValueError("no references: there is no curve")
    answers = sorted((s for s in scores if s.answered), key=lambda s: -s.presence)
    if not answers:
        none = np.zeros(0)
        return PrecisionRecall(none, none, none, 0.0)
    presence = np.array([s.presence for s in answers])
    true = np.cumsum([s.hit(rule) for s in answers])
    last_of_ties = np.append(presence[1:] != presence[:-1], True)
    recall = true[last_of_ties] / len(scores)
    precision = true[last_of_ties] / (np.flatnonzero(last_of_ties) + 1)
    area = float(np.sum(np.diff(np.concatenate([[0.0], recall])) * precision))
    return PrecisionRecall(recall, precision, presence[last_of_ties], area)


def diameter_mm(volume_ml: float) -> float:
    """Diameter of the sphere of that volume: 1 ml is 12.4 mm."""
    return float((6000.0 * volume_ml / np.pi) ** (1 / 3))


def size_class(volume_ml: float) -> str:
    """The size class of a reference lesion by its equivalent diameter."""
    return _classed(diameter_mm(volume_ml), SIZE_EDGES_MM, "mm")


def uptake_class(suv: float) -> str:
    """The uptake class of a reference lesion by its SUVmax."""
    return _classed(suv, UPTAKE_EDGES_SUV, "SUV")


def _classed(value: float, edges: tuple[float, ...], unit: str) -> str:
    place = int(np.searchsorted(edges, value, side="right"))
    if place == 0:
        return f"<{edges[0]:g} {unit}"
    if place == len(edges):
        return f">={edges[-1]:g} {unit}"
    return f"{edges[place - 1]:g}-{edges[place]:g} {unit}"

"""Detection counted on the model's grid, quickly: what picks the best checkpoint. `evaluate` scores on the PET grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.training.metrics import best_component

__all__ = ["Hits", "best_limits", "count_hits"]

LEAST_DICE = 0.1  # of a hit: one component over most of the body, which a network marks before it learns, hits nothing


@dataclass
class Hits:
    """true: predictions with a Dice of LEAST_DICE or more; predicted: sentences with any; wanted: with a lesion."""

    true: int = 0
    predicted: int = 0
    wanted: int = 0

    def __iadd__(self, other: Hits) -> Hits:
        self.true += other.true
        self.predicted += other.predicted
        self.wanted += other.wanted
        return self

    @property
    def f1(self) -> float:
        """Micro F1; 0 when nothing is wanted nor predicted."""
        return 2.0 * self.true / max(1, self.predicted + self.wanted)


def count_hits(
    probability: NDArray[np.float32],
    target: NDArray[np.bool_],
    threshold: float,
    presence: NDArray[np.floating[Any]],
    limits: Sequence[float],
) -> dict[float, Hits]:
    """Probability and target [S, Z, Y, X], presence [S] -> counts over the sentences for each limit of presence.

    A sentence whose presence lies below the limit gets no prediction.
    """
    hits = {limit: Hits() for limit in limits}
    for one, wanted, said in zip(probability, target, presence, strict=True):
        best = best_component(one, threshold=threshold).mask
        marked, lesion = int(best.sum()), int(wanted.sum())
        true, predicted = int(2 * int((best & wanted).sum()) >= LEAST_DICE * max(1, marked + lesion)), int(marked > 0)
        for limit in limits:
            asked = int(said >= limit)
            hits[limit] += Hits(asked * true, asked * predicted, int(lesion > 0))
    return hits


def best_limits(hits: Mapping[tuple[float, float], Hits]) -> tuple[float, float]:
    """Of {(threshold of a voxel, limit of presence): counts} the pair to answer by; the first threshold wins a tie.

    The limit is not where F1 happens to be highest: over a few validating exams that is chance, and a limit too high
    costs findings. An answer helps F1 when its chance to be a hit is above half of the best F1 (Lipton et al. 2014,
    arXiv 1402.1892, theorem 1); that chance is its presence times the share of findings that are hit when all are
    answered. The limit of the table that is nearest to this is taken; 0, all are answered, where nothing is hit.
    """
    best: tuple[float, float, float] | None = None
    for threshold in dict.fromkeys(threshold for threshold, _ in hits):
        own = {limit: found for (at, limit), found in hits.items() if at == threshold}
        every = own[min(own)]
        hit = every.true / max(1, every.wanted)
        wanted = max(found.f1 for found in own.values()) / (2.0 * hit) if hit else 0.0
        limit = min(own, key=lambda limit: (abs(limit - wanted), limit))
        if best is None or own[limit].f1 > best[0]:
            best = own[limit].f1, threshold, limit
    assert best is not None
    return best[1:]

"""Detection counted on the model's grid, quickly: what picks the best checkpoint. `evaluate` scores on the PET grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.training.metrics import best_component

__all__ = ["Hits", "count_hits"]


@dataclass
class Hits:
    """true: predictions that overlap their lesion; predicted: sentences with any prediction; wanted: with a lesion."""

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
        true, predicted = int((best & wanted).any()), int(best.any())
        for limit in limits:
            asked = int(said >= limit)
            hits[limit] += Hits(asked * true, asked * predicted, int(wanted.any()))
    return hits

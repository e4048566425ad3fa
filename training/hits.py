"""Detection counted on the model's grid, quickly: what picks the best checkpoint. `evaluate` scores on the PET grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petground.training.metrics import PROBABILITY, best_component

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


def count_hits(probability: NDArray[np.float32], target: NDArray[np.bool_], threshold: float = PROBABILITY) -> Hits:
    """Probability and target [S, Z, Y, X] -> counts over the sentences."""
    hits = Hits()
    for one, wanted in zip(probability, target, strict=True):
        best = best_component(one, threshold=threshold).mask
        hits += Hits(int((best & wanted).any()), int(best.any()), int(wanted.any()))
    return hits

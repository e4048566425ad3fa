"""Detection counted on the model's grid, quickly: what picks the best checkpoint. `evaluate` scores on the PET grid."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

__all__ = ["Hits", "count_hits", "keep_best_component"]


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


def keep_best_component(probability: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.bool_]:
    """[Z, Y, X] -> the one 26-connected component above the threshold with the highest mean probability, or nothing.

    As the published method scores (arXiv 2502.00528).
    """
    regions, count = cc3d.connected_components(probability > threshold, connectivity=26, return_N=True)
    if count == 0:
        return np.zeros(probability.shape, dtype=bool)
    flat = regions.reshape(-1)
    sums = np.bincount(flat, weights=probability.reshape(-1), minlength=count + 1)[1:]
    sizes = np.bincount(flat, minlength=count + 1)[1:]
    best: NDArray[np.bool_] = regions == 1 + int(np.argmax(sums / sizes))
    return best


def count_hits(probability: NDArray[np.float32], target: NDArray[np.bool_]) -> Hits:
    """Probability and target [S, Z, Y, X] -> counts over the sentences."""
    hits = Hits()
    for one, wanted in zip(probability, target, strict=True):
        best = keep_best_component(one)
        hits += Hits(int((best & wanted).any()), int(best.any()), int(wanted.any()))
    return hits

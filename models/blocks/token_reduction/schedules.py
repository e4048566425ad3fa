"""How many voxels stay at which depth: schedules, and the search for the least that is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["fit_p_sigmoid", "g_search", "p_sigmoid", "warm_up_keep"]


def warm_up_keep(progress: float, keep: float) -> float:
    """EViT's keep rate in training, from 1 to `keep` along a cosine while progress goes from 0 to 1 (section 4)."""
    return keep + (1 - keep) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def p_sigmoid(layers: int, midpoint: float, steepness: float, minimum: float = 0.0) -> list[float]:
    """Share kept at each layer: minimum + (1 - minimum) sigmoid(steepness (midpoint - t)), t = 0..1 from first to last.

    Never more at a deeper layer, for a steepness above 0 (P-Sigmoid, arXiv 2412.00556, section 4; its exact parameters
    are not verified).
    """
    depths = [layer / max(1, layers - 1) for layer in range(layers)]
    return [minimum + (1 - minimum) * _sigmoid(steepness * (midpoint - t)) for t in depths]


def fit_p_sigmoid(layers: int, mean: float, steepness: float, minimum: float = 0.0) -> list[float]:
    """The schedule of this steepness whose mean share is `mean`: its midpoint by bisection.

    Raises ValueError when no such schedule exists.
    """
    if layers < 1 or steepness <= 0 or not 0 <= minimum <= mean <= 1 or mean == 0:
        raise ValueError(
            f"layers={layers}, mean={mean}, steepness={steepness}, minimum={minimum}: at least one layer, steepness "
            "above 0, 0 <= minimum <= mean <= 1, mean above 0"
        )
    if mean in (minimum, 1):
        return [float(mean)] * layers
    low, high = -40 / steepness - 1, 40 / steepness + 2
    for _ in range(100):
        middle = (low + high) / 2
        if sum(p_sigmoid(layers, middle, steepness, minimum)) < mean * layers:
            low = middle
        else:
            high = middle
    return p_sigmoid(layers, high, steepness, minimum)


def g_search(
    metric: Callable[[Sequence[int]], float], layers: int, full: int, tolerance: float = 0.0, minimum: int = 1
) -> list[int]:
    """The least number of voxels at each layer with which metric(counts) stays within `tolerance` of the full counts.

    From the first layer to the last: the least k by bisection between `minimum` and the layer before, that layer and
    all deeper ones keeping k (what is gone does not come back). Optimal where the needed number never grows with depth
    and the metric never falls with more voxels (G-Search, arXiv 2412.00556, section 3); layers x log2(full) calls.
    """
    counts = [full] * layers
    goal = metric(counts) - tolerance
    for layer in range(layers):
        low, high = minimum, counts[layer]
        while low < high:
            middle = (low + high) // 2
            if metric(counts[:layer] + [middle] * (layers - layer)) >= goal:
                high = middle
            else:
                low = middle + 1
        counts[layer:] = [high] * (layers - layer)
    return counts


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))

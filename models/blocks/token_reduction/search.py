"""Bayesian optimisation of a reduction's few numbers (ratios, thresholds, weights) against any objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

__all__ = ["bayesian_search"]

_SCALE, _NOISE, _CANDIDATES = 0.2, 1e-4, 512  # of a unit cube; of a unit variance


def bayesian_search(
    objective: Callable[[list[float]], float],
    bounds: Sequence[tuple[float, float]],
    trials: int = 30,
    first: int = 8,
    seed: int = 0,
) -> tuple[list[float], float]:
    """The point within `bounds` of the greatest objective found in `trials` calls, and its value.

    `first` points of a Sobol sequence, then each time the one of 512 candidates with the greatest expected improvement
    under a Gaussian process (squared exponential kernel; Jones et al. 1998). Deterministic for a seed.
    """
    low = torch.tensor([pair[0] for pair in bounds], dtype=torch.float64)
    span = torch.tensor([pair[1] - pair[0] for pair in bounds], dtype=torch.float64)
    sobol = SobolEngine(len(bounds), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points = sobol.draw(max(1, min(first, trials)), dtype=torch.float64)
    values = [objective((low + span * point).tolist()) for point in points]
    while len(values) < trials:
        y = torch.tensor(values, dtype=torch.float64)
        candidates = sobol.draw(_CANDIDATES, dtype=torch.float64)
        gain = _improvement(points, y, candidates)
        point = candidates[gain.argmax()]
        points = torch.cat([points, point[None]])
        values.append(objective((low + span * point).tolist()))
    best = max(range(len(values)), key=values.__getitem__)
    return (low + span * points[best]).tolist(), values[best]


def _improvement(points: Tensor, y: Tensor, candidates: Tensor) -> Tensor:
    """Expected improvement over the best y at each candidate."""
    spread = y.std() if len(y) > 1 and y.std() > 0 else torch.ones((), dtype=y.dtype)
    z = (y - y.mean()) / spread
    factor = torch.linalg.cholesky(_kernel(points, points) + _NOISE * torch.eye(len(y), dtype=y.dtype))
    cross = _kernel(points, candidates)
    mean = cross.T @ torch.cholesky_solve(z[:, None], factor)[:, 0]
    inner = torch.linalg.solve_triangular(factor, cross, upper=False)
    sigma = (1 - inner.square().sum(dim=0)).clamp(min=1e-12).sqrt()
    u = (mean - z.max()) / sigma
    density = (-0.5 * u.square()).exp() / math.sqrt(2 * math.pi)
    return sigma * (u * torch.special.ndtr(u) + density)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (-0.5 * (torch.cdist(a, b) / _SCALE).square()).exp()

"""A logistic model kept as data: named features, their centre and scale, coefficients, the command that fitted it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

__all__ = ["Logistic", "fit_logistic", "load_logistic"]

RIDGE = 1e-2  # on standardised coefficients, per unit of weight: keeps what the data do not tell at 0


@dataclass(frozen=True)
class Logistic:
    """p = 1 / (1 + exp(-(intercept + sum of coefficient * (feature - centre) / scale)))."""

    features: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float

    def probability(self, measured: Mapping[str, float]) -> float:
        """In [0, 1]; raises KeyError when a feature is missing."""
        terms = zip(self.features, self.centre, self.scale, self.coefficients, strict=True)
        total = self.intercept + sum(c * (measured[name] - m) / s for name, m, s, c in terms)
        return float(special.expit(total))

    def as_json(self, **told: Any) -> str:
        """Text of the model's file; `told` says where the coefficients come from."""
        values = {
            "features": list(self.features),
            "centre": [round(v, 5) for v in self.centre],
            "scale": [round(v, 5) for v in self.scale],
            "coefficients": [round(v, 5) for v in self.coefficients],
            "intercept": round(self.intercept, 5),
        }
        return json.dumps(told | values, indent=1) + "\n"


@lru_cache(maxsize=16)
def load_logistic(name: str) -> Logistic:
    """The model `labeling/<name>.json`."""
    values = json.loads(files("petground.labeling").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return Logistic(
        tuple(values["features"]),
        tuple(values["centre"]),
        tuple(values["scale"]),
        tuple(values["coefficients"]),
        float(values["intercept"]),
    )


def fit_logistic(
    rows: Sequence[Mapping[str, float]],
    truth: Sequence[bool],
    features: Sequence[str],
    weights: Sequence[float] | None = None,
    directions: Mapping[str, int] | None = None,
    ridge: float = RIDGE,
) -> Logistic:
    """Weighted, ridge-regularised maximum likelihood; deterministic.

    directions: features whose coefficient must not be negative (1) or not be positive (-1).
    """
    x = np.array([[row[name] for name in features] for row in rows], dtype=np.float64)
    y = np.asarray(truth, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    z = np.hstack([(x - centre) / scale, np.ones((len(x), 1))])

    def loss(beta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        score = z @ beta
        value = float((w * (np.logaddexp(0, score) - y * score)).sum() + ridge * (beta[:-1] ** 2).sum() / 2)
        slope = z.T @ (w * (special.expit(score) - y))
        slope[:-1] += ridge * beta[:-1]
        return value, slope

    allowed = {1: (0.0, None), -1: (None, 0.0), 0: (None, None)}
    bounds = [allowed[(directions or {}).get(name, 0)] for name in features] + [(None, None)]
    beta = optimize.minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Logistic(
        tuple(features),
        tuple(map(float, centre)),
        tuple(map(float, scale)),
        tuple(map(float, beta[:-1])),
        float(beta[-1]),
    )

"""How far a label can be trusted, from what can be measured on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["confidence", "features"]


def features(
    *, value_excess: float, match_score: float, runner_up: float, contrast: float, stability: float, volume_ml: float
) -> dict[str, float]:
    """Measured evidence, each in [0, 1] with 1 the best.

    value_excess: measured maximum outside of the printed value's rounding interval [g/ml]. match_score, runner_up: of
    the chosen candidate, and the best other as part of it. contrast: (maximum - background) / maximum. stability:
    volume at a 10 % higher threshold over that at a 10 % lower one. volume_ml: of the mask.
    """
    return {
        "value": float(np.exp(-max(value_excess, 0.0) / 0.1)),
        "match": float(np.clip(match_score, 0.0, 1.0)),
        "margin": float(1.0 - np.clip(runner_up, 0.0, 1.0)),
        "contrast": float(np.clip(contrast, 0.0, 1.0)),
        "stability": float(np.clip(stability, 0.0, 1.0)),
        "volume": float(np.clip(volume_ml / 0.3, 0.0, 1.0) * np.clip(1000.0 / max(volume_ml, 1e-6), 0.0, 1.0) ** 0.25),
    }


WEIGHTS = {"value": 1.0, "match": 1.0, "margin": 1.0, "contrast": 0.5, "stability": 0.5, "volume": 0.25}


def confidence(measured: Mapping[str, float]) -> float:
    """Weighted geometric mean of the features: monotone in each, in [0, 1]; not yet calibrated."""
    total = sum(WEIGHTS.values())
    logs = sum(weight * np.log(max(measured[name], 0.02)) for name, weight in WEIGHTS.items())
    return float(np.exp(logs / total))

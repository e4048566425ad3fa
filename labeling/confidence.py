"""How likely a label is right, from what can be measured on it.

The event: the mask overlaps the lesion that the report means, with a Dice of 0.5 or more against its true extent. The
probability is a logistic model of the features below, fitted on simulated exams in which a part of the findings is
wrong on purpose (`python benchmarks/calibrate_confidence.py` writes confidence.json and measures the calibration on
seeds of its own). It is calibrated there and nowhere else: real findings are wrong in other ways and shares. Outlines
by a rule that the site asks for have a model per rule, of auto's confidence and of how the two outlines compare.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from scipy import special

from petground.labeling.logistic import load_logistic
from petground.labeling.stated import log_over_usual

__all__ = [
    "ASKED_DIRECTIONS",
    "DIRECTIONS",
    "FEATURES",
    "asked_confidence",
    "asked_features",
    "confidence",
    "features",
]

DIRECTIONS = {
    "value": 1,
    "off_slice": -1,
    "score": 1,
    "prominence": 1,
    "margin": 1,
    "contrast": 1,
    "signal": 1,
    "stability": 1,
    "small": -1,
    "large": -1,
    "undecided": -1,
    "hotter_neighbour": -1,
    "neighbour": -1,
    "on_organ": -1,
    "at_edge": -1,
    "wrong_side": -1,
    "size_fits": 1,
    "size_off": -1,
    "cut_to_size": -1,
}
"""What each feature may do to the confidence: a doubt never raises it, whatever a fit makes of chance in its data."""
FEATURES = tuple(DIRECTIONS)
ASKED_DIRECTIONS = {"auto": 1, "agreement": 1, "same": 1, "grown": -1, "shrunk": -1, "stability": 1}
"""The same for an outline by a rule that the site asks for."""


def features(
    *,
    value_excess: float,
    slice_distance: int,
    match_score: float,
    prominence: float,
    runner_up: float,
    contrast: float,
    signal_to_noise: float,
    stability: float,
    volume_ml: float,
    whole: float,
    side_mm: float | None,
    notes: Collection[str],
    size_mm: float | None = None,
) -> dict[str, float]:
    """Measured evidence by name, each of the order of 1.

    value_excess: measured maximum outside of the printed value's rounding interval [g/ml]. slice_distance: of the
    hottest voxel from the reported slice. match_score, prominence: of the chosen candidate, in [0, 1]. runner_up: the
    best other candidate as part of it. contrast: (maximum - background) / maximum. signal_to_noise: of the maximum's
    height. stability: volume at a 10 % higher threshold over that at a 10 % lower one. whole: probability that the
    lesion is larger and uneven. side_mm: distance into the reported side, None where not told. notes: of the outline.
    size_mm: longest diameter as reported.
    """
    off_size = abs(log_over_usual(volume_ml, size_mm)) if size_mm else 0.0
    log_ml = float(np.log(max(volume_ml, 1e-3)))
    return {
        "value": float(np.exp(-max(value_excess, 0.0) / 0.1)),
        "off_slice": min(abs(slice_distance), 10) / 10.0,
        "score": float(np.log(np.clip(match_score, 0.01, 1.0))),
        "prominence": float(np.clip(prominence, 0.0, 1.0)),
        "margin": 1.0 - float(np.clip(runner_up, 0.0, 1.0)),
        "contrast": float(np.clip(contrast, 0.0, 1.0)),
        "signal": float(np.log(np.clip(signal_to_noise, 1.0, 300.0))),
        "stability": float(np.clip(stability, 0.0, 1.0)),
        "small": max(0.0, -log_ml),  # below 1 ml
        "large": max(0.0, log_ml - float(np.log(30.0))),
        "undecided": 1.0 - abs(2.0 * float(np.clip(whole, 0.0, 1.0)) - 1.0),
        "hotter_neighbour": float("touches_hotter" in notes),
        "neighbour": float("touches_other" in notes),
        "on_organ": float("on_organ" in notes),
        "at_edge": float("at_image_edge" in notes),
        "wrong_side": float(side_mm is not None and side_mm < -10.0),
        "size_fits": float(np.exp(-((off_size / 0.9) ** 2) / 2)) if size_mm else 0.0,
        "size_off": float(np.clip(off_size - 0.7, 0.0, 3.0)),  # up to twice or half as much tells nothing
        "cut_to_size": float("larger_than_stated" in notes),
    }


def confidence(measured: Mapping[str, float]) -> float:
    """Calibrated probability in [0, 1] that the label is right; raises KeyError when a feature is missing."""
    return load_logistic("confidence").probability(measured)


def asked_features(auto: float, agreement: float, times: float, stability: float) -> dict[str, float]:
    """Evidence for an outline by a rule that the site asks for, where the event is the same.

    auto: confidence of the outline that `auto` makes. agreement: Dice of the two. times: volume over that of auto's.
    stability: as in `features`, of the asked outline.
    """
    log_times = float(np.log(np.clip(times, 1e-3, 1e3)))
    return {
        "auto": float(special.logit(np.clip(auto, 0.01, 0.99))),
        "agreement": float(np.clip(agreement, 0.0, 1.0)),
        "same": float(np.tanh((agreement - 0.55) / 0.15)),  # where auto is right, half shared is the event itself
        "grown": max(0.0, log_times),
        "shrunk": max(0.0, -log_times),
        "stability": float(np.clip(stability, 0.0, 1.0)),
    }


def asked_confidence(rule: str, measured: Mapping[str, float]) -> float:
    """Calibrated probability that an outline by the rule is right; each rule has its own model."""
    return load_logistic(f"confidence_{rule}").probability(measured)

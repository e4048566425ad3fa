"""Confidence is a probability that falls with doubt, from coefficients that are data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from petground.labeling.confidence import ASKED_DIRECTIONS, DIRECTIONS, FEATURES, confidence, features
from petground.labeling.logistic import Logistic, fit_logistic, load_logistic
from petground.labeling.rules import RULES
from petground.labeling.whole import SIGNS

GOOD = {
    "value_excess": 0.0,
    "slice_distance": 0,
    "match_score": 0.95,
    "prominence": 1.0,
    "runner_up": 0.0,
    "contrast": 0.8,
    "signal_to_noise": 40.0,
    "stability": 0.8,
    "volume_ml": 5.0,
    "whole": 0.05,
    "side_mm": None,
    "notes": (),
}


@pytest.mark.parametrize(
    "worse",
    [
        {"value_excess": 0.1},
        {"slice_distance": 4, "match_score": 0.4},
        {"match_score": 0.2},
        {"runner_up": 0.8},
        {"prominence": 0.3},
        {"signal_to_noise": 4.0},
        {"whole": 0.45},
        {"notes": ("touches_other",)},
        {"notes": ("larger_than_stated",)},
        {"size_mm": 60.0},
        {"size_mm": 5.0},
    ],
)
def test_confidence_falls_with_each_kind_of_doubt(worse: dict[str, object]) -> None:
    before, after = (confidence(features(**values)) for values in (GOOD, GOOD | worse))  # type: ignore[arg-type]
    assert 0 <= after < before <= 1


def test_a_plain_finding_is_trusted_and_a_poor_one_is_not() -> None:
    poor = {"value_excess": 0.15, "slice_distance": 3, "match_score": 0.1, "prominence": 0.2, "runner_up": 0.9}
    assert confidence(features(**GOOD)) > 0.9  # type: ignore[arg-type]
    assert confidence(features(**GOOD | poor)) < 0.35  # type: ignore[arg-type]


def test_a_size_that_fits_raises_confidence() -> None:
    """5 ml is usual for a diameter of 26 mm."""
    plain, sized = (confidence(features(**GOOD, size_mm=size)) for size in (None, 26.0))  # type: ignore[arg-type]
    assert sized > plain


def test_no_doubt_raises_confidence() -> None:
    for name, directions in [("confidence", DIRECTIONS), *((name, ASKED_DIRECTIONS) for name, _ in ASKED)]:
        found = load_logistic(name)
        assert all(c * directions[f] >= 0 for f, c in zip(found.features, found.coefficients, strict=True))


def test_extreme_measures_stay_in_range() -> None:
    for extreme in (0.0, 1e9):
        values = {name: extreme for name in GOOD if name not in ("side_mm", "notes")}
        told = features(**values, side_mm=-1e9, notes=("unheard_of",))  # type: ignore[arg-type]
        assert set(told) == set(FEATURES)
        assert all(np.isfinite(v) for v in told.values())
        assert 0 <= confidence(told) <= 1


ASKED = [(f"confidence_{rule}", tuple(ASKED_DIRECTIONS)) for rule in RULES]


@pytest.mark.parametrize(("name", "wanted"), [("confidence", FEATURES), ("whole", SIGNS), *ASKED])
def test_the_shipped_models_are_whole_and_say_who_made_them(name: str, wanted: tuple[str, ...]) -> None:
    from importlib.resources import files

    assert load_logistic(name).features == wanted
    values = json.loads(files("petground.labeling").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    assert values["made_by"].startswith("python benchmarks/")


def test_a_fit_finds_what_made_the_data_and_survives_its_file() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 2))
    p = 1 / (1 + np.exp(-(0.5 + 1.5 * x[:, 0] - 1.0 * x[:, 1])))
    right = list(rng.random(4000) < p)
    rows = [{"a": float(a), "b": float(b)} for a, b in x]
    model = fit_logistic(rows, right, ("a", "b"))
    assert model.coefficients[0] == pytest.approx(1.5, abs=0.35)
    assert model.coefficients[1] == pytest.approx(-1.0, abs=0.3)
    values = json.loads(model.as_json(made_by="this test"))
    again = Logistic(*(tuple(values[k]) for k in ("features", "centre", "scale", "coefficients")), values["intercept"])
    assert again.probability({"a": 1.0, "b": 0.0}) == pytest.approx(model.probability({"a": 1.0, "b": 0.0}), abs=1e-3)


def test_weights_count_as_copies() -> None:
    rows = [{"a": 0.0}, {"a": 1.0}, {"a": 1.0}, {"a": 2.0}]
    weighted = fit_logistic(rows[:2] + rows[3:], [False, True, True], ("a",), [1.0, 2.0, 1.0])
    copied = fit_logistic(rows, [False, True, True, True], ("a",))
    chances = [model.probability({"a": 0.5}) for model in (weighted, copied)]
    assert chances[0] == pytest.approx(chances[1], abs=0.1)

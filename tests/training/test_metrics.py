"""Metrics against examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.training.bootstrap import estimate, f1_of, mean_of, share
from petground.training.controls import shuffled_among_exams
from petground.training.metrics import (
    Component,
    Score,
    best_component,
    counts,
    diameter_mm,
    dice,
    f1,
    missed,
    precision_recall,
    score_component,
    size_class,
    uptake_class,
)


def a_score(
    *, answered: bool = True, overlap: bool = True, agrees: bool = True, d: float = 0.8, p: float = 0.9
) -> Score:
    return Score(answered, overlap, d, 5.0, agrees, p, 1.0)


def test_the_component_with_the_highest_mean_is_kept_not_the_largest_nor_the_one_with_the_peak() -> None:
    probability = np.zeros((10, 6, 4))
    probability[0:4, 0:4, 0:3] = 0.7  # large
    probability[7, 0, 0], probability[8, 0, 0] = 0.99, 0.52  # highest peak, mean 0.755
    probability[7:9, 4:6, 3] = 0.8
    component = best_component(probability)
    assert np.argwhere(component.mask).tolist() == [[7, 4, 3], [7, 5, 3], [8, 4, 3], [8, 5, 3]]
    assert component.presence == pytest.approx(0.8)


def test_of_two_equal_means_the_larger_is_kept() -> None:
    probability = np.zeros((8, 2, 2))
    probability[0, 0, 0] = 0.75
    probability[4:7, 0, 0] = 0.75
    assert best_component(probability).mask.sum() == 3


def test_voxels_touching_at_a_corner_are_one_component() -> None:
    probability = np.zeros((4, 4, 4))
    probability[1, 1, 1] = probability[2, 2, 2] = 0.9
    assert best_component(probability).mask.sum() == 2


def test_nothing_above_one_half_is_no_and_keeps_the_highest_probability_as_presence() -> None:
    probability = np.full((3, 3, 3), 0.1)
    probability[1, 2, 0] = 0.5
    component = best_component(probability)
    assert component.empty
    assert component.presence == 0.5
    assert best_component(np.full((2, 2, 2), np.nan)).empty


def test_dice_by_hand() -> None:
    a, b = np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 2), dtype=bool)
    assert dice(a, b) == 1.0
    a[0, 0, 0] = a[0, 0, 1] = a[0, 1, 0] = True
    b[0, 0, 0] = True
    assert dice(a, b) == pytest.approx(2 * 1 / (3 + 1))


def scored(reported: float, mask_at: tuple[int, int, int] | None) -> Score:
    pet = np.ones((4, 4, 4), dtype=np.float32)
    pet[1, 1, 1], pet[2, 1, 1], pet[3, 3, 3] = 5.0, 6.0, 9.0
    reference = np.zeros(pet.shape, dtype=bool)
    reference[1:3, 1, 1] = True
    answer = np.zeros(pet.shape, dtype=bool)
    if mask_at is not None:
        answer[mask_at] = True
    return score_component(Component(answer, 0.7), reference, pet, suv_reference=reported, voxel_ml=0.5)


def test_a_hit_of_the_paper_needs_overlap_and_agreement_of_suvmax() -> None:
    hottest = scored(6.0, (2, 1, 1))
    assert hottest.hit("paper")
    assert hottest.hit("overlap")
    assert hottest.hit("dice50")  # 2 * 1 / (1 + 2) = 0.67
    assert hottest.volume_ml == 0.5
    beside_the_peak = scored(6.0, (1, 1, 1))  # overlaps, but SUVmax inside is 5.0
    assert beside_the_peak.hit("overlap")
    assert not beside_the_peak.hit("paper")
    elsewhere = scored(9.0, (3, 3, 3))  # the right SUVmax in the wrong place
    assert elsewhere.suv_agrees
    assert not elsewhere.hit("paper")
    none = scored(6.0, None)
    assert not none.answered
    assert not none.hit("overlap")
    assert none.presence == 0.7


@pytest.mark.parametrize(("reported", "agrees"), [(5.9, True), (6.1, True), (5.89, False), (6.11, False)])
def test_suv_agrees_within_one_tenth_inclusive(reported: float, agrees: bool) -> None:
    assert scored(reported, (2, 1, 1)).suv_agrees is agrees


def test_empty_reference_and_other_grid_are_refused() -> None:
    pet = np.zeros((2, 2, 2))
    empty = np.zeros((2, 2, 2), dtype=bool)
    with pytest.raises(ValueError, match="empty"):
        score_component(Component(empty, 0.0), empty, pet, suv_reference=1.0, voxel_ml=1.0)
    with pytest.raises(ValueError, match="shapes"):
        score_component(Component(np.zeros((3, 2, 2), bool), 0.0), ~empty, pet, suv_reference=1.0, voxel_ml=1.0)


def test_micro_f1_by_hand() -> None:
    scores = [a_score(), a_score(agrees=False), a_score(overlap=False), missed()]
    assert counts(scores, "paper").sum(axis=0).tolist() == [1, 2, 3]
    assert float(f1(counts(scores, "paper").sum(axis=0))) == pytest.approx(2 / (2 + 2 + 3))
    assert float(f1(counts(scores, "overlap").sum(axis=0))) == pytest.approx(4 / (4 + 1 + 2))
    assert np.isnan(f1(np.zeros(3)))
    assert counts([], "paper").shape == (0, 3)


def test_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="dice50"):
        a_score().hit("iou")


def test_precision_recall_by_hand() -> None:
    scores = [
        a_score(p=0.9),
        a_score(p=0.8, overlap=False),
        a_score(p=0.7),
        a_score(p=0.7, overlap=False),  # a tie with the third: one point for both
        missed(presence=0.3),
    ]
    curve = precision_recall(scores, "overlap")
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7]
    assert curve.recall.tolist() == pytest.approx([1 / 5, 1 / 5, 2 / 5])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 4])
    assert curve.average_precision == pytest.approx(1 / 5 * 1 + 0 + 1 / 5 * 0.5)
    assert precision_recall([missed()], "paper").average_precision == 0.0
    with pytest.raises(ValueError, match="references"):
        precision_recall([], "paper")


def test_sizes_and_uptake_classes() -> None:
    assert diameter_mm(4.18879) == pytest.approx(20.0, abs=1e-3)  # a ball of radius 10 mm
    assert [size_class(v) for v in (0.4, 0.6, 4.19, 40.0)] == ["<10 mm", "10-20 mm", "20-40 mm", ">=40 mm"]
    assert [uptake_class(s) for s in (4.99, 5.0, 10.0)] == ["<5 SUV", "5-10 SUV", ">=10 SUV"]


def test_interval_draws_patients_not_sentences() -> None:
    rows = np.array([[1.0, 1.0]] * 50 + [[0.0, 1.0]] * 50)
    by_sentence = estimate(rows, [str(i) for i in range(100)], mean_of)
    by_patient = estimate(rows, ["a"] * 50 + ["b"] * 50, mean_of)
    assert by_sentence.value == by_patient.value == 0.5
    assert by_sentence.low is not None
    assert by_sentence.high is not None
    assert 0.38 < by_sentence.low < 0.43  # binomial: 0.5 +- 1.96 * 0.05
    assert 0.57 < by_sentence.high < 0.62
    assert (by_patient.low, by_patient.high) == (0.0, 1.0)  # two patients: anything may be drawn
    assert estimate(rows, ["a"] * 100, mean_of)[:3] == (0.5, None, None)
    assert estimate(np.zeros((0, 2)), [], mean_of).value is None
    assert estimate(np.zeros((2, 3)), ["a", "b"], f1).value is None


def test_a_share_of_none_or_all_has_the_exact_interval() -> None:
    """217 answers without an event: at most 1.69 % (Clopper and Pearson; 1 - 0.025^(1/217))."""
    none, patients = np.tile([0.0, 1.0], (217, 1)), [str(n // 4) for n in range(217)]
    found = share(none, patients)
    assert (found.value, found.low, found.n) == (0.0, 0.0, 217)
    assert found.high == pytest.approx(0.01686, abs=1e-5)
    all_of_them = share(none[:, ::-1], patients)
    assert all_of_them[:3] == pytest.approx((1.0, 1 - 0.01686, 1.0), abs=1e-5)
    some = none.copy()
    some[:9] = [1.0, 0.0]
    rows = np.stack([some[:, 0], np.ones(217)], axis=1)
    assert share(some, patients) == estimate(rows, patients, mean_of)
    assert share(none, ["a"] * 217)[1:3] == (None, None)
    assert share(np.zeros((3, 2)), ["a", "b", "c"]).value is None
    assert share(np.zeros((0, 2)), []).n == 0


def test_f1_of_none_or_all_has_an_interval_too() -> None:
    """5 of 5 found: recall is at least 0.478 (Clopper and Pearson; 0.025^(1/5)); 0 of 5: at most 0.522."""
    hit, missed = np.tile([1.0, 0.0, 0.0], (5, 1)), np.tile([0.0, 1.0, 1.0], (5, 1))
    patients = ["a", "a", "b", "c", "c"]
    assert f1_of(hit, patients)[:3] == pytest.approx((1.0, 0.4782, 1.0), abs=1e-4)
    assert f1_of(missed, patients)[:3] == pytest.approx((0.0, 0.0, 2 * 0.5218 / 1.5218), abs=1e-4)
    both = np.concatenate([hit[:3], missed[:2]])
    assert f1_of(both, patients) == estimate(both, patients, f1)


def test_interval_is_the_same_on_every_run() -> None:
    rows = np.random.default_rng(3).random((30, 2))
    patients = [str(i % 7) for i in range(30)]
    assert estimate(rows, patients, mean_of) == estimate(rows, patients, mean_of)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=30), st.integers(0, 100))
def test_every_shuffled_sentence_comes_from_another_exam(exams: list[str], seed: int) -> None:
    donors = shuffled_among_exams(exams, [str(i) for i in range(len(exams))], seed=seed)
    if len(set(exams)) == 1:
        assert donors is None
        return
    assert donors is not None
    assert all(exams[donor] != exams[i] for i, donor in enumerate(donors))
    if max(exams.count(e) for e in exams) <= len(exams) / 2:
        assert sorted(donors) == list(range(len(exams))), "each sentence is used once"


def test_shuffling_avoids_sentences_worded_alike() -> None:
    exams = ["a", "b", "c", "d"] * 2
    prompts = ["left lung"] * 4 + ["liver"] * 4
    donors = shuffled_among_exams(exams, prompts, seed=1)
    assert donors is not None
    assert sum(prompts[i] == prompts[d] for i, d in enumerate(donors)) <= 2
    assert donors == shuffled_among_exams(exams, prompts, seed=1)

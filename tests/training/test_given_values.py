"""SUV and slice as prompts: withheld, they are nowhere; given, they come from the columns in one wording."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_work import LESIONS, SPEC

from petground.labeling.errors import InputError
from petground.pipeline.prompts import PromptMode, has_words, leaks, with_values
from petground.pipeline.schemas import read_table, write_table
from petground.training.data import GroundingData
from petground.training.references import from_labels, from_truth
from petground.training.work import read_exams, swap_sides

MODES: tuple[PromptMode, ...] = ("words", "words+suv", "words+slice", "all")
SUVS, SLICES = {f"{one[3]:.1f}" for one in LESIONS}, {str(one[4]) for one in LESIONS}


def _told(sentences: list[str]) -> tuple[set[str], set[str]]:
    """Numbers after "SUVmax" and after "slice", and no number anywhere else."""
    text = "\n".join(sentences)
    suv, slices = set(re.findall(r"SUVmax (\S+?)[,.]?(?=[ \n]|$)", text)), set(re.findall(r"slice (\d+)\.", text))
    rest = re.sub(r"SUVmax [\d.]+\d|slice \d+", "", text)
    assert not re.search(r"\d", rest)
    return suv, slices


def test_values_are_worded_alike_whatever_the_sentence_looks_like() -> None:
    assert with_values("Avid left node.", "words", 5.25, 104) == "Avid left node."
    assert with_values("Avid left node.", "words+suv", 5.25, 104) == "Avid left node, SUVmax 5.2."
    assert with_values("Avid left node", "words+slice", 5.25, 104) == "Avid left node, slice 104."
    assert with_values("avid left node ;", "all", 12.0, 7) == "avid left node, SUVmax 12.0, slice 7."
    assert with_values("Avid left node.", "all", None, 7) == "Avid left node, slice 7."
    assert with_values("Avid left node.", "all", None, None) == "Avid left node."
    assert with_values(" .", "all", 5.0, 7) == " ."
    assert with_values("", "all", 5.0, 7) == ""


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40), st.floats(0, 200), st.integers(0, 2000))
def test_withheld_values_change_nothing_and_given_ones_do_not_hang_on_the_text(
    prompt: str, suv: float, number: int
) -> None:
    assert with_values(prompt, "words", suv, number) == prompt
    told = with_values(prompt, "all", suv, number)
    if not has_words(prompt):
        assert told == prompt
        return
    assert told.endswith(f", SUVmax {suv:.1f}, slice {number}.")
    assert leaks(told)


@pytest.mark.parametrize("mode", MODES)
def test_every_sentence_that_is_trained_tells_what_the_mode_says_and_nothing_else(
    mode: PromptMode, patch_work: Path
) -> None:
    data = GroundingData(
        patch_work, prompt=mode, validation_fraction=0.0, augment=None, swapped_fraction=0.5, place_fraction=0.4,
        absent_fraction=0.5,
    )  # fmt: skip
    data.grid = SPEC
    data.prepare_data()
    data.setup("validate")
    dataset = data._dataset("train", training=True)
    asked = [s for epoch in range(8) for number in range(4) for s in dataset[epoch, number]["sentences"]]
    asked += [s for number in range(4) for s in data._dataset("train", training=False)[number]["sentences"]]
    assert set(asked) <= set(data.prompts()), "the text bank knows them all"
    for sentences in (asked, data.prompts()):
        suv, slices = _told(sentences)
        assert suv == (SUVS if mode in ("words+suv", "all") else set())
        assert slices == (SLICES if mode in ("words+slice", "all") else set())
    short = [s for s in asked if not s.startswith("Avid")]
    assert short
    assert all(("slice" in s) == (mode in ("words+slice", "all")) for s in short), "cut down to the place, too"
    for exam in read_exams(patch_work, prompt=mode):
        for example in exam.examples:
            other = swap_sides(example.prompt)
            assert _told([other]) == _told([example.prompt]), "a side is exchanged, the values stay"


def test_values_come_from_the_columns_and_never_from_the_sentence(patch_work: Path) -> None:
    rows = read_table(patch_work / "labels.parquet", "labels")
    rows[0] |= {"suv_reported": 33.3, "slice_reported": None, "suv_measured": 44.4, "slice_measured": 555}
    write_table(patch_work / "labels.parquet", "labels", rows)
    (exam, *_) = read_exams(patch_work, prompt="all")
    assert exam.examples[0].prompt == "Avid right axillary node, SUVmax 33.3."
    rows[0]["prompt"] = "Avid right axillary node, SUVmax 8.4."
    write_table(patch_work / "labels.parquet", "labels", rows)
    for mode in MODES:
        with pytest.raises(InputError, match="still tells"):
            read_exams(patch_work, prompt=mode)


def test_what_is_measured_is_asked_as_it_was_trained(patch_work: Path) -> None:
    """Labels and a phantom's truth: the reported values, not the measured ones."""
    rows = read_table(patch_work / "labels.parquet", "labels")
    rows[0]["suv_measured"] = 77.0
    write_table(patch_work / "labels.parquet", "labels", rows)
    assert from_labels(patch_work)[0].prompt == "Avid right axillary node."
    assert from_labels(patch_work, prompt="all")[0].prompt == "Avid right axillary node, SUVmax 8.4, slice 97."
    truth = {"exam_id": "e0", "lesion_id": "l1", "site": "axillary node", "laterality": "right", "suv_max": 8.41,
             "slice": 97, "volume_ml": 2.0, "reported": True, "mask_path": "m.nii.gz"}  # fmt: skip
    write_table(patch_work / "truth.parquet", "truth", [truth])
    assert from_truth(patch_work, patch_work)[0].prompt == "Avid right axillary node."
    (one,) = from_truth(patch_work, patch_work, prompt="words+slice")
    assert one.prompt == "Avid right axillary node, slice 97."

"""Sentences that deny, without a value, what a PET would show at a place; and all those that only look like one."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling import find_denials
from petground.labeling.language.lexicon import word_set
from petground.labeling.language.overlong import LIMIT
from petground.pipeline.prompts import leaks


def places(sentence: str, heading: str = "FINDINGS:\n") -> list[tuple[str, str | None]]:
    return [place for denial in find_denials(f"{heading}{sentence}\n") for place in denial.places]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (
            "No hypermetabolic cervical, axillary or mediastinal lymphadenopathy.",
            [("cervical", None), ("axillary", None), ("mediastinal", None)],
        ),
        ("No abnormal uptake in the liver or spleen.", [("liver", None), ("spleen", None)]),
        ("The left adrenal gland is unremarkable without abnormal FDG activity.", [("adrenal gland", "left")]),
        ("No avid nodes in the left or right axilla.", [("axilla", "bilateral")]),
        ("No avid right axillary or left hilar node.", [("axillary", "right"), ("hilar", "left")]),
        ("No avid nodes in both lungs.", [("lungs", "bilateral")]),
        ("No avid nodes in the neck on the left.", [("neck", "left")]),
        ("A 6 mm right lower lobe nodule is non-FDG-avid.", [("right lower lobe", "right")]),
        ("No uptake in the tail of the pancreas.", [("tail of the pancreas", None)]),
        ("No F-18 FDG uptake in the left 5th rib.", [("rib", "left")]),
        ("No avid retroperitoneal nodes; the spleen shows no uptake.", [("retroperitoneal", None), ("spleen", None)]),
        ("No pathologically enlarged or hypermetabolic nodes in the neck.", [("neck", None)]),
        ("No focal hepatic uptake above background.", [("hepatic", None)]),
        ("The prostate bed is free of abnormal uptake.", [("prostate bed", None)]),
        ("There is no evidence of osseous metastases.", [("osseous", None)]),
        ("No nodes in the neck are FDG-avid.", [("neck", None)]),
        ("No foci of abnormal uptake in the liver.", [("liver", None)]),
        ("Right breast: No abnormal uptake.", [("breast", "right")]),
        ("Head/Neck: No abnormal uptake.", [("head/neck", None)]),
    ],
)
def test_what_is_denied_and_where(sentence: str, expected: list[tuple[str, str | None]]) -> None:
    assert places(sentence) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        # something may be there
        "No other avid nodes in the neck.",
        "No new hypermetabolic lesion in the liver.",
        "No abnormal uptake in the liver except segment 4.",
        "No abnormal uptake elsewhere in the neck.",
        "No uptake in the liver but intense uptake in the spleen.",
        "No uptake in the liver and avid splenic lesion.",
        "No uptake in the liver and the spleen shows uptake.",
        "No hypermetabolic lymph nodes, avid liver lesion.",
        "No nodes in the neck are avid, focal liver uptake is seen.",
        "Hypermetabolic left axillary node without uptake in the right axilla.",
        "No avid nodes in the neck. However, the left tonsil is avid.",
        # hedged, compared, looked back on, or no more than normal
        "No definite uptake in the left lung.",
        "No uptake above liver in the mediastinum.",
        "No longer any uptake in the left axilla.",
        "Previously seen left axillary node shows no uptake.",
        "No significant interval change in the liver lesion.",
        "No more than physiologic uptake in the bowel.",
        "Is there no uptake in the liver?",
        "No doubt avid node in the liver.",
        "No evidence of non-avid disease in the liver.",
        # of CT alone, or of what is wanting beside the uptake that is there
        "No enlarged axillary nodes.",
        "No enlarged hypermetabolic axillary nodes.",
        "No pleural effusion.",
        "No mediastinal mass.",
        "The adrenal glands are unremarkable.",
        "No lesion corresponding to the focal uptake in the left lobe of the liver.",
        "No evidence of lesion corresponding to uptake in the liver.",
        "No mass associated with abnormal uptake in the colon.",
        "No suspicious lesion for the avid node in the axilla.",
        "Without a lesion, focal uptake in the left rib.",
        # values, slices, and no place
        "No avid axillary node (SUVmax 1.2).",
        "No uptake in the axillary node on slice 45.",
        "No avid nodes.",
        "No abnormal uptake in the wall.",
        "No evidence of metastatic breast cancer.",
        "Lymph nodes: none avid, no avid nodes.",
    ],
)
def test_what_is_no_plain_denial(sentence: str) -> None:
    assert places(sentence) == []


def _mirrored(text: str) -> str:
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}
    return re.sub(r"\b(?:left|right)\b", lambda found: other[found[0]], text, flags=re.I)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        # a lesion before the negation
        "Left lung mass, no liver metastases.",
        "Left lung mass without metastases.",
        "Left lung mass: No liver metastases.",
        "There is a lesion in the pancreas with no hepatic metastases.",
        "Disease in the left lung without uptake in the hilum.",
        "There are small calcified right hilar nodes and no avid left hilar node.",
        # a lesion behind it
        "No uptake is seen in the left breast and right axillary node is present.",
        "No uptake in the liver and a node is seen in the left axilla.",
        "No suspicious uptake in the bones and nodules are noted in the left lung.",
        "No avid node in the left axilla with mass in the liver.",
        "No suspicious uptake in the bones with persistent disease in the left lung.",
        "No hepatic uptake & avid left axillary node.",
        "No hepatic uptake - avid left axillary node.",
        "No uptake in the left liver lobe, a nodule in the right lung.",
        # uptake told under the same heading, or at the place
        "Liver: No suspicious uptake. There is a hypermetabolic lesion in segment 4, not seen on CT.",
        "Chest: No avid nodes. Avid left lung nodule without change.",
        "Pelvis: No suspicious uptake. Focal activity well above background in the sigmoid colon.",
        "Pelvis: No avid pelvic nodes. Focal activity in the sigmoid colon.",
        "NECK:\nNo suspicious uptake in the neck. There is a new avid left level II node.",
        "No avid left axillary node.\nIMPRESSION: Hypermetabolic left axillary lesion, suspicious.",
        # of CT alone, or of what it is held for
        "The nodule in the left parotid gland is not suspicious.",
        "The nodule in the left parotid gland is not suspicious for malignancy.",
        "CT FINDINGS:\nNo suspicious lesions in the left lung.",
        "CT: No suspicious lesions in the left lung.",
        "Incidental CT findings: No suspicious lesions in the left lung.",
        # a side, or places between, that are not told
        "RIGHT BREAST:\nNo suspicious uptake in the breast.",
        "Left neck: No avid nodes in level II.",
        "Left: No avid axillary nodes.",
        "No abnormal uptake in the skull base to mid thigh.",
        "No avid lesion in L1-L5.",
        "No uptake in the left 3rd-5th ribs.",
        # taken back
        *(
            f"No suspicious uptake in the left lung. {words} the lingula."
            for words in ("Aside from", "Apart from", "Other than in", "Save for", "Nevertheless, look at")
        ),
    ],
)
def test_what_is_there_is_not_denied(text: str, mirrored: bool) -> None:
    assert places(_mirrored(text) if mirrored else text, "FINDINGS:\n\n") == []


def test_what_stands_beside_a_denial_and_does_not_gainsay_it() -> None:
    """The other side, another place under the heading, physiologic uptake, and PET with CT in a title."""
    for side, other in (("left", "right"), ("right", "left")):
        text = f"No avid {side} axillary node.\nIMPRESSION: Hypermetabolic {other} axillary lesion."
        assert places(text) == [("axillary", side)]
        text = f"Chest: Avid {side} lung mass. No avid {other} axillary node."
        assert places(text) == [("axillary", other)]
        assert places(f"{side.title()} neck: No avid {side} level II node.") == [("level ii", side)]
        assert places(f"6 mm {side} lower lobe nodule is non-avid.") == [(f"{side} lower lobe", side)]
    assert places("No uptake in the liver. Physiologic activity in the liver.") == [("liver", None)]
    assert places("PET/CT FINDINGS:\nNo suspicious uptake in the liver.", "") == [("liver", None)]
    assert places("No avid cervical and axillary nodes.") == [("cervical", None), ("axillary", None)]


@pytest.mark.parametrize("heading", ["COMPARISON:\n", "INDICATION: ", "TECHNIQUE: ", "FINDINGS:\nPrior PET/CT: "])
def test_only_todays_findings_and_impression_deny(heading: str) -> None:
    assert places("No avid axillary nodes.", heading) == []
    assert places("No avid axillary nodes.", "IMPRESSION:\n") == [("axillary", None)]


def test_a_place_told_by_the_heading_alone_goes_into_the_words() -> None:
    (denial,) = find_denials("FINDINGS:\n\nPelvis:\nThe bowel is normal.\nNo suspicious\nuptake.\n")
    assert denial.places == (("pelvis", None),)
    assert denial.prompt == "Pelvis: No suspicious uptake."
    assert denial.sentence == "No suspicious\nuptake."
    assert denial.section == "findings"


def test_a_heading_under_which_uptake_is_told_denies_nothing() -> None:
    assert places("Pelvis: No suspicious uptake. Focal activity in the sigmoid colon.") == []
    assert places("Pelvis: No suspicious uptake. Physiologic activity in the bladder.") == [("pelvis", None)]


def test_a_line_that_is_no_report_is_passed_over() -> None:
    long = "No avid axillary nodes. " * (LIMIT // 20)
    assert [denial.prompt for denial in find_denials(f"{long}\nNo avid hilar nodes.")] == ["No avid hilar nodes."]


_WORDS = word_set(
    "No no not without neither nor non-avid avid FDG uptake in the of and or left right both axillary liver "
    ", ; . : ( ) hilar nodes lesion focus SUVmax 5.2 slice 45 mm 6 above background is seen with head/neck T12 5th "
    "F-18 Neck:"
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from([*sorted(_WORDS), "\n"]), max_size=25).map(" ".join)))
def test_any_text_is_read_and_no_prompt_tells_an_answer(text: str) -> None:
    for denial in find_denials(text):
        assert denial.places
        assert text[slice(*denial.span)] == denial.sentence
        assert not leaks(denial.prompt)
        assert "suv" not in denial.prompt.lower()


def test_time_is_linear_in_the_text() -> None:
    def seconds(text: str) -> float:
        started = time.process_time()
        find_denials(text)
        return time.process_time() - started

    for piece in ("No avid left or right axillary node. ", "no uptake and no ", "No avid neck, liver, \n"):
        seconds(piece * 20)
        small, large = min(seconds(piece * 100) for _ in range(3)), seconds(piece * 800)
        assert large < 24 * small + 0.05, piece

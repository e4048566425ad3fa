"""A sentence asked for by itself: side and site are read whether or not it states SUVmax and slice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.extract import extract_findings
from petground.labeling.language.asked import AskedFor, read_asked

MIRROR = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LUL": "RUL", "L": "R", "4L": "4R"}


def asked(text: str) -> AskedFor:
    return read_asked(text, extract_findings(text))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("text", "site", "side"),
    [
        ("FDG avid left axillary lymph node.", "axillary lymph node", "left"),
        ("Left adrenal nodule", "adrenal nodule", "left"),
        ("LUL nodule", "LUL nodule", "left"),
        ("L iliac node", "iliac node", "left"),
        ("4L node is avid", "4L node", "left"),
        ("Left", None, "left"),
        ("node on the left", "node", "left"),
        ("The nodule in the upper lobe of the left lung.", "upper lobe", "left"),
        ("There is an avid node in the axilla.", "axilla", None),
        ("Left breast: avid mass.", "breast", "left"),
        ("Left axillary node, none on the right.", "axillary node", "left"),
        ("Left inguinal node. The right side is clear.", "inguinal node", "left"),
        ("After right nephrectomy, left adrenal nodule.", "adrenal nodule", "left"),
        ("Left hilar node and right axillary node", "hilar node", None),
        ("Left hilar node SUVmax 5.2 (slice 100), right hilar node SUVmax 4.2.", "hilar node", None),
        ("Left hilar node SUVmax 5.2 (slice 100), liver lesion SUVmax 4.2 (slice 60).", None, None),
        ("No avid left axillary node (SUVmax 1.1).", "axillary node", "left"),
        ("Left adrenal nodule with SUVmean 3.1.", "adrenal nodule", "left"),
        ("SUVmax 5.2. Left adrenal nodule.", "adrenal nodule", "left"),
        ("Bilateral hilar nodes", "hilar nodes", "bilateral"),
        ("Left and right hilar nodes", "hilar nodes", "bilateral"),
        ("Subcarinal node", "subcarinal node", None),
    ],
)
def test_side_and_site_are_read_of_the_words(text: str, site: str | None, side: str | None, turned: bool) -> None:
    if turned:
        words = [text, site or "", side or ""]
        text, site, side = (" ".join(MIRROR.get(one, one) for one in told.split(" ")) for told in words)
    read = asked(text)
    assert (read.site, read.laterality) == (site.lower() if site else None, side or None)


def test_values_are_kept_one_by_one() -> None:
    assert asked("Left adrenal nodule with SUVmax 5.2.") == AskedFor("adrenal nodule", "left", 5.2, None)
    assert asked("Right adrenal nodule on slice 104.") == AskedFor("adrenal nodule", "right", None, 104)
    assert asked("Right adrenal nodule (3:104).") == AskedFor("adrenal nodule", "right", None, 104, 3)
    assert asked("Right adrenal nodule on coronal image 50.") == AskedFor("adrenal nodule", "right")
    whole = "Left hilar node, SUVmax 5.2 (slice 100), SUVmean 3.1, previously SUVmax 4.0; liver SUVmax 2.1"
    assert asked(whole) == AskedFor("hilar node", "left", 5.2, 100)
    assert asked("Left adrenal nodule with SUVmean 3.1.").suv is None, "no maximum"
    assert asked("No avid left axillary node (SUVmax 1.1).").suv is None, "of no lesion"
    two = asked("Left hilar node SUVmax 5.2 (slice 100), left axillary node SUVmax 4.2 (slice 80).")
    assert two == AskedFor(None, "left"), "of several lesions only what they share"
    assert asked("") == asked("left node and " * 9000) == AskedFor()


@given(st.text(alphabet=st.sampled_from("aR 1.5,(\n:-/;é"), max_size=60), st.sampled_from(["left", "right", ""]))
@settings(max_examples=100, deadline=None)
def test_no_text_is_too_odd(text: str, side: str) -> None:
    asked(f"{text} {side} {text}")

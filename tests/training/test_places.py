"""Which places a report may tell of: absent is only what is surely not there."""

from __future__ import annotations

import pytest

from petground.training.places import may_be_here, place_stems


@pytest.mark.parametrize(
    ("place", "here", "expected"),
    [
        (("axillary node", "left"), ("axillary lymph node", "left"), True),  # other words for the same
        (("axillary node", "left"), ("axilla", "left"), True),
        (("axillary node", "left"), ("axilla", ""), True),  # a side that is not told could be this one
        (("axillary node", ""), ("axilla", "right"), True),
        (("axillary node", "left"), ("axilla", "bilateral"), True),
        (("axillary node", "left"), ("axilla", "right"), False),
        (("axillary node", "left"), ("inguinal lymph node", "left"), False),  # "node" is no place
        (("left upper lobe nodule", "left"), ("left adrenal nodule", "left"), False),  # nor is a side or "upper"
        (("l3 lesion", ""), ("l 3 vertebral focus", ""), True),
        (("l4 lesion", ""), ("l 3 vertebral focus", ""), False),
        (("lymph node", "left"), ("liver", ""), True),  # could be anywhere
        (("liver lesion", ""), ("lymph node", ""), False),  # cannot be compared
    ],
)
def test_places_are_compared_by_shared_words_and_side(
    place: tuple[str, str], here: tuple[str, str], expected: bool
) -> None:
    assert may_be_here(place, [here]) == expected
    assert may_be_here(place, [("spleen", ""), here]) == expected


def test_stems_are_of_words_that_tell_the_place() -> None:
    assert place_stems("right axillary lymph node") == {"axill"}
    assert place_stems("segment ii hepatic lesion") == {"hepat"}
    assert not place_stems("soft tissue mass")
    assert may_be_here(("rib", ""), []) is False

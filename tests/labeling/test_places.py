"""Which places a report may tell of: absent is only what is surely not there."""

from __future__ import annotations

import pytest

from petground.labeling.places import may_be_here, may_lie_in, place_stems
from petground.pipeline.phantom.report_sites import PLACES


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
        (("liver lesion", ""), ("lymph node", ""), True),  # a place that is not told could be this one
        (("liver lesion", ""), ("nodal metastasis", "left"), True),
        (("left adrenal nodule", "left"), ("nodal metastasis", "right"), False),
        (("inguinal node", "left"), ("groin", "left"), True),  # Latin and English
        (("inguinal node", "left"), ("groin", "right"), False),
        (("hilar node", "right"), ("hilum of the lung", "right"), True),
        (("right upper lobe nodule", "right"), ("rul", "right"), True),
        (("rib lesion", "left"), ("ribs", "left"), True),
        (("iliac node", "left"), ("pelvic node", "left"), True),  # a part of the body and a place in it
        (("iliac node", "left"), ("mediastinal node", ""), False),
        (("obturator node", "left"), ("iliac node", "left"), False),
        (("l3 lesion", ""), ("lumbar spine", ""), True),
        (("c5 lesion", ""), ("cervical spine", ""), True),
        (("th7 lesion", ""), ("t 7 vertebral body", ""), True),
        (("t7 lesion", ""), ("scapula", ""), False),
    ],
)
def test_places_are_compared_by_shared_words_and_side(
    place: tuple[str, str], here: tuple[str, str], expected: bool
) -> None:
    assert may_be_here(place, [here]) == expected
    assert may_be_here(place, [("spleen", ""), here]) == expected


@pytest.mark.parametrize(
    ("denied", "here", "expected"),
    [
        ("bone marrow", "t7 lesion", True),
        ("axial skeleton", "l3 lesion", True),
        ("appendicular skeleton", "humeral head", True),
        ("osseous", "iliac lesion", True),
        ("osseous", "iliac node", False),
        ("intrathoracic", "hilar node", True),
        ("intrathoracic", "inguinal node", False),
        ("cervical", "level iia", True),
        ("torso", "liver lesion", True),
        ("torso", "tonsil", False),
        ("extremities", "thigh lesion", True),
        ("lower extremity", "femur", True),
        ("thyroid", "cervical level iii node", False),
    ],
)
def test_a_part_of_the_body_is_denied_with_all_that_lies_in_it(denied: str, here: str, expected: bool) -> None:
    for side, other in (("left", "right"), ("right", "left")):
        assert may_lie_in((denied, side), [(here, side)]) == expected
        assert not may_lie_in((denied, side), [(here, other)])


def test_stems_are_of_words_that_tell_the_place() -> None:
    assert place_stems("right axillary lymph node") == {"axill"}
    assert place_stems("segment ii hepatic lesion") == {"hepat"}
    assert not place_stems("soft tissue mass")
    assert may_be_here(("rib", ""), []) is False


@pytest.mark.parametrize("site", sorted(PLACES))
def test_every_way_to_say_a_place_is_that_place(site: str) -> None:
    ways = [way.format(side="left").strip() for forms in PLACES[site] for way in forms]
    for one in ways:
        for other in ways:
            assert may_be_here((one, "left"), [(other, "left")]), (one, other)


def test_most_pairs_of_places_are_told_apart() -> None:
    pairs = [(one, other) for one in PLACES for other in PLACES if one < other]
    apart = sum(not may_be_here((one, ""), [(other, "")]) for one, other in pairs)
    assert apart / len(pairs) > 0.85

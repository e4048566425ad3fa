"""Remarks beside a lesion: nothing of a reference, a bound or a score reaches its site, its side or its prompt."""

from __future__ import annotations

import pytest

from petground.labeling.extract import extract_findings


@pytest.mark.parametrize(
    ("text", "site", "prompt"),
    [
        (
            "Mass abutting the aorta (mediastinal blood pool SUVmax 2.1) shows SUVmax 10.2 at slice 115.",
            "mass",
            None,
        ),
        ("Left parotid nodule (right parotid SUVmax 2.2) with SUVmax 8.8, slice 40.", "parotid nodule", None),
        ("The right renal mass (liver SUVmax 3.0) has SUVmax 8.0 on slice 160.", "renal mass", None),
        ("R iliac LN, SUVmax 6.6 (img 240) - D5.", "iliac ln", None),
        ("R iliac LN, SUVmax 6.6 (img 240), D4.", "iliac ln", None),
        ("D5 vertebral lesion SUVmax 8.0, slice 101.", "d5 vertebral lesion", None),
        ("Lesions with SUVmax 6.0 (slice 99), in D3, D4 and D5.", "d3", None),
        ("Left hilar node SUVmax 5.0 slice 100; biopsy if SUVmax is above 2.5.", "hilar node", "Left hilar node"),
    ],
)
def test_site_and_prompt_are_the_lesions(text: str, site: str, prompt: str | None) -> None:
    (finding,) = [f for f in extract_findings(text) if f.status == "positive"]
    assert finding.site == site
    assert prompt is None or finding.prompt == prompt
    assert not any(word in finding.prompt for word in ("blood pool", "liver", "right parotid", "SUV", "biopsy"))


def test_a_remark_is_a_finding_of_its_own() -> None:
    found = extract_findings("Left parotid nodule (right parotid SUVmax 2.2) with SUVmax 8.8, slice 40.")
    assert [(f.suv, f.laterality, f.reason) for f in found] == [(2.2, "right", "reference"), (8.8, "left", None)]
    assert found[0].span[0] < found[1].span[0]


@pytest.mark.parametrize(("one", "other"), [("left", "right"), ("right", "left"), ("left", "left")])
@pytest.mark.parametrize("denial", ["without uptake in the", "with no abnormal uptake in the", "but no uptake in the"])
def test_what_is_denied_behind_a_lesion_takes_nothing_from_it(one: str, other: str, denial: str) -> None:
    text = f"Avid {one} iliac node (SUVmax 7.0, image 200) {denial} {other} inguinal node (SUVmax 0.9, image 230)."
    found = [(f.suv, f.laterality, f.reason) for f in extract_findings(text)]
    assert found == [(7.0, one, None), (0.9, other, "negated")]

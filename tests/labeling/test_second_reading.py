"""What the second reader is asked, and what comes of its answers."""

from __future__ import annotations

import pytest

from petground.labeling.extract import extract_findings
from petground.labeling.second_reading import consensus, pairs_of, questions

TEXT = (
    "FINDINGS: Left axillary node, SUVmax 5.5 (previously 7.1), axial slice 104. No pleural effusion, 3 cm cyst. "
    "Right hilar node with an SUV of 4,40. It is best seen on image 88. Liver SUVmean 2.1."
)


def test_questions_offer_numbers_of_the_text_only() -> None:
    asked = questions(TEXT)
    assert [TEXT[one.span[0] : one.span[1]][:10] for one in asked] == ["Left axill", "Right hila", "Liver SUVm"]
    pair = asked[1].schema["properties"]["pairs"]["items"]["properties"]
    assert pair["suv"]["enum"] == [4.4]
    assert pair["slice"]["enum"] == [3, 88]  # also of the sentences beside it
    assert "image 88" in asked[1].user


@pytest.mark.parametrize("text", ["", "Normal study.", "SUV normal.", "SUV 5.1 without index"])
def test_nothing_to_ask(text: str) -> None:
    assert questions(text) == []


def test_agreement_keeps_and_difference_excludes() -> None:
    findings = extract_findings(TEXT)
    first, second, third = (one.span for one in questions(TEXT))
    agreed = consensus(findings, {first: [(5.5, 104)], second: [(4.4, 104)], third: [(2.1, 88)]})
    assert [(f.suv, f.status, f.reason) for f in agreed] == [
        (5.5, "positive", None),
        (7.1, "excluded", "prior"),
        (4.4, "excluded", "disagreement"),
        (2.1, "excluded", "reference"),  # the second reader adds nothing
    ]
    assert [f.reason for f in consensus(findings, {first: None}) if f.suv in (5.5, 4.4)] == ["disagreement"] * 2


@pytest.mark.parametrize(
    ("answer", "pairs"),
    [
        ({"pairs": [{"suv": 5, "slice": 3}, {"suv": 5.0, "slice": 3}]}, [(5.0, 3)]),
        ({"pairs": []}, []),
        (None, None),
        ([], None),
        ({"pairs": [{"suv": 5}]}, None),
        ({"pairs": [{"suv": "x", "slice": 1}]}, None),
        ({"pairs": 3}, None),
    ],
)
def test_pairs_of_any_answer(answer: object, pairs: object) -> None:
    assert pairs_of(answer) == pairs

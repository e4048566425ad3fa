"""Whole reports: fields of a finding, what is taken over between sentences, repeats, robustness, time."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.extract import extract_findings
from petground.labeling.finding import TEXT_REASONS
from petground.labeling.language import overlong

REPORT = """INDICATION: Lymphoma. Outside PET with SUVmax 12.0.

TECHNIQUE: 10.1 mCi FDG. Displayed at SUV 0 to 7.

FINDINGS:
NECK: Several left neck nodes are avid. The largest, at level III, is 2.1 cm on slice 60. It has an SUVmax of 7.25
(previously 9.0 on slice 61). No other avid node.
CHEST: Right hilar node, SUVmax 6.4 (3:104). Blood pool SUVmax 2.0.

IMPRESSION:
1. Left level III node, SUVmax 7.25, decreased.
2. Right hilar node (SUVmax 6.4, slice 104) may be reactive.
"""


def test_fields_of_a_report() -> None:
    found = extract_findings(REPORT)
    assert [(f.suv, f.slice, f.reason, f.laterality, f.section) for f in found] == [
        (12.0, None, "prior", None, "indication"),
        (0.0, None, "threshold", None, "technique"),
        (7.0, None, "threshold", None, "technique"),
        (7.25, 60, None, "left", "findings"),
        (9.0, None, "prior", "left", "findings"),
        (6.4, 104, None, "right", "findings"),
        (2.0, None, "reference", None, "findings"),
        (7.25, None, "repeat", "left", "impression"),
        (6.4, 104, "repeat", "right", "impression"),
    ]
    node, hilar = found[3], found[5]
    assert (node.suv_decimals, node.suv_kind, node.status) == (2, "max", "positive")
    assert (hilar.suv_decimals, hilar.series) == (1, 3)
    assert "hilar" in (hilar.site or "")
    for finding in found:
        assert REPORT[slice(*finding.sentence_span)] == finding.sentence
        assert finding.reason is None or finding.reason in TEXT_REASONS
        start, end = finding.span
        assert f"{finding.suv:g}" in REPORT[start:end]
    assert REPORT[slice(*(hilar.slice_span or (0, 0)))] == "3:104"
    assert "left" in node.prompt.lower()
    assert "level III" in node.prompt


def test_prompts_never_tell_the_answer() -> None:
    for finding in extract_findings(REPORT):
        if finding.status == "positive":
            assert finding.prompt
            for number in ("7.25", "6.4", "9.0", "60", "61", "104", "SUV", "slice"):
                assert number not in finding.prompt


def test_size_uncertainty_and_series() -> None:
    (finding,) = extract_findings("A 1.3 x 0.9 cm left hilar node may be reactive, SUVmax 5.2, series 4 image 58.")
    assert (finding.size_mm, finding.uncertain, finding.series, finding.slice) == (13.0, True, 4, 58)


def test_prompt_of_one_lesion_of_several() -> None:
    found = extract_findings(
        "Right iliac node (slice 222, SUVmax 6.4) and left obturator node (slice 240, SUVmax 3.8)."
    )
    assert [f.prompt for f in found] == ["Right iliac node", "left obturator node."]
    found = extract_findings("Right and left cervical nodes: SUVmax 4.1 and 5.0 on slices 60 and 64, respectively.")
    assert [f.prompt for f in found] == ["Right cervical nodes.", "left cervical nodes."]


def test_repeat_before_the_findings_and_sides_that_differ() -> None:
    text = "IMPRESSION: Left hilar node, SUVmax 6.4.\nFINDINGS: Left hilar node, SUVmax 6.4, slice 104."
    assert [f.reason for f in extract_findings(text)] == ["repeat", None]
    text = "FINDINGS: Left hilar node, SUVmax 6.4, slice 104.\nIMPRESSION: Right axillary node, SUVmax 6.4."
    assert [f.reason for f in extract_findings(text)] == [None, "no_slice"]


@pytest.mark.parametrize("text", ["", " \n\t ", "No SUV here.", "SUV", "slice 104"])
def test_no_value_no_finding(text: str) -> None:
    assert extract_findings(text) == []


_WORDS = (
    "SUVmax SUV 5.4 .9 10,3 slice 104 (3:104) ( ) [ ; , . : -> previously prior was now from to versus "
    "left right node liver and respectively up no uptake is physiologic e.g. 3/2/2019 cm x 1.2 "
    "IMPRESSION: FINDINGS: • - 4R T12 it "
)
_PIECES = st.sampled_from([*_WORDS.split(), "\n"])


@given(st.lists(_PIECES, max_size=60).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_never_raises_on_its_own_words(text: str) -> None:
    for finding in extract_findings(text):
        assert finding.status in ("positive", "excluded")
        assert (finding.status == "positive") == (finding.reason is None)
        assert finding.status == "excluded" or finding.slice is not None


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_never_raises_on_any_text(text: str) -> None:
    extract_findings(text + " SUV " + text)


@pytest.mark.parametrize(
    "unit",
    [
        "SUVmax ",
        "SUVmax of of of ",
        "slice 1 SUV ",
        "1 ",
        "(",
        "a. SUV ",
        "SUV 5.4 5.4 ",
        "left node SUV ",
        "1 x SUV ",
        "\nSUV",
        "node in the left axilla with uptake\n",
        "SUVmax 5.4 slice 3\n",
        "interim PET:\n\n",
        "(liver SUVmax 3.0, if above SUVmax 2.5) ",
    ],
)
def test_time_is_linear(unit: str) -> None:
    """Ten times the text may take at most forty times as long (a busy machine); a quadratic step takes a hundred."""
    extract_findings(unit * 10)

    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        spent = []
        for _ in range(2):
            began = time.process_time()
            extract_findings(text)
            spent.append(time.process_time() - began)
        return min(spent)

    assert seconds(300_000) < 40 * max(seconds(30_000), 0.004)


@pytest.mark.parametrize(
    "unit",
    [
        "Left node SUVmax 5.4 slice 104, ",
        "SUVmax ",
        "SUV 5.4 5.4 ",
        "SUVmax of of of ",
        "suv(max)=",
        "5.4 ",
        "(((((SUV ",
        "SUV | slice | ",
        "1,2,3,4,",
        "slice 1 SUV ",
    ],
)
def test_a_line_of_a_megabyte_takes_time_in_proportion(unit: str) -> None:
    spent = []
    gc.disable()  # it walks all that the tests before left behind
    try:
        for length in (250_000, 1_000_000):
            line = unit * (length // len(unit))
            times = []
            for _ in range(3):
                began = time.process_time()
                found = extract_findings(line)
                times.append(time.process_time() - began)
            spent.append(min(times))  # other processes can only make it longer
    finally:
        gc.enable()
    assert spent[1] < 8 * spent[0] + 0.05, "four times the length; were it squared, sixteen"
    assert spent[1] < 1.0
    assert all((f.status, f.reason) == ("excluded", "ambiguous") for f in found)


def test_values_of_an_overlong_line_are_all_kept_beside_the_report() -> None:
    line = "Left node SUVmax 5.4 slice 104, " * (overlong.LIMIT // 30)
    count = line.count("5.4")
    text = f"FINDINGS: Right hilar node, SUVmax 6.4, slice 90.\n{line}\nLeft adrenal nodule, SUVmax 3.25, slice 160.\n"
    found = extract_findings(text)
    assert len(found) == count + 2
    told = [(f.suv, f.slice, f.suv_decimals) for f in found if f.status == "positive"]
    assert told == [(6.4, 90, 1), (3.25, 160, 2)]
    assert {f.reason for f in found if f.suv == 5.4} == {"ambiguous"}
    assert all("5.4" in text[slice(*f.span)] for f in found if f.suv == 5.4)
    assert [f.span for f in found] == sorted(f.span for f in found)


def test_a_line_at_the_limit_is_read() -> None:
    sentence = "Left hilar node, SUVmax 5.2, slice 58. "
    line = (sentence + "No other lesion. " * 6000)[: overlong.LIMIT]
    assert overlong.find_overlong(line) == []
    assert overlong.find_overlong(line + "x") == [(0, overlong.LIMIT + 1)]
    assert [f.slice for f in extract_findings(line)] == [58]


@pytest.mark.parametrize(
    "text",
    [
        "左肺門リンパ節 SUVmax 5.4、スライス104。",
        "Ganglion hilaire gauche, SUVmax 5,4, coupe 104.",
        "Левый узел, SUV 5.4",
        "SUVmax ٥٫٤ \u202e SUV",
        "Return the product and the SUV key; SUV sales rose 5.4 percent.",
        "SUV" + "\x00" * 20 + "5.4",
        "SUVₘₐₓ ５.４ on slice １０４",
    ],
)
def test_other_languages_and_other_texts_do_not_raise(text: str) -> None:
    for finding in extract_findings(text):
        assert finding.suv >= 0


def test_the_end_that_slices_are_counted_from_comes_with_the_finding() -> None:
    told = "TECHNIQUE: Slice numbers are counted from the feet. FINDINGS: Left hilar node, SUVmax 5.2, slice 58."
    assert [f.counted_from for f in extract_findings(told)] == ["feet"]
    assert [f.counted_from for f in extract_findings("Left hilar node, SUVmax 5.2, slice 58.")] == [None]


@pytest.mark.parametrize("call", ["called at 555-201-3344", "called (555) 201-3344", "pager 555.201.3344"])
def test_telephone_numbers_are_no_values(call: str) -> None:
    found = extract_findings(f"Left node, SUVmax 40.0, axial slice 2. Dr. X was {call}.")
    assert [(f.suv, f.slice) for f in found] == [(40.0, 2)]


def test_a_time_behind_a_date_is_no_slice() -> None:
    found = extract_findings("IMPRESSION: Left node, SUVmax 4.0. Transcribed by X 13 August 2016 10:22")
    assert [(f.suv, f.reason) for f in found] == [(4.0, "no_slice")]
    assert extract_findings("Left node, SUVmax 4.0 (3:104).")[0].slice == 104

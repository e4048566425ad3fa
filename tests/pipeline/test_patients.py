"""Who an exam is of: export and headers compared over all exams, nobody torn apart, nobody filed under another."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petground.pipeline.patients import Who, named, settle_patients


def settled(*rows: tuple[str, str | None, str | None], rule: str = "check") -> tuple[dict[str, str], set[str], int]:
    found = settle_patients([Who(*row) for row in rows], rule)  # type: ignore[arg-type]
    return found.patient_of, set(found.wrong), len(found.notes)


def test_an_export_without_patients_takes_those_of_the_headers() -> None:
    rows = [("e1", "e1", "4711"), ("e2", "e2", "4711"), ("e3", "e3", "4712"), ("e4", "e4", None)]
    assert settled(*rows) == ({"e1": "4711", "e2": "4711", "e3": "4712"}, set(), 0)


def test_equal_numbers_stay_and_one_that_differs_is_refused() -> None:
    """Also where the wrong pair is the only one of its patient: the numbers are of one kind, so they must agree."""
    rows = [("e1", "A1", "A1"), ("e2", "A2", "A2"), ("e3", "A3", "A9")]
    assert settled(*rows) == ({"e1": "A1", "e2": "A2", "e3": "A3"}, {"e3"}, 0)


def test_reports_shifted_by_a_row_are_all_refused() -> None:
    """One to one, and wrong in every row: the same numbers stand on both sides."""
    assert settled(("e1", "A1", "A2"), ("e2", "A2", "A3"), ("e3", "A3", "A1"))[1] == {"e1", "e2", "e3"}


def test_pseudonyms_that_go_one_to_one_are_taken_and_told() -> None:
    rows = [("e1", "S1", "4711"), ("e2", "S1", "4711"), ("e3", "S2", "4712"), ("e4", None, "4712")]
    assert settled(*rows) == ({"e1": "S1", "e2": "S1", "e3": "S2", "e4": "S2"}, set(), 1)
    assert settled(*rows, rule="pseudonyms")[2] == 0, "said in the site file: no note"


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([("e1", "S1", "7"), ("e2", "S2", "7")], {"e1", "e2"}),  # one PatientID, two patients of the export
        ([("e1", "S1", "7"), ("e2", "S1", "8")], {"e1", "e2"}),  # and the reverse
        ([("e1", "S1", "7"), ("e2", "S1", "7"), ("e3", "S2", "7"), ("e4", "S2", "8")], {"e3", "e4"}),
        ([("e1", "S1", "7"), ("e2", "S1", "7"), ("e3", "S2", "7"), ("e4", "S2", "8"), ("e5", "S2", "8")], {"e3"}),
    ],
)
@pytest.mark.parametrize("rule", ["check", "pseudonyms"])
def test_what_breaks_one_to_one_is_refused(rows: list[tuple[str, str, str]], wrong: set[str], rule: str) -> None:
    """e4 of the third case has as much for as against it: neither of its pairs is believed."""
    assert settled(*rows, rule=rule)[1] == wrong


def test_numbers_that_are_alike_by_chance_need_a_word_in_the_site_file() -> None:
    rows = [("e1", "1", "2"), ("e2", "2", "3"), ("e3", "1", "2")]
    assert settled(*rows)[1] == {"e1", "e2", "e3"}
    assert settled(*rows, rule="pseudonyms") == ({"e1": "1", "e2": "2", "e3": "1"}, set(), 0)


def test_either_side_can_be_believed() -> None:
    rows = [("e1", "S1", "7"), ("e2", "S1", "8"), ("e3", "S2", None), ("e4", None, "9")]
    assert settled(*rows, rule="export") == ({"e1": "S1", "e2": "S1", "e3": "S2", "e4": "9"}, set(), 0)
    assert settled(*rows, rule="dicom") == ({"e1": "7", "e2": "8", "e3": "S2", "e4": "9"}, set(), 0)


def test_leading_zeros_and_capitals_make_no_other_patient() -> None:
    rows = [("e1", "12", "0012"), ("e2", "12", "0012"), ("e3", None, "12"), ("e4", "ab1", "AB1"), ("e5", None, "Ab1")]
    patient_of, wrong, _ = settled(*rows)
    assert not wrong
    assert patient_of["e1"] == patient_of["e2"] == patient_of["e3"] == "12"
    assert patient_of["e4"] == patient_of["e5"]


def test_a_number_that_two_issuers_gave_out_is_two_patients_where_all_state_them() -> None:
    def of(*issuers: str | None) -> list[str]:
        exams = [Who(f"e{n}", None, "7", issuer) for n, issuer in enumerate(issuers)]
        return list(settle_patients(exams).patient_of.values())

    assert of("NORTH", "SOUTH", "NORTH") == ["7^^^NORTH", "7^^^SOUTH", "7^^^NORTH"]
    assert of("NORTH", None) == ["7", "7"]
    assert of("NORTH", "SOUTH", None) == ["7", "7", "7"], "it may be either: kept together"


@pytest.mark.parametrize(
    "word", ["ANONYMOUS", "anonymized", "  ", "0", "000", "XXXX", "N/A", "unknown", "De-identified"]
)
def test_placeholders_name_nobody(word: str) -> None:
    assert named(word) is None
    assert settled(("e1", None, word), ("e2", None, word)) == ({}, set(), 0), "else all exams were one patient"
    assert settled(("e1", "S1", word), ("e2", "S2", word)) == ({"e1": "S1", "e2": "S2"}, set(), 0)


@pytest.mark.parametrize("word", ["ANON_017", "X1", "N4", "10", "00010", "Anne"])
def test_numbers_that_look_like_placeholders_are_none(word: str) -> None:
    assert named(f" {word}\0") == word


IDS = st.sampled_from([None, "a", "A", "b", "c", "01", "1", "e0", "x"])


@given(
    st.lists(st.tuples(IDS, IDS, st.sampled_from([None, "N", "S"])), max_size=12),
    st.sampled_from(["check", "pseudonyms", "export", "dicom"]),
)
def test_nobody_is_torn_apart(pairs: list[tuple[str | None, str | None, str | None]], rule: str) -> None:
    """Exams that are believed and share a patient on either side share him in the outcome, whatever the others say."""
    exams = [Who(f"e{n}", told, imaged, issuer) for n, (told, imaged, issuer) in enumerate(pairs)]
    found = settle_patients(exams, rule)  # type: ignore[arg-type]
    assert found == settle_patients(exams, rule)  # type: ignore[arg-type]
    patients: dict[tuple[str | None, ...], set[str]] = defaultdict(set)
    for who in exams:
        told, imaged = None if who.told == who.exam_id else named(who.told), named(who.imaged)
        assert bool(told or imaged) == (who.exam_id in found.patient_of)
        if who.exam_id in found.wrong:
            assert rule in ("check", "pseudonyms")
            assert told
            assert imaged
        elif rule != "dicom" and told:
            patients["told", told].add(found.patient_of[who.exam_id])
        elif rule != "export" and imaged and not {who.issuer for who in exams if who.imaged} > {None}:
            patients["imaged", imaged, who.issuer].add(found.patient_of[who.exam_id])  # two issuers, two people
    assert all(len(names) == 1 for names in patients.values())

"""Which of several reports of one exam counts; and that `reports` and `label` take and refuse the same rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.pipeline.cli import main
from petground.pipeline.reports import open_export, read_reports
from petground.pipeline.sources.rows import NO_CANDIDATE, candidates, report_row

TEXT = "FINDINGS: Left axillary node, SUVmax 5.5, slice 104."


def resource(name: str, accession: str | None, body: str | None = TEXT, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport",
        "id": name,
        "status": "final",
        "code": {"text": "PET/CT with FDG"},
        "subject": {"reference": "Patient/p1"},
        "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": accession}] if accession else [],
        "conclusion": body,
        **fields,
    }


def write(path: Path, *resources: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, resources)), encoding="utf-8")
    return path


def taken(path: Path) -> dict[str, tuple[str, str | None]]:
    return {r.exam_id: (r.text, r.problem and r.problem[0]) for r in read_reports(path)}


def day(number: int) -> str:
    return f"2024-02-{number:02d}T08:00:00Z"


@pytest.mark.parametrize("status", ["amended", "corrected", "appended", "modified"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_corrected_report_filed_as_one_of_its_own_takes_the_place_of_the_first(
    tmp_path: Path, status: str, turned: bool
) -> None:
    found = [
        resource("r1", "A1", "SUVmax 5.5", issued=day(1)),
        resource("r2", "A1", "SUVmax 6.5", issued=day(3), status=status),
        resource("r3", "A1", "SUVmax 7.5", issued=day(2), status="amended"),
        resource("r4", "A2", "SUVmax 8.5", issued=day(1)),
    ]
    export = write(tmp_path / "r.ndjson", *(found[::-1] if turned else found))
    assert taken(export) == {"A1": ("SUVmax 6.5", None), "A2": ("SUVmax 8.5", None)}
    assert open_export(export).hidden == 2


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"status": "final"}, "duplicate_exam_id"),  # neither corrects the other
        ({"status": "amended", "code": {"text": "CT chest"}}, "duplicate_exam_id"),  # of another procedure
        ({"status": "amended", "subject": {"reference": "Patient/p2"}}, "duplicate_exam_id"),  # of another patient
        ({"status": "amended", "issued": day(1)}, "duplicate_exam_id"),  # older than the one it would correct
        ({"status": "preliminary"}, None),  # a draft beside it
        ({"status": "entered-in-error"}, None),  # taken back, under an id of its own
    ],
)
def test_what_is_no_correction_takes_no_place(tmp_path: Path, second: dict[str, Any], expected: str | None) -> None:
    other = resource("r2", "A1", "SUVmax 6.5", **{"issued": day(3), **second})
    export = write(tmp_path / "r.ndjson", resource("r1", "A1", issued=day(2)), other)
    problems = {r.problem and r.problem[0] for r in read_reports(export)}
    assert problems == {expected}
    if expected is None:
        assert taken(export) == {"A1": (f"{TEXT}", None)}


def test_a_correction_that_cannot_be_read_does_not_bring_the_first_back(tmp_path: Path) -> None:
    form = {"presentedForm": [{"contentType": "application/pdf", "url": "Binary/gone"}]}
    corrected = resource("r2", "A1", None, issued=day(2), status="corrected", **form)
    export = write(tmp_path / "r.ndjson", resource("r1", "A1", issued=day(1)), corrected, resource("r3", "A3"))
    assert taken(export) == {"A1": ("", "report_is_link"), "A3": (TEXT, None)}


def test_the_last_version_counts_where_nothing_was_issued(tmp_path: Path) -> None:
    editions = [
        resource(f"r{n}", "A1", f"SUVmax {n}.5", status="amended", meta={"versionId": str(n)}) for n in (9, 10, 8)
    ]
    assert taken(write(tmp_path / "r.ndjson", resource("r1", "A1"), *editions)) == {"A1": ("SUVmax 10.5", None)}


BAD = [
    resource("r1", "A1"),
    resource("r2", "../../etc"),
    resource("r3", "A/3"),
    resource("r4", None, identifier=[{"value": "  "}]),
    resource("r5", "twice"),
    resource("r6", "TWICE", "another report"),
    resource("r7", "silent", None),
    resource("r8", "blank", " \n "),
    resource("r9", "draft", status="preliminary"),
    resource("r10", "A1", status="preliminary"),
]


def test_reports_writes_what_label_takes_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = write(tmp_path / "r.ndjson", *BAD)
    assert main(["reports", str(export), "--out", str(tmp_path / "t.csv")]) == 3
    told = capsys.readouterr().out
    good = {name for name, (_, problem) in taken(export).items() if problem is None}
    assert good == {"A1", "r4"}, "an empty identifier is none: the resource's id stands in"
    table = taken(tmp_path / "t.csv")
    assert table == dict.fromkeys(good, (TEXT, None)), "every row that was written is one that label takes"
    with (tmp_path / "t.csv.left_out.csv").open(encoding="utf-8") as stream:
        left = [(row["exam_id"], row["problem"]) for row in csv.DictReader(stream)]
    assert sorted(left) == [
        ("../../etc", "bad_exam_id"),
        ("A/3", "bad_exam_id"),
        ("A1", "not_final"),
        ("TWICE", "duplicate_exam_id"),
        ("blank", "no_report_text"),
        ("draft", "not_final"),
        ("silent", "no_report_text"),
        ("twice", "duplicate_exam_id"),
    ]
    assert "8 left out" in told
    assert "bad_exam_id 2" in told


def test_corrected_reports_are_counted_and_cost_no_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrected = resource("r2", "A1", "SUVmax 6.5", issued=day(3), status="corrected")
    export = write(tmp_path / "r.ndjson", resource("r1", "A1", issued=day(1)), corrected)
    assert main(["reports", str(export), "--out", str(tmp_path / "t.parquet")]) == 0
    assert "superseded 1" in capsys.readouterr().out
    assert taken(tmp_path / "t.parquet") == {"A1": ("SUVmax 6.5", None)}


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["A1", "a1", "A2", "../x", "", None]),
        st.sampled_from([None, None, "text", "not_final", "withdrawn", "superseded", "unreadable"]),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_no_exam_is_lost_and_none_is_told_twice_without_a_word(rows: list[tuple[str | None, str | None]]) -> None:
    made = [report_row(exam, "t", problem=(why, "") if why not in (None, "text") else None) for exam, why in rows]
    kept = list(candidates(made))
    assert sum(1 + hides for _, hides in kept) == len(made)
    for exam in {row["exam_id"].casefold() for row in made if row["exam_id"]}:
        own = [row for row, _ in kept if (row["exam_id"] or "").casefold() == exam]
        wanting = [row for row in made if (row["exam_id"] or "").casefold() == exam]
        wanting = [row for row in wanting if row["problem"] not in NO_CANDIDATE]
        assert own == wanting if wanting else len(own) == 1

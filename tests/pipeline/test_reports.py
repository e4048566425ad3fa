"""Report exports: three kinds of file give one set of rows; a bad row is a row with a problem, a bad file an error."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import InputError
from petground.pipeline.reports import read_reports

ROWS = [
    {"exam_id": "e1", "report_text": "FINDINGS: node, SUVmax 5.5,\nslice 104", "patient_id": "p1", "tracer": "FDG"},
    {"exam_id": "e2", "report_text": 'quoted "text"; more', "patient_id": "", "tracer": ""},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    first, second = read_reports(write(tmp_path / name, ROWS))
    assert (first.exam_id, first.text, first.patient_id, first.tracer) == ("e1", ROWS[0]["report_text"], "p1", "FDG")
    assert (second.patient_id, second.tracer) == ("e2", None), "an exam without patient is its own patient"
    assert first.problem is None
    assert second.problem is None


def test_unusable_rows_are_kept_with_their_problem(tmp_path: Path) -> None:
    rows = [
        {"exam_id": "ok", "report_text": "text"},
        {"exam_id": "twice", "report_text": "one"},
        {"exam_id": "twice", "report_text": "two"},
        {"exam_id": "empty", "report_text": "  \n"},
        {"exam_id": "", "report_text": "text"},
        {"exam_id": "../../etc", "report_text": "text"},
        {"exam_id": "Case", "report_text": "text"},
        {"exam_id": "case", "report_text": "text"},
    ]
    problems = [r.problem and r.problem[0] for r in read_reports(write(tmp_path / "r.csv", rows))]
    duplicate = "duplicate_exam_id"
    expected = [None, duplicate, duplicate, "no_report_text", "no_exam_id", "bad_exam_id", duplicate, duplicate]
    assert problems == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.xlsx", b"x", "unknown kind"),
        ("r.csv", b"exam,report_text\ne1,t\n", "rename 'exam' to 'exam_id'"),
        ("r.csv", b"", "no column"),
        ("r.csv", b"exam_id,report_text\n", "no rows"),
        ("r.csv", b"exam_id,report_text\ne1,\xff\xfe\n", "not UTF-8"),
        ("r.jsonl", b'{"exam_id": "e1"}\n', "line 1 has no column report_text"),
        ("r.jsonl", b"{\n", "line 1 is not JSON"),
        ("r.jsonl", b"[1]\n", "line 1 is not an object"),
        ("r.parquet", b"PAR1 not really", "not a readable Parquet"),
    ],
)
def test_a_bad_file_is_named_with_the_way_out(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_reports(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.fix


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no report export"):
        read_reports(tmp_path / "none.csv")


def test_an_excel_byte_order_mark_is_not_part_of_the_column(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("\ufeffexam_id,report_text\ne1,t\n".encode())
    assert read_reports(tmp_path / "r.csv")[0].exam_id == "e1"


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".csv", ".jsonl", ".parquet", ".tsv"]))
def test_any_bytes_give_rows_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"r{suffix}"
    path.write_bytes(b"exam_id,report_text\n" + content if suffix == ".csv" else content)
    try:
        rows = read_reports(path)
    except InputError:
        return
    assert rows
    assert all(row.exam_id and "/" not in row.exam_id for row in rows)

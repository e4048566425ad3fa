"""Report exports: three kinds of file give one set of rows; a bad row is a row with a problem, a bad file an error."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import InputError
from petground.pipeline.reports import open_export, read_reports

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


def test_gzip_and_utf16_and_semicolons_are_read(tmp_path: Path) -> None:
    text = 'exam_id;report_text;tracer\r\ne1;"FINDINGS: node; SUVmax 5,5";FDG\r\n'
    (tmp_path / "excel.csv").write_bytes(text.encode("utf-16"))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    for name in ("excel.csv", "packed.csv.gz"):
        (row,) = read_reports(tmp_path / name)
        assert (row.exam_id, row.text, row.tracer) == ("e1", "FINDINGS: node; SUVmax 5,5", "FDG")
    assert read_reports(tmp_path / "packed.jsonl.gz")[0].exam_id == "e1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"exam_id,report_text\ne1,caf\xe9\n", "not UTF-8 after row 0.*iconv"),
        (b'exam_id,report_text\ne1,"never closed\ne2,text\n', "line .*unexpected end"),
        (b'exam_id,report_text\ne1,"said "avid" node"\n', "line 2.*double the quotes"),
        (b"exam_id,report_text,exam_id\ne1,text,e2\n", "two columns exam_id"),
        (b"\0e\0x\0a\0m\n", "NUL characters"),
        (gzip.compress(b"exam_id,report_text\n" + b"e1,text\n" * 9999)[:-30], "cut off"),
    ],
)
def test_damage_in_a_csv_is_told_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_reports(tmp_path / "r.csv")


def test_damaged_rows_do_not_cost_the_others(tmp_path: Path) -> None:
    rows = ["ok,text,FDG", "comma,one, two,FDG", "short,text", "nul,a\0b,FDG", "huge," + "x" * 10_000_001 + ",FDG"]
    (tmp_path / "r.csv").write_text("exam_id,report_text,tracer\n" + "\n".join(rows) + "\n\n", encoding="utf-8")
    problems = {r.exam_id: r.problem and r.problem[0] for r in read_reports(tmp_path / "r.csv")}
    assert problems == {
        "ok": None,
        "comma": "ragged_row",
        "short": "ragged_row",
        "nul": "damaged_report_text",
        "huge": "report_too_long",
    }
    (tmp_path / "r.jsonl").write_text('{"exam_id": "half", "report_text": "\\ud83d"}\n')
    (row,) = read_reports(tmp_path / "r.jsonl")
    assert row.problem == ("damaged_report_text", "row 1: NUL or broken characters in the text; export it again")


def test_a_row_without_id_cannot_take_the_place_of_an_exam(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("exam_id,report_text\n,text\nrow-1,text\nrow#1,text\n")
    rows = read_reports(tmp_path / "r.csv")
    assert [r.problem and r.problem[0] for r in rows] == ["no_exam_id", None, "bad_exam_id"]
    assert len({r.exam_id for r in rows}) == 3


def test_far_repeats_are_found_and_counted_without_the_texts(tmp_path: Path) -> None:
    ids = [f"e{number}" for number in range(3000)]
    (tmp_path / "r.csv").write_text("exam_id,report_text\n" + "".join(f"{i},text\n" for i in [*ids, "E0", "e7", ","]))
    export = open_export(tmp_path / "r.csv")
    assert (export.rows, export.unusable) == (3003, 5)
    bad = {r.exam_id for r in export if r.problem and r.problem[0] == "duplicate_exam_id"}
    assert bad == {"e0", "E0", "e7"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"resourceType": "Bundle"}'),
        ("b.ndjson", '{"resourceType": "DiagnosticReport"}\n'),
        ("c.txt", "MSH|^~\\&|RIS"),
        ("d.hl7", ""),
    ],
)
def test_messages_go_to_their_readers_by_name_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    source = types.SimpleNamespace(
        read_source=lambda path: [
            {"exam_id": path.name, "report_text": "text", "problem": None, "problem_detail": None}
        ]
    )
    monkeypatch.setitem(sys.modules, "petground.pipeline.sources.folder", source)
    (tmp_path / name).write_text(content)
    assert [r.exam_id for r in read_reports(tmp_path / name)] == [name]


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

"""FHIR exports that are broken, foreign or any bytes at all: a row with a problem or an InputError, never a crash."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fhir_resources import b64, bundle, read, report
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import InputError
from petground.pipeline.sources.fhir import read_fhir


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"contentType": "application/pdf", "data": b64("%PDF-1.7 secret")}, "report_is_pdf"),
        ({"contentType": "application/octet-stream", "data": b64("%PDF-1.7 secret")}, "report_is_pdf"),
        ({"contentType": "image/jpeg", "data": b64(b"\xff\xd8\xffsecret")}, "report_not_text"),
        ({"contentType": "application/xml", "data": b64("<?xml version='1.0'?><secret/>")}, "report_is_xml"),
        ({"contentType": "text/plain", "data": "!secret!"}, "unreadable"),
        ({"contentType": "text/plain", "url": "https://ehr.example/secret"}, "report_is_link"),
    ],
)
def test_what_is_not_read_is_said_by_name(tmp_path: Path, form: dict[str, Any], problem: str) -> None:
    (row,) = read(tmp_path, report(body=None, presentedForm=[form]))
    assert (row["exam_id"], row["problem"], row["report_text"]) == ("A1", problem, None)
    assert "secret" not in str(row)
    (row,) = read(tmp_path, report(body=None, presentedForm=[form], conclusion="Node, SUVmax 5.5"))
    assert (row["problem"], row["report_text"]) == (None, "Node, SUVmax 5.5")


def test_one_broken_resource_does_not_stop_the_rest(tmp_path: Path) -> None:
    content = "\n".join([json.dumps(report("r1", "A1")), '{"secret": ', "[1]", json.dumps(report("r2", "A2"))])
    rows = read(tmp_path, content.encode(), "r.ndjson")
    assert [row["exam_id"] for row in rows] == ["A1", "A2", None, None]
    assert [row["problem_detail"] for row in rows[2:]] == [
        "r.ndjson, line 2 is not JSON",
        "r.ndjson, line 3 is no FHIR resource: it has no resourceType",
    ]
    mixed = bundle(report("r1", "A1"))
    mixed["entry"] += [{"resource": "secret"}, {}, {"resource": report("r2", "A2")}]
    rows = read(tmp_path, mixed)
    assert [row["problem"] for row in rows] == [None, None, "unreadable", "unreadable"]
    assert "secret" not in str(rows)


def test_a_folder_with_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(report("r1", "A1")), encoding="utf-8")
    (tmp_path / "b.json").write_bytes(b'{"secret": "\xff"}')
    (tmp_path / "c.ndjson.gz").write_bytes(gzip.compress(b'{"resourceType": "Patient"}')[:-9])
    rows = list(read_fhir(tmp_path))
    assert [(row["exam_id"], row["problem_detail"]) for row in rows] == [
        ("A1", None),
        (None, "b.json is not UTF-8"),
        (None, "c.ndjson.gz cannot be read: it breaks off"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"), (b"<Bundle xmlns='http://hl7.org/fhir'/>", "is XML"), (b"[]", "no resourceType"),
        (b'{"resourceType": "Patient"}', "holds no DiagnosticReport"), (b"[" * 100_000, "not JSON"),
        (b'{"resourceType": "Bundle"}', "holds no DiagnosticReport"),
    ],
)  # fmt: skip
def test_files_without_reports(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content)
    assert caught.value.fix


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


FIELDS = [
    *("identifier", "status", "code", "subject", "presentedForm", "text", "conclusion", "result", "contained", "meta"),
    *("basedOn", "imagingStudy", "study", "effectiveDateTime", "effectivePeriod", "issued", "category", "id"),
]


@settings(max_examples=200, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6), wrapped=st.booleans(), form=JSON)
def test_any_json_gives_rows(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], wrapped: bool, form: Any
) -> None:
    resource = {**report(), **fields}
    if isinstance(form, dict):
        resource["presentedForm"] = [{**form, "data": form.get("data", b64(str(form)))}]
    rows = read(tmp_path_factory.getbasetemp(), bundle(resource) if wrapped else resource)
    assert len(rows) == 1
    "".join(value for value in rows[0].values() if value).encode()


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=200),
    media=st.sampled_from(["text/plain", "text/html", "text/rtf", "x", "text/plain; charset=\x00"]),
    prefix=st.sampled_from([b"", b"{\\rtf1 ", b"<div><![", b"<!", b"&#x"]),
)
def test_any_attachment_gives_a_row(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, media: str, prefix: bytes
) -> None:
    form = {"contentType": media, "data": b64(prefix + content)}
    (row,) = read(tmp_path_factory.getbasetemp(), report(body=None, presentedForm=[form]))
    assert row["exam_id"] == "A1"
    (row["report_text"] or "").encode()


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["f.json", "f.ndjson", "f.json.gz"]))
def test_any_bytes_give_rows_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    try:
        read(tmp_path_factory.getbasetemp(), content, name)
    except InputError:
        return

"""FHIR exports: DiagnosticReports become rows, wherever their text, exam, day and edition are kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fhir_resources import TEXT, b64, bundle, identifier, read, report

from petground.pipeline.cli import main
from petground.pipeline.reports import read_reports
from petground.pipeline.sources.fhir import read_fhir


def test_a_report_with_its_exam_patient_day_and_tracer(tmp_path: Path) -> None:
    expected = {
        "exam_id": "A1",
        "report_text": TEXT,
        "patient_id": "p1",
        "tracer": "FDG",
        "study_date": "2024-01-03",
        "problem": None,
        "problem_detail": None,
    }
    assert read(tmp_path, report()) == [expected]
    assert read(tmp_path, bundle(report())) == [expected]
    lines = "\n".join(json.dumps(report(f"r{n}", f"A{n}")) for n in range(3)).encode()
    for name, content in (("r.ndjson", lines), ("r.json", lines), ("r.ndjson.gz", gzip.compress(lines))):
        assert [row["exam_id"] for row in read(tmp_path, content, name)] == ["A0", "A1", "A2"]
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [identifier("9", "SS"), identifier("4711", "MR")]}
    assert read(tmp_path, bundle(patient, report()))[0]["patient_id"] == "4711"


HTML = (
    "<html><head><title>x</title><style>p{}</style></head><body><p>Node,<br/>SUVmax&nbsp;5.5 &lt; 6</p></body></html>"
)


RTF = r"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0 Node, SUVmax 5.5,\par slice 104.}"


DIV = '<div xmlns="http://www.w3.org/1999/xhtml">'


DIV += "<h2>Findings</h2><table><tr><td>Node</td><td>SUV 5.5</td></tr></table></div>"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"presentedForm": [{"contentType": "text/html", "data": b64(HTML)}]}, "Node,\nSUVmax 5.5 < 6"),
        ({"presentedForm": [{"contentType": "text/rtf", "data": b64(RTF)}]}, "Node, SUVmax 5.5,\nslice 104."),
        ({"presentedForm": [{"contentType": "text/plain", "data": b64(RTF)}]}, "Node, SUVmax 5.5,\nslice 104."),
        (
            {
                "presentedForm": [
                    {"contentType": "text/plain; charset=iso-8859-1", "data": b64("Größe".encode("latin-1"))}
                ]
            },
            "Größe",
        ),
        ({"presentedForm": [{"contentType": "text/plain", "data": b64("Größe".encode("cp1252"))}]}, "Größe"),
        (
            {"presentedForm": [{"contentType": "text/plain", "data": b64("a\r\nb")[:4] + "\n" + b64("a\r\nb")[4:]}]},
            "a\nb",
        ),
        (
            {
                "presentedForm": [
                    {"contentType": "application/pdf", "data": b64("%PDF-1.4")},
                    {"contentType": "text/html", "data": b64(HTML)},
                    {"contentType": "text/plain", "data": b64("report")},
                    {"contentType": "text/plain", "data": b64("addendum")},
                    {"contentType": "text/plain", "data": b64("report")},
                ]
            },
            "report\n\naddendum",
        ),
        ({"conclusion": "Progress."}, "Progress."),
        ({"text": {"status": "additional", "div": DIV}}, "Findings\nNode\tSUV 5.5"),
        (
            {"text": {"status": "additional", "div": DIV}, "conclusion": "Progress."},
            "Findings\nNode\tSUV 5.5\n\nIMPRESSION: Progress.",
        ),
        ({"text": {"status": "generated", "div": DIV}, "conclusion": "Progress."}, "Progress."),
        ({}, ""),
    ],
)
def test_forms_of_text(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    assert read(tmp_path, report(body=None, **fields))[0]["report_text"] == expected


def test_a_conclusion_is_added_once(tmp_path: Path) -> None:
    (row,) = read(tmp_path, report(conclusion="Progress  of disease."))
    assert row["report_text"] == f"{TEXT}\n\nIMPRESSION: Progress  of disease."
    text = TEXT + "\nIMPRESSION:\nProgress of\ndisease."
    assert read(tmp_path, report(body=text, conclusion="Progress of disease."))[0]["report_text"] == text


def test_observations_contained_and_referred_to(tmp_path: Path) -> None:
    def observation(name: str, value: str, **fields: Any) -> dict[str, Any]:
        fields = {"resourceType": "Observation", "id": name, "status": "final", "valueString": value, **fields}
        return {**fields, "code": {"text": "Findings" if name == "o1" else "Impression"}}

    results = {
        "result": [{"reference": "Observation/o1"}, {"reference": "#o2"}],
        "contained": [observation("o2", "B.")],
    }
    first = observation("o1", "Node, SUVmax 5.5.", hasMember=[{"reference": "Observation/o3"}])
    wrong = observation("o3", "wrong patient", status="entered-in-error")
    (row,) = read(tmp_path, bundle(report(body=None, **results), first, wrong))
    assert row["report_text"] == "FINDINGS:\nNode, SUVmax 5.5.\n\nIMPRESSION:\nB."
    loop = observation("o1", "once", hasMember=[{"reference": "Observation/o1"}])
    assert (
        read(tmp_path, bundle(loop, report(body=None, **results)))[0]["report_text"]
        == "FINDINGS:\nonce\n\nIMPRESSION:\nB."
    )


def test_a_bulk_export_folder_with_binaries_orders_and_studies(tmp_path: Path) -> None:
    link = {"presentedForm": [{"contentType": "text/html", "url": "https://ehr.example/fhir/Binary/b1"}]}
    study = {"imagingStudy": [{"reference": "ImagingStudy/s1"}], "effectiveDateTime": None}
    reports = [
        report("r1", None, None, **link, basedOn=[{"reference": "ServiceRequest/o1"}]),
        report("r2", None, **study),
        report(
            "r3",
            None,
            None,
            presentedForm=[{"contentType": "text/html", "url": "Binary/gone"}],
            basedOn=[{"identifier": identifier("A3")}],
        ),
    ]
    others: dict[str, list[dict[str, Any]]] = {
        "Binary": [{"resourceType": "Binary", "id": "b1", "contentType": "text/html", "data": b64(HTML)}],
        "ServiceRequest": [
            {"resourceType": "ServiceRequest", "id": o, "identifier": [identifier(a)]}
            for o, a in (("o1", "A1"), ("o2", "A2"))
        ],
        "ImagingStudy": [
            {
                "resourceType": "ImagingStudy",
                "id": "s1",
                "started": "2023-12-31",
                "basedOn": [{"reference": "ServiceRequest/o2"}],
            }
        ],
        "DiagnosticReport": reports,
        "Observation": [{"resourceType": "Observation", "id": f"lab{n}"} for n in range(5)],
    }
    for kind, resources in others.items():
        (tmp_path / f"{kind}.000.ndjson").write_text("\n".join(map(json.dumps, resources)), encoding="utf-8")
    rows = list(read_fhir(tmp_path))
    assert [(row["exam_id"], row["report_text"], row["study_date"], row["problem"]) for row in rows] == [
        ("A1", "Node,\nSUVmax 5.5 < 6", "2024-01-03", None),
        ("A2", TEXT, "2023-12-31", None),
        ("A3", None, "2024-01-03", "report_is_link"),
    ]


def test_a_document_with_a_composition(tmp_path: Path) -> None:
    sections = [
        {
            "title": "Findings",
            "text": {"div": "<div>Node, SUVmax 5.5</div>"},
            "section": [{"title": "Lung", "text": {"div": "<div>clear</div>"}}],
        }
    ]
    composition = {"resourceType": "Composition", "id": "c", "section": sections}
    rows = read(tmp_path, bundle(composition, report(body=None), kind="document"))
    assert rows[0]["report_text"] == "FINDINGS:\nNode, SUVmax 5.5\n\nLUNG:\nclear"
    linked = report(body=None, composition={"reference": "Composition/c"})
    assert read(tmp_path, bundle(composition, linked))[0]["report_text"] == rows[0]["report_text"]


OWN = [identifier("R99", "FILL"), identifier("A1"), identifier("77", None, "http://hospital.example/mri")]


@pytest.mark.parametrize(
    ("identifiers", "rule", "expected"),
    [
        (OWN, "accession", "A1"),
        (OWN, "FILL", "R99"),
        (OWN, "http://hospital.example/mri", "77"),
        (OWN, "http://nowhere.example", None),
        (OWN, "id", "r1"),
        ([identifier("R99", "FILL"), identifier("x", "ZZ")], "accession", "R99"),
        ([identifier("5", "ZZ"), identifier("77", None, "http://h.example/Accession-Number")], "accession", "77"),
        ([{"type": {"text": "Accession ID"}, "value": "ACC-9"}, identifier("5", "ZZ")], "accession", "ACC-9"),
        ([identifier("5", None)], "accession", "5"),
        ([identifier("5", None), identifier("6", None)], "accession", "r1"),
        ([], "accession", "r1"),
    ],
)
def test_which_identifier_names_the_exam(
    tmp_path: Path, identifiers: list[dict[str, Any]], rule: str, expected: str | None
) -> None:
    assert read(tmp_path, report(identifier=identifiers), exam_id=rule)[0]["exam_id"] == expected


def test_a_study_s_uid_names_the_exam_where_nothing_else_does(tmp_path: Path) -> None:
    uid = {"system": "urn:dicom:uid", "value": "urn:oid:1.2.840.99.1"}
    for name in ("imagingStudy", "study"):  # R4, R5
        study = {"resourceType": "ImagingStudy", "id": "s1", "identifier": [uid]}
        rows = read(tmp_path, bundle(study, report(accession=None, **{name: [{"reference": "ImagingStudy/s1"}]})))
        assert rows[0]["exam_id"] == "1.2.840.99.1"


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ("final", None), ("amended", None), ("corrected", None), ("appended", None), ("modified", None), (None, None),
        ("registered", "not_final"), ("partial", "not_final"), ("preliminary", "not_final"), ("unknown", "not_final"),
        ("cancelled", "withdrawn"), ("entered-in-error", "withdrawn"), ("secret", "unreadable"),
    ],
)  # fmt: skip
def test_status(tmp_path: Path, status: str | None, problem: str | None) -> None:
    (row,) = read(tmp_path, report(status=status))
    assert (row["exam_id"], row["problem"]) == ("A1", problem)
    assert row["report_text"] == (TEXT if problem is None else None)
    assert "secret" not in str(row)
    if problem == "not_final":
        assert read(tmp_path, report(status=status), preliminary=True)[0]["report_text"] == TEXT


def edition(text: str, status: str, day: int, version: str | None = None, updated: bool = True) -> dict[str, Any]:
    meta = {"versionId": version, "lastUpdated": f"2024-02-0{day}T23:30:00-05:00" if updated else None}
    return report(body=text, status=status, meta=meta)


@pytest.mark.parametrize(
    ("editions", "expected"),
    [
        ([edition("first", "final", 1), edition("second", "amended", 2)], ("second", None)),
        ([edition("second", "amended", 2), edition("first", "final", 1)], ("second", None)),
        ([edition("signed", "final", 1), edition("draft", "preliminary", 2)], ("signed", None)),
        ([edition("signed", "final", 2), edition("taken back", "entered-in-error", 3)], (None, "withdrawn")),
        ([edition("b", "final", 1, "10", False), edition("a", "final", 1, "9", False)], ("b", None)),
    ],
)
def test_the_last_edition_counts(
    tmp_path: Path, editions: list[dict[str, Any]], expected: tuple[str | None, str | None]
) -> None:
    (row,) = read(tmp_path, bundle(*editions, kind="history"))
    assert (row["exam_id"], row["report_text"], row["problem"]) == ("A1", *expected)


def test_a_deletion_in_a_history_reaches_its_exam(tmp_path: Path) -> None:
    history = bundle(edition("signed", "final", 1), report("r2", "A2"), kind="history")
    history["entry"].insert(0, {
        "request": {"method": "DELETE", "url": "DiagnosticReport/r1"},
        "response": {"status": "204", "lastModified": "2024-03-01T00:00:00Z"},
    })  # fmt: skip
    assert {row["exam_id"]: row["problem"] for row in read(tmp_path, history)} == {"A1": "withdrawn", "A2": None}


def test_equal_ids_of_different_exams_are_different_reports(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        (tmp_path / f"{n}.json").write_text(json.dumps(bundle(report("1", f"A{n}"))), encoding="utf-8")
    assert [row["exam_id"] for row in read_fhir(tmp_path)] == ["A1", "A2", "A3"]


def test_a_procedure_filter_keeps_the_others_as_rows(tmp_path: Path) -> None:
    chest = report("r2", "A2", code={"coding": [{"code": "36643-5", "display": "XR Chest 2 Views"}]})
    rows = read(tmp_path, bundle(report(), chest), procedure=r"\bpet")
    assert [(row["exam_id"], row["problem"]) for row in rows] == [("A1", None), ("A2", "other_procedure")]


def test_label_and_fetch_read_such_an_export(tmp_path: Path) -> None:
    draft = report("r2", "A2", status="preliminary")
    (tmp_path / "reports.json").write_text(json.dumps(bundle(report(), draft)), encoding="utf-8")
    hl7 = "MSH|^~\\&|R|S|P|S|2024||ORU^R01|1|P|2.5\rPID|1||7\rOBR|1||A3|PET|||20240103\rOBX|1|TX|x||Node||||||F\r"
    (tmp_path / "more.hl7").write_text(hl7, encoding="utf-8", newline="")
    one, two, three = read_reports(tmp_path)
    assert (one.exam_id, one.text, one.patient_id, one.tracer, one.study_date, one.problem) == (
        *("A1", TEXT, "p1", "FDG", "2024-01-03"),
        None,
    )
    assert (two.exam_id, two.text, two.problem) == (
        "A2",
        "",
        ("not_final", "status is preliminary; --preliminary takes it"),
    )
    assert (three.exam_id, three.text, three.problem) == ("A3", "Node", None)
    (tmp_path / "r.csv").write_text("exam_id,report_text,problem\nA1,text,cough\n", encoding="utf-8")
    assert read_reports(tmp_path / "r.csv")[0].problem is None, "a column of that name is the user's"


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_the_reports_command(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    chest = report("r2", "A2", code={"text": "XR Chest"})
    lost = report("r3", "A3", None, presentedForm=[{"contentType": "application/pdf", "data": b64("%PDF-1.4")}])
    export, out = tmp_path / "e.json", tmp_path / name
    export.write_text(json.dumps(bundle(report(), chest)), encoding="utf-8")
    assert main(["reports", str(export), "--out", str(out), "--procedure", "PET", "--exam-id", "id"]) == 0
    (row,) = read_reports(out)
    assert (row.exam_id, row.text, row.patient_id, row.tracer, row.problem) == ("r1", TEXT, "p1", "FDG", None)
    left = (tmp_path / f"{name}.left_out.csv").read_text(encoding="utf-8")
    assert "r2,other_procedure," in left
    assert TEXT not in capsys.readouterr().out + left
    export.write_text(json.dumps(bundle(report(), lost)), encoding="utf-8")
    assert main(["reports", str(export), "--out", str(out)]) == 3
    export.write_text(json.dumps(lost), encoding="utf-8")
    assert main(["reports", str(export), "--out", str(out)]) == 1
    assert "none of 1 reports can be used: report_is_pdf 1" in capsys.readouterr().err
    assert main(["reports", str(export), "--out", str(tmp_path / "t.xlsx")]) == 2

"""`petground label` on DICOM exams: patients held together in splits, reports on other images refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
from small_exams import dicom_exam, exam, in_process, report, run, tables

from petground.labeling.errors import InputError
from petground.labeling.site import Site
from petground.pipeline.label_plan import plan
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.read import read_exam
from petground.pipeline.reports import open_export
from petground.pipeline.splits import split_patients
from petground.pipeline.stage import kept

DAY = "2021-03-04"
SPOT = (6.4, (30, 20, 30))
TEXT = report(6.4, 30)
Row = tuple[str, str | None, str | None]  # exam_id, patient_id, study_date of the export


def table(path: Path, rows: Sequence[Row], **columns: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["exam_id", "report_text", "patient_id", "study_date", *columns])
        writer.writerows([name, TEXT, patient, date, *columns.values()] for name, patient, date in rows)
    return path


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """e1 and e2 of patient 4711, the second a year later; e3 of another; e4 without DICOM."""
    root = tmp_path_factory.mktemp("exams")
    dicom_exam(root / "e1", SPOT, "4711")
    dicom_exam(root / "e2", SPOT, "4711", "2022-03-04")
    dicom_exam(root / "e3", SPOT, "0815", tracer="DCFPyL")
    exam(root / "e4", SPOT)
    return root


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["exam_id"]: row for row in tables(out)["exams"]}


def labelled(exams: Path, out: Path, rows: Sequence[Row], site: Site | None = None) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return run((table(out / "r.csv", rows), exams), out / "work", site)


def test_a_patient_whom_only_the_headers_name_is_in_one_part_of_the_split(exams: Path, tmp_path: Path) -> None:
    labelled(exams, tmp_path, [(f"e{n}", None, None) for n in (1, 2, 3, 4)])
    found = {name: row["patient_id"] for name, row in rows_of(tmp_path / "work").items()}
    assert found == {"e1": "4711", "e2": "4711", "e3": "0815", "e4": "e4"}
    assert {row["exam_id"]: row["patient_id"] for row in tables(tmp_path / "work")["labels"]} == found
    for seed in range(20):
        parts = split_patients(found, validation=0.4, test=0.3, seed=seed)
        assert len({part for part, names in parts.items() if {"e1", "e2"} & set(names)}) == 1


def test_what_the_header_says_of_day_scanner_and_tracer_stands_in_where_the_export_is_silent(
    exams: Path, tmp_path: Path
) -> None:
    labelled(exams, tmp_path, [("e1", None, None), ("e3", None, None)])
    found = rows_of(tmp_path / "work")
    assert [found[name]["study_date"] for name in ("e1", "e3")] == [DAY, DAY]
    assert [found[name]["tracer"] for name in ("e1", "e3")] == ["FDG", "DCFPyL"]
    assert [row["tracer"] for row in tables(tmp_path / "work")["labels"]] == ["FDG", "DCFPyL"]
    assert found["e1"]["scanner"]


def test_a_report_of_another_patient_gets_no_label(exams: Path, tmp_path: Path) -> None:
    rows = [("e1", "4711", DAY), ("e2", "0815", "2022-03-04"), ("e3", "815", DAY)]
    summary = labelled(exams, tmp_path, rows)
    found = rows_of(tmp_path / "work")
    assert {name: row["reason"] for name, row in found.items()} == {"e1": None, "e2": "patient_mismatch", "e3": None}
    assert summary["exam_reasons"] == {"patient_mismatch": 1}
    assert "patient_ids: pseudonyms" in found["e2"]["detail"]
    assert "0815" not in found["e2"]["detail"]
    assert "4711" not in found["e2"]["detail"]
    assert {row["exam_id"] for row in tables(tmp_path / "work")["labels"]} == {"e1", "e3"}
    assert not (tmp_path / "work/labels/e2").exists(), "no mask without a row"
    (fate,) = [row for row in tables(tmp_path / "work")["findings"] if row["exam_id"] == "e2" and row["suv"] == 6.4]
    assert (fate["status"], fate["stage"], fate["reason"]) == ("failed", "ingest", "patient_mismatch")
    first = tables(tmp_path / "work")
    labelled(exams, tmp_path, rows)
    assert tables(tmp_path / "work") == first


def test_the_site_file_says_that_the_export_uses_other_identifiers(exams: Path, tmp_path: Path) -> None:
    rows: list[Row] = [("e1", "S1", None), ("e2", "S1", None), ("e3", "4711", None)]
    assert labelled(exams, tmp_path, rows)["exam_reasons"] == {"patient_mismatch": 3}
    summary = labelled(exams, tmp_path, rows, Site(patient_ids="pseudonyms"))
    assert summary["exams_failed"] == 0
    assert {name: row["patient_id"] for name, row in rows_of(tmp_path / "work").items()} == {
        "e1": "S1",
        "e2": "S1",
        "e3": "4711",
    }
    labelled(exams, tmp_path, rows, Site(patient_ids="dicom"))
    assert [row["patient_id"] for row in rows_of(tmp_path / "work").values()] == ["4711", "4711", "0815"]


def test_pseudonyms_are_taken_and_said_once(exams: Path, tmp_path: Path) -> None:
    summary = labelled(exams, tmp_path, [("e1", "S1", None), ("e2", "S1", None), ("e3", "S2", None)])
    assert summary["exams_failed"] == 0
    (note,) = summary["notes"]
    assert "two kinds" in note
    broken = labelled(exams, tmp_path, [("e1", "S1", None), ("e2", "S2", None), ("e3", "S3", None)])
    assert broken["exam_reasons"] == {"patient_mismatch": 2}, "4711 is S1 and S2"


def test_a_report_of_another_year_gets_no_label(exams: Path, tmp_path: Path) -> None:
    rows = [("e1", None, "2022-03-04"), ("e2", None, "2022-03-05"), ("e3", None, "04-MAR-2021")]
    summary = labelled(exams, tmp_path, rows)
    found = rows_of(tmp_path / "work")
    assert [found[f"e{n}"]["reason"] for n in (1, 2, 3)] == ["study_date_mismatch", None, None]
    assert "365 days" in found["e1"]["detail"]
    assert summary["notes"] == []
    assert not (tmp_path / "work/labels/e1").exists()
    todo = plan(open_export(tmp_path / "r.csv"), exams, tmp_path / "work", Site())
    assert (todo.images, todo.labels) == (0, 0), "--dry-run knows that it has no labels coming"


def test_dates_that_were_shifted_are_said_once_and_the_check_can_be_switched_off(exams: Path, tmp_path: Path) -> None:
    rows = [("e1", None, "2014-03-04"), ("e2", None, "2015-03-04"), ("e3", None, "2014-03-04")]
    summary = labelled(exams, tmp_path, rows)
    assert summary["exam_reasons"] == {"study_date_mismatch": 3}
    (note,) = summary["notes"]
    assert "check_study_date: false" in note
    read = {name: (tmp_path / "work/exams" / name / "stage.json").stat().st_mtime_ns for name in ("e1", "e2", "e3")}
    summary = labelled(exams, tmp_path, rows, Site(check_study_date=False))
    assert (summary["exams_failed"], summary["labels"], summary["notes"]) == (0, 3, [])
    assert read == {name: (tmp_path / "work/exams" / name / "stage.json").stat().st_mtime_ns for name in read}


def test_images_of_two_patients_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "exams" / "e1"
    dicom_exam(folder, SPOT, "4711")
    assert read_exam(folder, case="e1").patient == ("4711", None)

    def change(files: list[Path], **attributes: str) -> None:
        for file in files:
            header = pydicom.dcmread(file)
            for keyword, value in attributes.items():
                setattr(header, keyword, value)
            header.save_as(file)

    ct, pet = sorted(folder.glob("CT/**/*.dcm")), sorted(folder.glob("PT/**/*.dcm"))
    change(ct, PatientID="")
    assert read_exam(folder, case="e1").patient == ("4711", None), "a silent header contradicts nothing"
    change(ct, PatientID="4711", IssuerOfPatientID="NORTH")
    assert read_exam(folder, case="e1").patient == ("4711", "NORTH")
    for files, attributes in (
        (ct, {"PatientID": "4712"}),  # between PET and CT
        (pet[7:8], {"PatientID": "4712"}),  # a slice within the PET
        (pet[7:8], {"IssuerOfPatientID": "SOUTH"}),
    ):
        before = {file: file.read_bytes() for file in files}
        change(files, **attributes)
        with pytest.raises(InputError, match=r"e1: .*more than one patient") as caught:
            read_exam(folder, case="e1")
        assert caught.value.reason == "several_patients"
        assert "471" not in str(caught.value)
        for file, content in before.items():
            file.write_bytes(content)


def test_an_issuer_tells_two_patients_of_one_number_apart(tmp_path: Path) -> None:
    for name, issuer in (("e1", "NORTH"), ("e2", "SOUTH"), ("e3", "NORTH")):
        dicom_exam(tmp_path / "exams" / name, SPOT, "7")
        for file in (tmp_path / "exams" / name).rglob("*.dcm"):
            header = pydicom.dcmread(file)
            header.IssuerOfPatientID = issuer
            header.save_as(file)
    labelled(tmp_path / "exams", tmp_path, [(f"e{n}", None, None) for n in (1, 2, 3)])
    found = [row["patient_id"] for row in rows_of(tmp_path / "work").values()]
    assert found == ["7^^^NORTH", "7^^^SOUTH", "7^^^NORTH"]


def test_what_was_read_is_kept_with_whom_it_is_of(exams: Path, tmp_path: Path) -> None:
    labelled(exams, tmp_path, [("e1", None, None)])
    record = kept(tmp_path / "work/exams/e1")
    assert record is not None
    assert record["value"]["patient"] == {"number": "4711", "issuer": None}


def test_numbering_is_not_inferred_from_exams_of_another_day(exams: Path, tmp_path: Path) -> None:
    rows = table(tmp_path / "r.csv", [("e1", None, "2014-03-04"), ("e3", None, "2014-03-04")])
    with pytest.raises(InputError, match=r"study_date_mismatch 2.*check_study_date: false") as caught:
        run_labels(LabelRun(open_export(rows), exams, tmp_path / "w", Site(), in_process, infer_numbering=True))
    assert caught.value.reason == "numbering_unclear"

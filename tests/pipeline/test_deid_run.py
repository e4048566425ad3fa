"""`petground deidentify` from the command line: what comes out, what is left of the identities, going on, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dicom_series as series
import pyarrow.parquet as pq
import pytest
from pydicom import DataElement, dcmread
from pydicom.dataset import Dataset

from petground.labeling.errors import InputError
from petground.pipeline.cli import main
from petground.pipeline.deid.keys import new_key
from petground.pipeline.deid.profile import DEFAULTS, read_profile
from petground.pipeline.deid.run import Deid, Done, run_deid
from petground.pipeline.executors import Outcome, guarded
from petground.pipeline.reports import open_export
from petground.pipeline.schemas import read_table

REPORT = """PATIENT: ZETTERBERG, ANNIKA   MRN: 40817752
Referring physician: Dr. Quillfeather, phone 555-201-3344
COMPARISON: PET/CT of 02/01/2024 at Needlework General Hospital.
FINDINGS: Hypermetabolic focus, SUVmax 40.0, axial slice 2. Annika Zetterberg was informed.
Electronically signed by: Ottoline Brackenridge, MD on 03/05/2024
"""
NEEDLES = ("etterberg", "ETTERBERG", "nnika", "40817752", "uillfeather", "eedlework", "201-3344", "rackenridge", "E17",
           "02/01/2024", "20240305", "2024-03-05")  # fmt: skip


def identity(ds: Dataset, k: int) -> None:
    ds.PatientName, ds.PatientID, ds.AccessionNumber = "Zetterberg^Annika", "40817752", "E17"
    ds.ReferringPhysicianName, ds.InstitutionName = "Quillfeather^X", "Needlework General Hospital"
    ds.SeriesDescription = "PET AC Zetterberg"


def fill(tmp_path: Path) -> Path:
    """A key, a report export of three rows with extra columns, and two exams."""
    new_key(tmp_path / "site.key")
    series.write(tmp_path / "exams" / "E17" / "Zetterberg", "PT", identity)
    series.write(tmp_path / "exams" / "E17", "CT", identity)
    series.write(tmp_path / "exams" / "E18", "PT", identity)
    capture = series.data_set("CT", "1.2.3", 0, series.stored()[0])
    identity(capture, 0)
    capture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    capture.save_as(tmp_path / "exams" / "E17" / "shot.dcm", enforce_file_format=True)
    columns = ("exam_id", "report_text", "patient_id", "study_date", "reading_radiologist", "ward")
    with (tmp_path / "reports.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerow(("E17", REPORT, "40817752", "2024-03-05", "Brackenridge, Ottoline", "7W"))
        writer.writerow(
            (
                "E18",
                "FINDINGS: Focus, SUVmax 40.0, slice 2. brackenridge",
                "40817752",
                "2024-03-05",
                "Brackenridge, O",
                "",
            )
        )
        writer.writerow(("E19", "FINDINGS: none.", "x", "2024-03-05", "", ""))
    return tmp_path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the command has run; not to be changed."""
    place = fill(tmp_path_factory.mktemp("deid"))
    assert run(place, "--sample", "5") == 3, "the exam without images is a failed case"
    return place


def here(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
    """Cases in this process: a worker takes seconds to start."""
    return (guarded(function, case, args) for case, args in cases)


def quick(place: Path, **more: Any) -> Done:
    (place / "out").mkdir(exist_ok=True)
    given = {"profile": DEFAULTS, **more}
    return run_deid(
        Deid(
            open_export(place / "reports.csv"),
            place / "exams",
            place / "out",
            place / "site.key",
            run_cases=here,
            **given,
        )
    )


def run(place: Path, *more: str) -> int:
    return main(
        ["deidentify", "--reports", str(place / "reports.csv"), "--exams", str(place / "exams"),
         "--out", str(place / "out"), "--key", str(place / "site.key"), "--workers", "1", *more]
    )  # fmt: skip


def test_reports_alone_are_cleaned_and_images_of_an_earlier_run_stay(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["deidentify", "--reports", str(place / "reports.csv"), "--out", str(place / "out"), "--key"]
    words += [str(place / "site.key"), "--workers", "1"]
    assert main([*words, "--dry-run"]) == 0
    assert "reports alone" in capsys.readouterr().out
    assert main([*words, "--sample", "1"]) == 0, "no exam is missed where none was asked for"
    rows = list(csv.DictReader((place / "out" / "reports.csv").open(encoding="utf-8")))
    assert len(rows) == 3
    assert not [row for row in rows for needle in ("40817752", "rackenridge", "E17") if needle in str(row)]
    assert (place / "out.sample.html").is_file()
    assert not list((place / "out" / "exams").iterdir())
    (place / "out" / "exams" / rows[0]["exam_id"]).mkdir()
    assert main(words) == 0
    assert (place / "out" / "exams" / rows[0]["exam_id"]).is_dir()
    assert main(["deidentify", "--key", str(place / "site.key"), "--out", str(place / "out")]) == 2


def test_nothing_of_the_identities_is_in_what_leaves(cleaned: Path) -> None:
    out = cleaned / "out"
    for path in out.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [
            needle for needle in NEEDLES if needle.encode() in content or needle in str(path.relative_to(out))
        ], path
    told = pq.read_table(out / "removed.parquet").to_pylist()
    assert not [row for row in told if any(needle in str(row) for needle in NEEDLES)]
    table = {row["exam_id"]: row for row in csv.DictReader((out / "reports.csv").open(encoding="utf-8"))}
    assert len(table) == 3
    assert set(next(iter(table.values()))) == {
        "exam_id",
        "report_text",
        "patient_id",
        "tracer",
        "study_date",
        "scanner",
    }
    assert {folder.name for folder in (out / "exams").iterdir()} < set(table)


def test_a_damaged_name_that_cannot_be_sought_in_the_report_is_told(place: Path) -> None:
    """In E18 the name has a binary VR and an odd length, in E17 bytes that UTF-8 does not hold: neither can be read."""
    for path in sorted((place / "exams").rglob("*.dcm")):
        ds = dcmread(path)
        if "E18" in path.parts:
            ds.add(DataElement("ReferringPhysicianName", "OB", b"Quillfeather"))
            ds.save_as(path, enforce_file_format=True)
            raw = path.read_bytes()
            at = raw.index(b"\x08\x00\x90\x00OB")
            new = b"\x08\x00\x90\x00US" + (11).to_bytes(2, "little") + b"Quillfeathe"
            path.write_bytes(raw[:at] + new + raw[at + 12 + 12 :])
        else:
            ds.SpecificCharacterSet, ds.OperatorsName = "ISO_IR 192", "Larch^Q"
            ds.save_as(path, enforce_file_format=True)
            path.write_bytes(path.read_bytes().replace(b"Larch^Q ", b"L\xe4rch^Q "))
    quick(place)
    summary = json.loads((place / "out" / "removed.json").read_text())
    assert summary["header_values_not_sought"] == {"OperatorsName": 1, "ReferringPhysicianName": 1}
    page = (place / "out" / "removed.html").read_text()
    assert "ReferringPhysicianName in 1 exam" in page
    rows = [row for row in pq.read_table(place / "out" / "removed.parquet").to_pylist() if row["source"] == "header"]
    assert {row["what"] for row in rows} == {"OperatorsName", "ReferringPhysicianName"}
    assert len({row["exam_id"] for row in rows}) == 2


def test_a_name_that_another_file_of_the_exam_tells_whole_is_sought(place: Path) -> None:
    path = next((place / "exams" / "E18").rglob("*.dcm"))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"Quillfeather^X", b"Quill\xe4eather^X"))
    quick(place)
    assert json.loads((place / "out" / "removed.json").read_text())["header_values_not_sought"] == {}


def test_what_is_clinical_stays_and_one_patient_stays_one(cleaned: Path) -> None:
    table = list(csv.DictReader((cleaned / "out" / "reports.csv").open(encoding="utf-8")))
    first = next(row for row in table if row["report_text"].startswith("PATIENT"))
    assert "Hypermetabolic focus, SUVmax 40.0, axial slice 2. [NAME] was informed." in first["report_text"]
    assert "Electronically signed by: [NAME], MD on " in first["report_text"]
    patients = [row["patient_id"] for row in table]
    assert len(set(patients)) == 2
    second = next(row for row in table if row["report_text"].startswith("FINDINGS: Focus"))
    assert second["report_text"].endswith("[NAME]"), "the column of the reading radiologist tells of the name"
    import pydicom

    dates = set()
    for row in (first, second):
        files = sorted((cleaned / "out" / "exams" / row["exam_id"]).rglob("*.dcm"))
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        assert {ds.PatientID for ds in headers} == {row["patient_id"]}
        dates |= {ds.StudyDate for ds in headers} | {row["study_date"].replace("-", "")}
    assert len(dates) == 1, "report and images of a patient move by the same days"


def test_removals_are_counted(cleaned: Path) -> None:
    summary = json.loads((cleaned / "out" / "removed.json").read_text())
    assert summary["files_left_out"] == {"secondary_capture": 1}
    assert summary["files_written"] == {"CT": 6, "PT": 12}
    assert summary["failed"] == {"no_exam": 1}
    assert summary["reports_whose_findings_changed"] == 0
    assert summary["text"]["name"] >= 4
    assert summary["text"]["date"] == 2
    table = pq.read_table(cleaned / "out" / "removed.parquet")
    total = sum(row["count"] for row in table.to_pylist() if row["source"] == "report")
    assert total == sum(summary["text"].values())
    page = (cleaned / "out" / "removed.html").read_text()
    assert "secondary captures" in page
    assert "113107" in page


def test_reports_alone_keep_the_account_of_the_images_that_stay(place: Path) -> None:
    def summary() -> dict[str, Any]:
        return dict(json.loads((place / "out" / "removed.json").read_text()))

    quick(place)
    first = summary()
    for _ in range(2):  # the second has only the first one's word for it
        given = Deid(open_export(place / "reports.csv"), None, place / "out", place / "site.key", DEFAULTS, here)
        assert run_deid(given).tally.kept == 2
        again = summary()
        assert again.pop("exams_with_images_of_an_earlier_run") == 2
        for name in ("files_written", "files_left_out", "attributes"):
            assert again[name] == first[name] != {}
        page = (place / "out" / "removed.html").read_text()
        assert "<b>18</b> image files written" in page
        assert "images of 2 exams are those of an earlier run" in page
    (place / "reports.csv").write_text((place / "reports.csv").read_text().replace("E18", "E99"))
    run_deid(Deid(open_export(place / "reports.csv"), None, place / "out", place / "site.key", DEFAULTS, here))
    assert sum(summary()["files_written"].values()) < 18, "of images that have left OUT nothing is told"
    (place / "out" / "removed.parquet").unlink()
    with pytest.raises(InputError, match=r"1 exams in .* have no account"):
        run_deid(Deid(open_export(place / "reports.csv"), None, place / "out", place / "site.key", DEFAULTS, here))
    quick(place)
    assert summary()["exams_with_images_of_an_earlier_run"] == 0


def test_it_goes_on_where_it_was(place: Path) -> None:
    quick(place)
    before = {p: p.stat().st_mtime_ns for p in (place / "out").rglob("*.dcm")}
    first = (place / "out" / "reports.csv").read_bytes()
    quick(place)
    assert {p: p.stat().st_mtime_ns for p in (place / "out").rglob("*.dcm")} == before
    assert (place / "out" / "reports.csv").read_bytes() == first
    (place / "exams" / "E18" / "new.txt").write_text("x")
    quick(place)
    after = {p: p.stat().st_mtime_ns for p in (place / "out").rglob("*.dcm")}
    assert set(after) == set(before)
    changed = {p.parts[-3] for p in after if after[p] != before[p]}
    assert len(changed) == 1


def test_an_exam_that_left_the_export_leaves_the_result(place: Path) -> None:
    quick(place)
    folders = set((place / "out" / "exams").iterdir())
    lines = (place / "reports.csv").read_text().replace("E18", "E99")
    (place / "reports.csv").write_text(lines)
    quick(place, table="jsonl")
    assert len(set((place / "out" / "exams").iterdir())) == len(folders) - 1
    assert not (place / "out" / "reports.csv").exists()
    assert (place / "out" / "reports.jsonl").exists()


def test_the_map_is_written_where_asked_and_nowhere_else(place: Path) -> None:
    quick(place, keep_map=place / "map.csv")
    assert (place / "map.csv").stat().st_mode & 0o777 == 0o600
    found = {(row["kind"], row["original"]) for row in csv.DictReader((place / "map.csv").open())}
    assert {("exam", "E17"), ("patient", "40817752"), ("study", series.STUDY)} <= found


@pytest.mark.parametrize("flag", ["--keep-map", "--key"])
def test_what_must_not_leave_may_not_lie_in_out(place: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").mkdir()
    inside = place / "out" / "x.key"
    shutil.copy(place / "site.key", inside)
    inside.chmod(0o600)
    assert run(place, flag, str(inside)) == 2
    assert f"{flag} lies in OUT" in capsys.readouterr().err


def test_another_folder_is_not_taken_for_a_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").mkdir()
    (place / "out" / "patients.xlsx").write_text("x")
    assert run(place) == 1
    assert "holds other things" in capsys.readouterr().err


def test_the_sample_is_kept_beside(cleaned: Path) -> None:
    page = cleaned / "out.sample.html"
    assert page.stat().st_mode & 0o777 == 0o600
    assert "ZETTERBERG" in page.read_text()
    assert "must not leave" in page.read_text()


def test_a_dry_run_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--dry-run") == 0
    assert not (place / "out").exists()
    told = capsys.readouterr().out
    assert "secondary_capture 1" in told
    assert "Zetterberg" not in told


def test_a_profile_adds_names_and_unknown_settings_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "deid.yaml").write_text("names: [Focus]\ndate_order: dmy\n")
    quick(place, profile=read_profile(place / "deid.yaml"))
    table = [row["report_text"] for row in csv.DictReader((place / "out" / "reports.csv").open(encoding="utf-8"))]
    assert "02/01/2024" not in "".join(table)
    (place / "deid.yaml").write_text("names: [Focus]\nids: [X1]\nnames: [Roe]\n")
    assert run(place, "--profile", str(place / "deid.yaml")) == 2
    assert "line 3: 'names' stands there a second time" in " ".join(capsys.readouterr().err.split())
    assert run(place, "--profile", str(place / "none.yaml")) == 2
    assert "no profile at" in capsys.readouterr().err
    (place / "deid.yaml").write_text("nmes: [Focus]\n")
    assert run(place, "--profile", str(place / "deid.yaml")) == 2
    assert "did you mean names" in capsys.readouterr().err


def test_label_reads_the_result_as_it_read_the_original(cleaned: Path) -> None:
    """The same labels, SUVs, slices and voxels; only ids differ."""
    for name in ("reports.csv", "out/reports.csv"):
        exams = cleaned / "exams" if name == "reports.csv" else cleaned / "out" / "exams"
        work = cleaned / ("work_" + name.split("/")[0].removesuffix(".csv"))
        main(["label", "--reports", str(cleaned / name), "--exams", str(exams), "--out", str(work), "--workers", "1"])
    columns = ("suv", "slice", "laterality", "status", "reason")
    kept = []
    for work in ("work_reports", "work_out"):
        table = read_table(cleaned / work / "findings.parquet", "findings")
        kept.append(sorted(tuple(str(row[c]) for c in columns) for row in table))
        labels = read_table(cleaned / work / "labels.parquet", "labels")
        kept.append(sorted((row["suv_measured"], row["voxel_i"], row["voxel_j"], row["voxel_k"]) for row in labels))
    assert kept[0] == kept[2]
    assert kept[1] == kept[3]
    assert kept[0]

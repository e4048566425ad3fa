"""Tables of patient weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dicom_series import write

from petground.labeling.errors import InputError
from petground.labeling.site import Site
from petground.pipeline.executors import guarded
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.reports import open_export
from petground.pipeline.schemas import read_table
from petground.pipeline.weights import read_weights


def table(folder: Path, text: str) -> Path:
    path = folder / "weights.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_the_exams_weight_goes_before_the_patients(tmp_path: Path) -> None:
    weights = read_weights(table(tmp_path, "exam_id,patient_id,weight_kg\nE1,P1,70.5\n,P1,68\nE3,,90\n"))
    assert weights.of("E1", "P1") == 70.5
    assert weights.of("E2", "P1") == 68.0
    assert weights.of("E3", None) == 90.0
    assert weights.of("E4", "P9") is None
    assert read_weights(None).of("E1", "P1") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("exam_id,weight\nE1,70\n", "columns exam_id, weight"),
        ("weight_kg\n70\n", "columns weight_kg"),
        ("exam_id,weight_kg\nE1,\n", "line 2: weight_kg is ''"),
        ("exam_id,weight_kg\nE1,70\nE2,7o\n", "line 3: weight_kg is '7o'"),
        ("exam_id,weight_kg\nE1,70000\n", "70000"),
        ("exam_id,weight_kg\nE1,nan\n", "nan"),
        ("exam_id,weight_kg\n,70\n", "neither exam_id nor patient_id"),
        ("patient_id,weight_kg\nP1,70\nP1,71\n", "second weight"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(InputError, match=word) as error:
        read_weights(table(tmp_path, text))
    assert error.value.fix


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table of weights"):
        read_weights(tmp_path / "none.csv")
    (tmp_path / "weights.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"weights\.csv"):
        read_weights(tmp_path / "weights.csv")


def in_process(function: Any, todo: Any) -> Any:
    for case, args in todo:
        yield guarded(function, case, args)


def test_label_reads_an_exam_that_lost_its_weight(tmp_path: Path) -> None:
    for name in ("E1", "E2"):
        write(tmp_path / "exams" / name, edit=lambda ds, k: delattr(ds, "PatientWeight"))
    reports, out = tmp_path / "reports.csv", tmp_path / "work"
    reports.write_text(
        'exam_id,patient_id,report_text\nE1,P1,"FINDINGS: Hypermetabolic node, SUVmax 40.0, axial slice 2."\n'
        'E2,P2,"FINDINGS: Hypermetabolic node, SUVmax 40.0, axial slice 2."\n'
    )

    def run(text: str | None) -> dict[str, dict[str, Any]]:
        weights = read_weights(None if text is None else table(tmp_path, text))
        run_labels(LabelRun(open_export(reports), tmp_path / "exams", out, Site(), in_process, weights=weights))
        return {row["exam_id"]: row for row in read_table(out / "exams.parquet", "exams")}

    exams = run(None)
    assert {row["reason"] for row in exams.values()} == {"no_suv"}
    assert "PatientWeight (0010,1030) is missing" in exams["E1"]["detail"]
    exams = run("patient_id,weight_kg\nP1,80\n")
    assert exams["E1"]["suv_rule"] == "BQML/START (weight from the site's table)"
    assert exams["E1"]["suv_factor"] == pytest.approx(4e-4)
    assert (exams["E2"]["status"], exams["E2"]["reason"]) == ("failed", "no_suv")
    record = out / "exams" / "E1" / "stage.json"
    before = record.stat().st_mtime_ns
    assert run("patient_id,weight_kg\nP1,80\n")["E1"]["suv_factor"] == pytest.approx(4e-4)
    assert record.stat().st_mtime_ns == before  # nothing changed, nothing is read again
    assert run("patient_id,weight_kg\nP1,40\n")["E1"]["suv_factor"] == pytest.approx(2e-4)

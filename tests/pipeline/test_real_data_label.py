"""A public exam as it left the scanner: DICOM and a one-line report in, label, page, SEG and SR out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from petground.pipeline import cli
from petground.pipeline.nifti import read_nifti
from petground.pipeline.schemas import read_table


@pytest.fixture(scope="module")
def work(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acrin")
    (folder / "exams").mkdir()
    (folder / "exams" / "acrin_042").symlink_to(shared_data("acrin_042"))
    report = "FINDINGS: Intensely hypermetabolic focus, SUVmax 51.1, axial slice 125."
    (folder / "reports.csv").write_text(f'exam_id,report_text\nacrin_042,"{report}"\n')
    words = ["--reports", str(folder / "reports.csv"), "--exams", str(folder / "exams"), "--out", str(folder / "work")]
    assert cli.main(["label", *words, "--workers", "1"]) == 0
    return folder / "work"


def test_the_label_is_made_from_value_and_slice(work: Path) -> None:
    (exam,) = read_table(work / "exams.parquet", "exams")
    assert exam["suv_rule"].startswith("BQML/START")
    assert exam["suv_factor"] == pytest.approx(0.00042111007, rel=1e-6)
    assert "PET NAC" in exam["pet_series"], "the uncorrected series is refused by name"
    (label,) = read_table(work / "labels.parquet", "labels")
    assert label["suv_measured"] == pytest.approx(51.1, abs=0.05)
    assert label["slice_measured"] == label["slice_reported"] == 125
    mask = read_nifti(work / label["mask_path"], "label")
    pet = read_nifti(work / exam["pet_path"], "SUVbw")
    hottest = np.unravel_index(int(pet.array.argmax()), pet.shape)
    assert tuple(int(v) for v in hottest) == (label["voxel_i"], label["voxel_j"], label["voxel_k"])
    assert mask.array[hottest] == 1


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_seg_and_sr_of_it_pass_dciodvfy(work: Path, tmp_path: Path) -> None:
    assert cli.main(["review", "export", str(work), "--out", str(tmp_path / "review")]) == 0
    assert (tmp_path / "review" / "acrin_042.html").stat().st_size < 3 << 20
    for name in ("seg.dcm", "sr.dcm"):
        file = tmp_path / "review" / "acrin_042" / name
        told = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        errors = [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]
        assert errors == []

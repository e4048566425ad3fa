"""`petground label` on small exams: every mention has a fate, a second run does nothing, a killed run goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_exams import NZ, exam, report, run, tables, write_rows

from petground.labeling.errors import InputError
from petground.labeling.site import Site
from petground.pipeline import cli, nifti
from petground.pipeline.commands.label import label
from petground.pipeline.nifti import read_nifti


@pytest.fixture
def export(tmp_path: Path) -> tuple[Path, Path]:
    """Three good exams and one of each kind of trouble."""
    rows = [
        ("good1", report(7.3, 41)),
        ("good2", report(5.2, 20, "right")),
        ("good3", report(9.8, 30)),
        ("nopet", report(6.6, 30)),
        ("broken", report(6.6, 30)),
        ("garbled", report(6.6, 30)),
        ("missing", report(6.6, 30)),
        ("nothing", "FINDINGS: No hypermetabolic lesion."),
        ("silent", " "),
        ("twice", report(6.6, 30)),
        ("twice", report(7.7, 30)),
        ("lost", report(15.5, 30)),
    ]
    exams = tmp_path / "exams"
    exam(exams / "good1", (7.3, (30, 20, 41)), (4.0, (10, 20, 41)))
    exam(exams / "good2", (5.2, (9, 18, 20)))
    exam(exams / "good3", (9.8, (30, 20, 30)))
    exam(exams / "lost", (9.8, (30, 20, 30)))
    (exams / "nopet").mkdir()
    (exams / "nopet" / "readme.txt").write_text("no images here")
    (exams / "broken").mkdir()
    (exams / "broken" / "pet.nii.gz").write_bytes(b"\x1f\x8b not a NIfTI")
    (exams / "garbled" / "PT").mkdir(parents=True)
    (exams / "garbled" / "PT" / "1.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff cut off")
    return write_rows(tmp_path / "reports.csv", rows), exams


def words(export: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return ["label", "--reports", str(export[0]), "--exams", str(export[1]), "--out", str(out), *more]


def times(out: Path) -> dict[str, int]:
    made = [*out.rglob("stage.json"), *out.glob("extract/*.parquet")]
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in made}


def test_every_mention_has_a_fate_and_bad_cases_stop_no_other(export: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "work"
    assert cli.main(words(export, out)) == 3
    found = tables(out)

    exams = {row["exam_id"]: (row["status"], row["reason"]) for row in found["exams"]}
    assert exams == {
        "good1": ("ok", None),
        "good2": ("ok", None),
        "good3": ("ok", None),
        "lost": ("ok", None),
        "nopet": ("failed", "no_pet"),
        "broken": ("failed", "unreadable"),
        "garbled": ("failed", "unreadable"),
        "missing": ("failed", "no_exam"),
        "nothing": ("ok", "nothing_to_label"),
        "silent": ("failed", "no_report_text"),
        "twice": ("failed", "duplicate_exam_id"),
    }
    assert all(row["detail"] for row in found["exams"] if row["status"] == "failed"), "each failure says why"

    fates = {(row["exam_id"], row["suv"]): (row["status"], row["reason"]) for row in found["findings"]}
    assert fates["good1", 7.3] == ("positive", None)
    assert fates["good1", 2.9] == ("excluded", "reference")
    assert fates["lost", 15.5] == ("excluded", "no_match")
    assert fates["broken", 6.6] == ("failed", "unreadable")
    assert all(bool(row["reason"]) != (row["status"] == "positive") for row in found["findings"])
    labelled = {(row["exam_id"], row["finding_id"]) for row in found["labels"]}
    positive = {(r["exam_id"], r["finding_id"]) for r in found["findings"] if r["status"] == "positive"}
    assert labelled == positive
    assert {name for name, _ in labelled} == {"good1", "good2", "good3"}

    for row in found["labels"]:
        mask = read_nifti(out / row["mask_path"], "label")
        assert mask.array[row["voxel_i"], row["voxel_j"], row["voxel_k"]] == 1
        assert row["slice_measured"] == row["slice_reported"] == NZ - row["voxel_k"]
        assert row["suv_measured"] == pytest.approx(row["suv_reported"], abs=0.05)
        # The reported side is where the mask lies: RAS+ x grows to the patient's right.
        centre_x_mm = mask.to_world_mm(np.argwhere(mask.array > 0).mean(axis=0))[0]
        assert (centre_x_mm < 0) == (row["laterality"] == "left")


def test_a_second_run_does_nothing_and_a_new_site_does_not_read_images_again(
    export: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "work"
    run(export, out)
    first, made = tables(out), times(out)
    run(export, out)
    assert tables(out) == first
    assert times(out) == made
    run(export, out, Site(suv_minimum=6.0))
    changed = {name.split("/")[0] for name, when in times(out).items() if made.get(name) != when}
    assert changed == {"labels"}, "neither reading reports nor reading images depends on the site"
    assert json.loads((out / "site.json").read_text())["suv_minimum"] == 6.0
    reasons = {row["exam_id"]: row["reason"] for row in tables(out)["findings"] if row["suv"] == 5.2}
    assert reasons == {"good2": "suv_below_minimum"}


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_goes_on_to_the_same_tables(export: tuple[Path, Path], tmp_path: Path) -> None:
    run(export, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "petground.pipeline.cli", *words(export, out, "--workers", "1")]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(out.glob("exams/*/stage.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = times(out)
    assert kept
    assert not (out / "labels.parquet").exists(), "it was killed before the end"
    assert cli.main(words(export, out)) == 3
    assert {name: when for name, when in times(out).items() if name in kept} == kept
    assert tables(out) == tables(tmp_path / "whole")
    assert not list(out.rglob(".*.part")), "nothing half-written is left"


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT to a group")
def test_ctrl_c_says_how_to_go_on_and_leaves_nothing_half_written(export: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "petground.pipeline.cli", *words(export, out, "--workers", "1")]
    process = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        # what runs in the background ignores Ctrl-C, and so would all that it starts
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    deadline = time.monotonic() + 60
    # the first stage is done, and the others take less than a tenth of a second
    while not list(out.glob("extract/*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and its workers
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the same command goes on" in told
    assert "Traceback" not in told
    assert not list(out.glob("*/.*.part")), "nothing half-written"
    assert not (out / "labels.parquet").exists()


def test_dry_run_writes_nothing(export: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(export, tmp_path / "work", "--dry-run")) == 0
    assert not (tmp_path / "work").exists()
    told = capsys.readouterr().out
    assert "12 reports, 3 of them unusable" in told
    assert "from the head, from 1" in told
    assert "to do: read 9 reports; which exams have something to label is known when they are read" in told
    assert "have something to label:" not in told
    run(export, tmp_path / "work")
    assert cli.main(words(export, tmp_path / "work", "--dry-run")) == 0
    told = capsys.readouterr().out
    assert "of the 9 reports that were read before, 8 have something to label: read the images of 4" in told
    assert "to do: read" not in told


def test_two_runs_on_one_folder_are_refused(
    export: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    out = tmp_path / "work"
    out.mkdir()
    with FileLock(out / ".lock"):
        assert cli.main(words(export, out)) == 1
    assert "another run is writing" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_with_a_word_and_keeps_what_is_done(
    export: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "work"
    real = nifti._save

    def full(image: Any, path: Path, packed: bool = True) -> None:
        if "good2" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(image, path, packed)

    monkeypatch.setattr(nifti, "_save", full)
    with pytest.raises(InputError, match="no space left"):
        run(export, out)
    assert not (out / "labels.parquet").exists()
    assert (out / "exams" / "good1" / "pet.nii.gz").exists()
    assert not [p for p in out.rglob("*") if p.name.startswith(".")], "nothing half-written"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("site.yaml", "slice_orgin: feet", "did you mean slice_origin"),
        ("site.yaml", "- a list", "key: value"),
        ("site.yaml", "a: [", "not YAML"),
        ("none.yaml", None, "no site file"),
    ],
)
def test_a_bad_site_file_is_named(
    export: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    said: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert cli.main(words(export, tmp_path / "work", "--site", str(tmp_path / name))) == 2
    assert said in capsys.readouterr().err


def test_no_report_text_in_what_is_logged_or_told(
    export: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.main(words(export, tmp_path / "work"))
    told = "".join(capfd.readouterr())
    assert "axillary" not in told
    exams = tables(tmp_path / "work")["exams"]
    assert "axillary" not in repr(exams)
    assert "axillary" not in (tmp_path / "work" / "summary.json").read_text()


@pytest.mark.parametrize(
    ("content", "said", "code"),
    [
        (b"exam,report_text\ne1,text\n", "rename 'exam' to 'exam_id'", 1),
        (None, "no report export", 2),
    ],
)
def test_a_wrong_column_or_missing_file_is_one_line(
    export: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    said: str,
    code: int,
) -> None:
    bad = tmp_path / "bad.csv"
    if content is not None:
        bad.write_bytes(content)
    assert cli.main(words((bad, export[1]), tmp_path / "work")) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "work").exists(), "nothing is written"


def test_images_and_files_of_others_are_never_deleted(tmp_path: Path) -> None:
    """The images may lie beside the reports, in a folder called exams, and --out be that very place."""
    images = tmp_path / "data/exams/e1"
    images.mkdir(parents=True)
    (images / "1.dcm").write_bytes(b"x")
    (tmp_path / "data/reports.csv").write_text('exam_id,report_text\ne1,"Left node, SUVmax 5.2, slice 3."\n')
    for out in ("data", "data/exams", "data/exams/e1/work"):
        with pytest.raises(InputError, match="among the images"):
            label(tmp_path / "data/reports.csv", tmp_path / "data/exams", tmp_path / out)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "data")
    with pytest.raises(InputError, match="among the images"):
        label(tmp_path / "data/reports.csv", tmp_path / "data/exams", link)
    work = tmp_path / "work"
    for name in ("labels/mine", "extract/mine", "exams/e1"):
        (work / name).mkdir(parents=True)
        (work / name / "note.txt").write_text("mine")
    label(tmp_path / "data/reports.csv", tmp_path / "data/exams", work, workers=1)
    assert (images / "1.dcm").read_bytes() == b"x"
    for name in ("labels/mine", "extract/mine", "exams/e1"):
        assert (work / name / "note.txt").read_text() == "mine"


def test_the_series_that_a_report_names_is_in_the_table(tmp_path: Path) -> None:
    text = (
        "FINDINGS: Hypermetabolic left axillary node, SUVmax 7.3 (series 4, image 19). Right node, SUVmax 5.1, slice 7."
    )
    exam(tmp_path / "exams" / "e1", (7.3, (30, 20, 41)))
    reports = write_rows(tmp_path / "r.csv", [("e1", text)])
    run((reports, tmp_path / "exams"), tmp_path / "work")
    rows = tables(tmp_path / "work")["findings"]
    assert [(row["suv"], row["slice"], row["series"]) for row in rows] == [(7.3, 19, 4), (5.1, 7, None)]

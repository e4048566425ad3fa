"""`petground ground` with a stand-in for the network: what is written, where it lies, and what is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from ground_exam import LEFT_MM, RIGHT_MM, SideModule
from PIL import Image

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.volume import same_grid
from petground.pipeline.commands import ground as command
from petground.pipeline.commands.ground import Asked, ground
from petground.pipeline.nifti import read_nifti
from petground.training.grid import GridSpec

REPORT = """FINDINGS:
There is an enlarged left inguinal node with SUVmax of 8.0 on axial slice 30.
A right axillary node shows SUV max 6.0 (slice 10).
Liver background SUVmean 2.1.

IMPRESSION: As above.
"""


def ask(monkeypatch: pytest.MonkeyPatch, *asked: Asked) -> None:
    monkeypatch.setattr(command, "_asked", lambda text, report, site: list(asked))


def test_masks_lie_on_the_pet_grid_on_the_side_that_was_named(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(
        monkeypatch,
        Asked("f001", "left node, SUVmax 8.0, slice 30", "left node", 8.0, 30),
        Asked("f004", "right node, SUVmax 6.0, slice 10", "right node", 6.0, 10),
        Asked("f005", "something else, SUVmax 3.3, slice 12", "something else", 3.3, 12),
    )
    out = tmp_path / "out"
    assert ground(exam, tmp_path / "x.ckpt", out, text="x") == 0
    pet = read_nifti(exam / "pet.nii.gz", "SUVbw")
    for name, centre in (("f001", LEFT_MM), ("f004", RIGHT_MM)):
        mask = read_nifti(out / f"{name}.nii.gz", "label")
        assert same_grid(pet, mask)
        assert np.abs(mask.to_world_mm(np.argwhere(mask.array > 0)).mean(axis=0) - centre).max() < 4
    assert not read_nifti(out / "f005.nii.gz", "label").array.any()
    rows = {row["finding_id"]: row for row in json.loads((out / "findings.json").read_text())["findings"]}
    assert (rows["f001"]["suv_measured"], rows["f001"]["slice_measured"]) == (8.0, 30)  # z 360 is k = 10 of 40
    assert (rows["f004"]["suv_measured"], rows["f004"]["slice_measured"]) == (6.0, 10)
    assert rows["f001"]["found"]
    assert rows["f001"]["presence"] > 0.5
    assert not rows["f005"]["found"]
    assert rows["f005"]["suv_measured"] is None
    with (out / "findings.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["finding_id"] for row in csv.DictReader(stream)] == ["f001", "f004", "f005"]
    for name in ("f001.png", "f004.png", "f005.png", "overview.png"):
        assert np.asarray(Image.open(out / name)).shape[0] > 200
    assert module.read == ["left node", "right node", "something else"], "the model reads prompts, in one call"


def test_an_empty_mask_is_said_plainly(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, Asked("f002", "a secret sentence", "something", None, None))
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="x")
    said = " ".join(capsys.readouterr().out.split())
    assert "f002: the model does not see what this sentence says; its mask is empty." in said
    assert "secret" not in said


def test_masks_of_an_earlier_report_do_not_stay(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ask(monkeypatch, Asked("f001", "", "left", None, None), Asked("f009", "", "right", None, None))
    ground(exam, tmp_path / "x.ckpt", out, text="x")
    (out / "notes.txt").write_text("mine")
    ask(monkeypatch, Asked("f001", "", "left", None, None))
    ground(exam, tmp_path / "x.ckpt", out, text="x")
    found = {p.name for p in out.iterdir()}
    ours = {"f001.nii.gz", "f001.png", "overview.png", "findings.csv", "findings.json"}
    assert {name for name in found if not name.startswith(".")} == {*ours, "notes.txt"}


def test_a_run_that_ends_early_leaves_the_earlier_answer(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ask(monkeypatch, Asked("f001", "", "left", None, None), Asked("f009", "", "right", None, None))
    ground(exam, tmp_path / "x.ckpt", out, text="x")
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "overview_picture", killed)
        with pytest.raises(KeyboardInterrupt):
            ground(exam, tmp_path / "x.ckpt", out, text="x")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before, "nothing is half replaced, nothing left over"
    (out / ".part").mkdir()
    (out / ".part" / "f077.nii.gz").write_bytes(b"of a run that was killed")
    ask(monkeypatch, Asked("f001", "", "left", None, None))
    ground(exam, tmp_path / "x.ckpt", out, text="x")
    assert not (out / "f009.nii.gz").exists()
    assert not (out / "f009.png").exists()
    assert not (out / ".part").exists()
    assert not (out / "f077.nii.gz").exists()


def test_files_of_others_are_never_taken_away(exam: Path, module: SideModule, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "f2.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds f2\.png"):
        ground(exam, tmp_path / "x.ckpt", out, text="left node")
    assert (out / "f2.png").read_bytes() == b"mine"


def test_a_folder_is_written_by_one_run_at_a_time(exam: Path, module: SideModule, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(InputError, match="another run"):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="left node")


def test_a_sentence_of_numbers_is_not_asked_of_the_model(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("SUVmax 8.0, slice 30.", "8.0 (30)"):
        with pytest.raises(InputError, match="nothing but numbers"):
            ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text)
    ask(monkeypatch, Asked("f001", "SUVmax 8.0.", "", 8.0, 30), Asked("f002", "right", "right", None, None))
    assert ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="x") == 3
    assert module.read == ["right"]
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert (rows[0]["problem"], rows[0]["mask_path"]) == ("nothing but numbers in the sentence", None)
    assert rows[1]["suv_measured"] == 6.0
    assert not (tmp_path / "out" / "f001.nii.gz").exists()
    assert "f001: nothing but numbers" in capsys.readouterr().out


def test_slices_beyond_the_grid_are_told(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="left node")
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["not_looked_at"] == []
    monkeypatch.setattr(SideModule, "grid", GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(16, 24, 24)))
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="left node")
    (run,) = json.loads((tmp_path / "out" / "findings.json").read_text())["not_looked_at"]
    assert run["voxel_k"][0] == 0, "the feet are cut off"
    assert run["slices"][1] == 40, "counted from the head"
    assert run["z_mm"] == [300.0, 300.0 + 6 * run["voxel_k"][1]]
    assert 530 - 128 - 12 < run["z_mm"][1] < 550 - 128 + 12, "16 voxels of 8 mm from above the head (z 534)"
    first = run["slices"][0]
    assert f"slices {first} to 40 lie outside" in " ".join(capsys.readouterr().out.split())


def test_a_margin_around_the_slice_is_refused_where_no_window_is_left_out(
    exam: Path, module: SideModule, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="looks at the whole exam"):
        ground(exam, Path("x.ckpt"), tmp_path / "out", text="left node", slice_margin_mm=6.0)
    module.prompt = "all"
    ground(exam, Path("x.ckpt"), tmp_path / "out", text="left node, SUVmax 8.0, slice 30")
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["slice_margin_mm"] is None


def test_an_answer_without_a_ct_says_so(
    exam: Path, module: SideModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for there in (True, False):
        ground(exam, Path("x.ckpt"), tmp_path / "out", text="left node")
        assert json.loads((tmp_path / "out" / "findings.json").read_text())["ct_read"] == there
        assert ("no CT was read" in capsys.readouterr().out) != there
        (exam / "ct.nii.gz").unlink(missing_ok=True)


def test_one_of_text_and_report_is_needed(exam: Path, tmp_path: Path) -> None:
    for wrong in ({}, {"text": "a", "report": tmp_path / "r.txt"}, {"text": "  "}):
        with pytest.raises(ConfigError, match="--text"):
            ground(exam, tmp_path / "x.ckpt", tmp_path / "out", **wrong)  # type: ignore[arg-type]


def test_answers_do_not_lie_among_the_images(exam: Path, module: SideModule, tmp_path: Path) -> None:
    before = sorted(exam.rglob("*"))
    for out in (exam, exam / "out" / "deep", tmp_path / "x" / ".." / exam.name / "out"):
        with pytest.raises(InputError, match="among the images of exam_7"):
            ground(exam, tmp_path / "x.ckpt", out, text="Avid left node.")
    assert sorted(exam.rglob("*")) == before


def test_missing_exam_and_unreadable_reports_are_named(exam: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no report"):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=tmp_path / "none.txt")
    report = tmp_path / "r.txt"
    for content, said in ((b" \n", "empty"), (b"\xff\xfe\x00", "UTF-8"), (b"All is well.", "no current lesion")):
        report.write_bytes(content)
        with pytest.raises(InputError, match=said):
            ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=report)
    with pytest.raises(InputError, match="no exam"):
        ground(tmp_path / "nowhere", tmp_path / "x.ckpt", tmp_path / "out", text="left node")
    with pytest.raises(InputError, match="no checkpoint"):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="left node")


def test_a_table_of_reports_is_not_read_as_one(exam: Path, module: SideModule, tmp_path: Path) -> None:
    report = tmp_path / "reports.txt"
    for header in ("exam_id,report_text", '"Accession";"Report"', "mrn\taccession\ttext", '{"exam_id": "E17",'):
        report.write_text(f"{header}\nE17,{REPORT}")
        with pytest.raises(ConfigError, match=r"names of columns.*one report as text"):
            ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=report)
    for name in ("r.csv", "r.CSV", "r.tsv", "r.jsonl", "r.ndjson", "r.json", "r.parquet"):
        (tmp_path / name).write_text(REPORT)
        with pytest.raises(ConfigError, match=r"table.*one report as text"):
            ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=tmp_path / name)
    assert not (tmp_path / "out").exists()
    for header in ("Accession: 4711, MRN: 12", "Report", "PET/CT, text of the report; exam of 3 May"):
        report.write_text(f"{header}\n{REPORT}")
        assert ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=report) == 0


def test_a_whole_report_gives_a_mask_per_positive_sentence(exam: Path, module: SideModule, tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    report.write_text(REPORT)
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=report)
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert [(row["suv_reported"], row["slice_reported"]) for row in rows] == [(8.0, 30), (6.0, 10)]
    assert [(row["suv_measured"], row["slice_measured"]) for row in rows] == [(8.0, 30), (6.0, 10)]
    assert not any(number in prompt for prompt in module.read for number in ("8.0", "30", "6.0", "10"))


def test_one_sentence_is_stripped_of_its_numbers_before_the_model_reads_it(
    exam: Path, module: SideModule, tmp_path: Path
) -> None:
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text="Left inguinal node, SUVmax 8.0, slice 30.")
    (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert (row["suv_reported"], row["slice_reported"]) == (8.0, 30)
    (prompt,) = module.read
    assert "eft inguinal node" in prompt
    assert "8.0" not in prompt
    assert "30" not in prompt

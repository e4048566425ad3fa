"""`petground ground --peer voxtell` with a stand-in for the package, in an interpreter of its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_voxtell import interpreter, make_peer

from petground.labeling.errors import ConfigError, GeometryError, InputError
from petground.labeling.volume import Volume, same_grid
from petground.pipeline.cli import FAILURE, OK, USAGE, main
from petground.pipeline.commands.ground import ground
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.peers import voxtell
from petground.pipeline.peers.voxtell import VoxTell, ask
from petground.pipeline.schemas import write_table

LEFT_MM, RIGHT_MM = np.array([-40.0, 2.0, 360.0]), np.array([36.0, 10.0, 480.0])
REPORT = """FINDINGS:
There is an enlarged left inguinal node with SUVmax of 8.0 on axial slice 30.
A right axillary node shows SUV max 6.0 (slice 10).

IMPRESSION: As above.
"""
GRIDS = {
    "RAS": np.array([[4, 0, 0, -80], [0, 4, 0, -72], [0, 0, 6, 300]]),
    "LPS": np.array([[-4, 0, 0, 80], [0, -4, 0, 72], [0, 0, 6, 300]]),
    "LAI": np.array([[-4, 0, 0, 80], [0, 4, 0, -72], [0, 0, -6, 534]]),
    "PRS": np.array([[0, 4, 0, -80], [-4, 0, 0, 72], [0, 0, 6, 300]]),
}


def make_exam(folder: Path, turned: str = "LPS", *, ct: bool = True) -> Path:
    """A body with a lesion low at the left (SUV 8) and one high at the right (SUV 6); bone of 600 HU at both."""
    affine = np.vstack([GRIDS[turned], [0, 0, 0, 1]]).astype(float)
    shape = (37, 42, 40) if turned == "PRS" else (42, 37, 40)
    pet = Volume(np.zeros(shape, dtype=np.float32), affine, "SUVbw")
    _paint(pet, 5.0, 8.0, 6.0, 1.0)
    write_nifti(folder / "pet.nii.gz", pet)
    if ct:
        fine = np.diag([-3.0, 3.0, -3.0, 1.0])
        fine[:3, 3] = (82.0, -70.0, 530.0)
        hu = Volume(np.full((54, 48, 78), -1000, dtype=np.float32), fine, "HU")
        _paint(hu, 600, 600, 600, 40)
        write_nifti(folder / "ct.nii.gz", Volume(hu.array.astype(np.int16), fine, "HU"))
    return folder


def _paint(volume: Volume, ball: float, left: float, right: float, body: float) -> None:
    mm = volume.to_world_mm(np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1))
    volume.array[(np.abs(mm[..., 0]) < 64) & (np.abs(mm[..., 1]) < 50)] = body
    for centre, top in ((LEFT_MM, left), (RIGHT_MM, right)):
        volume.array[np.linalg.norm(mm - centre, axis=-1) < 18] = ball
        volume.array[tuple(np.rint(volume.to_index(centre)).astype(int))] = top


def _asked(exam: Path, out: Path, python: Path, **more: Any) -> int:
    report = out.parent / "report.txt"
    report.write_text(REPORT)
    return ground(exam, None, out, report=report, peer="voxtell", peer_python=python, **more)


@pytest.mark.parametrize("turned", GRIDS)
def test_masks_come_back_on_the_side_that_was_named_whatever_the_grid(turned: str, tmp_path: Path) -> None:
    python, log = make_peer(tmp_path / "peer")
    exam = make_exam(tmp_path / "exam_7", turned)
    assert _asked(exam, tmp_path / "out", python) == OK
    pet = read_nifti(exam / "pet.nii.gz", "SUVbw")
    for name, centre in (("f001", LEFT_MM), ("f002", RIGHT_MM)):
        mask = read_nifti(tmp_path / "out" / f"{name}.nii.gz", "label")
        assert same_grid(pet, mask)
        middle = mask.to_world_mm(np.argwhere(mask.array > 0)).mean(axis=0)
        assert np.abs(middle - centre).max() < 3
    told = json.loads((tmp_path / "out" / "findings.json").read_text())
    rows = told["findings"]
    assert [(row["suv_measured"], row["slice_measured"]) for row in rows] == [(8.0, 30), (6.0, 10)]
    assert [row["presence"] for row in rows] == [None, None], "it tells none"
    assert told["peer"] == "voxtell"
    assert (told["image"], told["unit"], told["model"]) == ("pet", "SUVbw", "its own choice")
    assert told["versions"]["voxtell"] == "0.1.2"
    assert "checkpoint" not in told
    heard = json.loads(log.read_text())
    assert heard["range"] == [0.0, 8.0], "SUVbw, as it is"
    assert not any(character.isdigit() for prompt in heard["prompts"] for character in prompt)
    assert heard["prompts"][0].startswith("there is an enlarged left inguinal node")
    assert heard["precomputed"] is False


def test_the_ct_is_read_on_its_own_grid(tmp_path: Path) -> None:
    python, log = make_peer(tmp_path / "peer", above=300.0)
    exam = make_exam(tmp_path / "exam_7")
    assert _asked(exam, tmp_path / "out", python, peer_image="ct") == OK
    assert json.loads(log.read_text())["range"] == [-1000.0, 600.0], "HU, as it is"
    for name, centre in (("f001", LEFT_MM), ("f002", RIGHT_MM)):
        mask = read_nifti(tmp_path / "out" / f"{name}.nii.gz", "label")
        assert same_grid(read_nifti(exam / "pet.nii.gz", "SUVbw"), mask)
        assert np.abs(mask.to_world_mm(np.argwhere(mask.array > 0)).mean(axis=0) - centre).max() < 3
        ball_ml = 4 / 3 * np.pi * 1.8**3
        assert mask.array.sum() * mask.voxel_ml == pytest.approx(ball_ml, rel=0.15)
    told = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert (told["image"], told["unit"]) == ("ct", "HU")
    assert told["findings"][0]["suv_measured"] == 8.0, "measured on the PET"
    (exam / "ct.nii.gz").unlink()
    with pytest.raises(InputError, match="no CT for VoxTell"):
        _asked(exam, tmp_path / "out", python, peer_image="ct")


def test_what_it_does_not_see_is_an_empty_mask_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python, _ = make_peer(tmp_path / "peer")
    exam = make_exam(tmp_path / "exam_7", ct=False)
    assert ground(exam, None, tmp_path / "out", text="Hepatic lesion.", peer="voxtell", peer_python=python) == OK
    assert not read_nifti(tmp_path / "out" / "f001.nii.gz", "label").array.any()
    said = " ".join(capsys.readouterr().out.split())
    assert "f001: voxtell does not see what this sentence says; its mask is empty." in said
    assert "windows: 2 of 2" in said


def test_the_first_release_is_understood_and_no_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PYTHONPATH", "/of/the/parent")
    python, log = make_peer(tmp_path / "peer", "0.1.0")
    model = tmp_path / "voxtell_v1.1"
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "fold_0/checkpoint_final.pth"):
        (model / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    beside = {"peer_model": Path(model.name), "device": "cpu"}
    assert _asked(make_exam(tmp_path / "exam_7"), tmp_path / "out", python.relative_to(tmp_path), **beside) == OK
    heard = json.loads(log.read_text())
    assert heard["model_dir"] == str(model)
    assert heard["path"] == str(tmp_path / "peer" / "lib")
    told = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert (told["model"], told["device"], told["versions"]["voxtell"]) == ("voxtell_v1.1", "cpu", "0.1.0")
    assert not list((tmp_path / "temporary").iterdir()), "the sentences were in there"


def test_without_the_package_the_way_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = make_exam(tmp_path / "exam_7", ct=False)
    flags = ["ground", "--exam", str(exam), "--out", str(tmp_path / "out"), "--text", "left node", "--peer", "voxtell"]
    bare = interpreter(tmp_path / "python", tmp_path)
    assert main([*flags, "--peer-python", str(bare)]) == USAGE
    said = capsys.readouterr().err
    assert f"'voxtell' is not installed for {bare}" in said
    assert "pip install voxtell" in said
    assert not (tmp_path / "out").exists(), "an earlier answer would not have been lost"
    nothing = tmp_path / "no_program"
    nothing.write_text("")
    assert main([*flags, "--peer-python", str(nothing)]) == USAGE
    assert "cannot be run" in capsys.readouterr().err
    nothing.write_text("#!/bin/sh\nexit 3\n")
    nothing.chmod(0o755)
    assert main([*flags, "--peer-python", str(nothing)]) == USAGE
    assert "no Python that runs (code 3)" in capsys.readouterr().err
    assert main([*flags, "--peer-model", str(tmp_path)]) == USAGE
    assert "holds no plans.json" in capsys.readouterr().err


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    exam, checkpoint = make_exam(tmp_path / "exam_7", ct=False), tmp_path / "x.ckpt"
    checkpoint.write_bytes(b"")
    for wrong in (
        {"checkpoint": None},
        {"checkpoint": checkpoint, "peer": "voxtell"},
        {"checkpoint": checkpoint, "peer_image": "ct"},
        {"checkpoint": None, "peer": "voxtell", "slice_margin_mm": 20.0},
    ):
        with pytest.raises(ConfigError, match=r"--(checkpoint|peer|slice-margin-mm)"):
            ground(exam, out=tmp_path / "out", text="left node", **wrong)  # type: ignore[arg-type]


def test_failures_tell_the_cause_and_no_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = make_exam(tmp_path / "exam_7", ct=False)
    flags = ["ground", "--exam", str(exam), "--out", str(tmp_path / "out"), "--peer", "voxtell"]
    python, _ = make_peer(tmp_path / "a")
    text = "A failing left ventricle of Mr Secret"
    assert main([*flags, "--text", text, "--peer-python", str(python)]) == FAILURE
    said = " ".join(capsys.readouterr().err.split())
    assert "exam_7: VoxTell failed: RuntimeError: CUDA out of memory while it read [prompt]" in said
    assert "16 GB" in said
    assert "ecret" not in said
    python, _ = make_peer(tmp_path / "b", crash=True)
    assert main([*flags, "--text", "left node", "--peer-python", str(python)]) == FAILURE
    assert "VoxTell was killed by signal 9 before it answered" in capsys.readouterr().err
    python, _ = make_peer(tmp_path / "c", cut=True)
    assert main([*flags, "--text", "left node", "--peer-python", str(python)]) == FAILURE
    assert "masks (1, 39, 37, 42) for 1 prompts on a grid of (40, 37, 42)" in capsys.readouterr().err


def test_a_mask_of_another_grid_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pet = read_nifti(make_exam(tmp_path / "exam_7", ct=False) / "pet.nii.gz", "SUVbw")
    shifted = pet.affine + np.array([[0, 0, 0, 1.5]] + [[0, 0, 0, 0]] * 3)

    def child(peer: VoxTell, folder: Path, case: str, tick: Any) -> dict[str, Any]:
        write_nifti(folder / "masks" / "0.nii.gz", Volume((pet.array > 4).astype(np.uint8), shifted, "label"))
        return {}

    monkeypatch.setattr(voxtell, "_child", child)
    with pytest.raises(GeometryError, match="exam_7: a mask of VoxTell is not on the image"):
        ask(VoxTell(), pet, None, ["left node"], case="exam_7", tick=lambda what, done, total: None)


def make_work(folder: Path) -> Path:
    """What `petground label` leaves of three exams in three directions, a lesion at each side of each."""
    exams, labels, findings = [], [], []
    for exam_id, turned in zip(("a", "b", "c"), ("LPS", "LAI", "PRS"), strict=True):
        pet = read_nifti(make_exam(folder / "exams" / exam_id, turned) / "pet.nii.gz", "SUVbw")
        about = {"exam_id": exam_id, "patient_id": f"p_{exam_id}", "tracer": "FDG"}
        paths = {f"{kind}_path": f"exams/{exam_id}/{kind}.nii.gz" for kind in ("pet", "ct")}
        exams.append({**about, **paths, "status": "ok", "slices": pet.shape[2]})
        mm = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
        for name, side, site, centre, suv in (
            ("f001", "left", "inguinal node", LEFT_MM, 8.0),
            ("f002", "right", "axillary node", RIGHT_MM, 6.0),
        ):
            mask = (np.linalg.norm(mm - centre, axis=-1) < 18).astype(np.uint8)
            path = f"labels/{exam_id}/{name}.nii.gz"
            write_nifti(folder / path, pet.like(mask, "label"))
            told = {"exam_id": exam_id, "finding_id": name, "prompt": f"Avid {side} {site}."}
            told |= {"laterality": side, "site": site}
            measured = {"suv_reported": suv, "suv_measured": suv, "volume_ml": 24.0, "mask_path": path}
            labels.append({**about, **told, **measured})
            findings.append({**told, "suv": suv, "status": "positive", "stage": "check"})
    for name, rows in (("exams", exams), ("labels", labels), ("findings", findings)):
        write_table(folder / f"{name}.parquet", name, rows)
    return folder


def test_evaluate_measures_a_peer_as_it_does_a_checkpoint(tmp_path: Path) -> None:
    python, log = make_peer(tmp_path / "peer")
    work, out = make_work(tmp_path / "work"), tmp_path / "evaluation"
    flags = ["evaluate", "--labels", str(work), "--peer", "voxtell", "--peer-python", str(python)]
    assert main([*flags, "--out", str(out)]) == OK
    found = json.loads((out / "metrics.json").read_text())
    assert (found["references"], found["exams"], found["checkpoint"]) == (6, 3, None)
    assert (found["peer"]["peer"], found["peer"]["versions"]["voxtell"]) == ("voxtell", "0.1.2")
    assert found["f1"]["right"] == 1.0
    assert found["f1"]["empty"] == 0.0
    assert found["left_right_confusion"]["value"] == 0.0
    # it reads nothing but the side: where the other one has no node of that kind it answers all the same
    low = pytest.approx(0.025 ** (1 / 6))  # exact, of 6 answers to 6 sentences
    assert found["false_positives_per_swapped_sentence"] == {"value": 1.0, "low": low, "high": 1.0, "n": 6}
    assert "presence_auroc" not in found, "it tells no presence"
    assert json.loads(log.read_text())["prompts"][0] == "avid left inguinal node."
    page = (out / "evaluation.html").read_text()
    assert "Evaluation of voxtell" in page
    assert "sha256" not in page

    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    assert main([*flags, "--out", str(out), "--splits", str(tmp_path / "splits.json")]) == OK
    assert json.loads((out / "metrics.json").read_text())["exams"] == 1
    with (out / "predictions.csv").open(newline="") as stream:
        assert {row["exam_id"] for row in csv.DictReader(stream)} == {"c"}


def test_equal_sentences_are_asked_once(tmp_path: Path) -> None:
    python, log = make_peer(tmp_path / "peer")
    pet = read_nifti(make_exam(tmp_path / "exam_7", ct=False) / "pet.nii.gz", "SUVbw")
    sentences = ["Left  node", "right node", "left node"]
    said = ask(VoxTell(python), pet, None, sentences, case="e", tick=lambda what, done, total: None)
    assert json.loads(log.read_text())["prompts"] == ["left node", "right node"]
    first, second, third = (mask.array for mask in said.masks)
    assert np.array_equal(first, third)
    assert first.any()
    assert not (first & second).any()

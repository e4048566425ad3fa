"""The evaluation of a stand-in that reads sides and nothing else: the figures, the exams taken, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_work import (
    SPLITS,
    SideModule,
    figures,
    make_work,
    pet_with_two_lesions,
    stand_in,
)

from petground.labeling.errors import ConfigError, GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.schemas import read_table, write_table
from petground.pipeline.splits import patient_hash
from petground.training import answering
from petground.training import evaluate as command
from petground.training.evaluate import evaluate
from petground.training.grid import GridSpec, model_template
from petground.training.inference import Prediction

DRAW = command._draw


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work(tmp_path / "work")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in(tmp_path / "run", monkeypatch)


def test_figures_of_a_model_that_reads_the_side(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_draw", DRAW)
    out = tmp_path / "out"
    assert evaluate(work, checkpoint, out, split="all", outline="model") == 0  # its lesions are blocks
    found = figures(out)
    assert found["outline"] == {"model": 4}
    assert found["runs"]["right"]["mean_dice_as_marked"] == found["runs"]["right"]["mean_dice"]
    assert (found["references"], found["exams"], found["patients"]) == (8, 4, 4)
    exact = pytest.approx(0.025 ** (1 / 8))  # all of eight found: Clopper and Pearson
    assert found["runs"]["right"]["f1"]["paper"] == {"value": 1.0, "low": exact, "high": 1.0, "n": 8}
    # four sentences per side: shuffling that avoids the right words crosses all sides
    assert found["f1"]["right"] == 1.0
    assert found["f1"]["shuffled"] == 0.0
    # the empty sentence gives the left lesion: right for one of two references
    assert found["f1_overlap"]["empty"] == pytest.approx(0.5)
    assert found["runs"]["empty"]["recall"]["paper"]["value"] == 0.5
    assert found["right_minus_shuffled"]["paper"]["value"] == 1.0
    assert found["runs"]["right"]["mean_dice"]["value"] > 0.75
    assert set(found["by"]["tracer"]) == {"FDG", "DOTATATE"}
    assert found["by"]["uptake"]["5-10 SUV"]["n"] == 8
    assert found["by"]["size"]["20-40 mm"]["f1"]["paper"]["value"] == 1.0
    assert found["false_positives_per_empty_sentence"]["value"] == 1.0
    page = (out / "evaluation.html").read_text()
    assert "another exam" in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page, "it needs no network"
    for name in ("precision_recall.png", "dice.png", "training.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    with (out / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert {row["right_hit_paper"] for row in rows} == {"True"}
    assert not any("the left one" in cell for row in rows for cell in row.values()), "no report text"


def test_outlines_of_the_pet_do_not_hide_the_models_own(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Labels are drawn by the rules that draw the PET's outlines: against them these cannot be wrong."""
    for outline in ("model", "pet"):
        evaluate(work, checkpoint, tmp_path / outline, split="all", controls=False, outline=outline)  # type: ignore[arg-type]
    model, pet = (figures(tmp_path / outline)["runs"]["right"] for outline in ("model", "pet"))
    assert figures(tmp_path / "pet")["outline"] == {"pet": 4}
    assert pet["mean_dice_as_marked"] == model["mean_dice"]
    assert pet["mean_dice"] != model["mean_dice"]
    page = (tmp_path / "pet" / "evaluation.html").read_text()
    assert "whether the same maximum was found" in page
    assert "whether the same maximum was found" not in (tmp_path / "model" / "evaluation.html").read_text()


def test_the_page_names_what_was_not_found(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_table(work / "labels.parquet", "labels")
    for row in rows:
        row["suv_measured"] += 3.0 * (row["laterality"] == "right")
    write_table(work / "labels.parquet", "labels", rows)
    monkeypatch.setattr("petground.training.pages.MOST_WRONG", 3)
    evaluate(work, checkpoint, tmp_path / "out", split="all", controls=False, outline="model")
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert page.count(">overlaps it, SUVmax 6.0</td>") == 3
    assert ">right</td>" in page
    assert "1 more. predictions.csv" in page


def test_test_split_is_what_the_run_neither_trained_nor_validated_on(
    work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    rows = read_table(work / "exams.parquet", "exams")
    rows[3]["patient_id"] = "p0"  # a second exam of a patient that trained
    write_table(work / "exams.parquet", "exams", rows)
    for split, exams in (("test", {"exam2"}), ("val", {"exam1"}), ("train", {"exam0"})):
        out = tmp_path / split
        evaluate(work, checkpoint, out, split=split, controls=False)  # type: ignore[arg-type]
        with (out / "predictions.csv").open(newline="") as stream:
            assert {row["exam_id"] for row in csv.DictReader(stream)} == exams
        assert set(figures(out)["f1"]) == {"right"}


def test_one_exam_alone_cannot_be_shuffled_and_is_said_so(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    evaluate(work, checkpoint, tmp_path / "out", split="val")
    assert set(figures(tmp_path / "out")["f1"]) == {"right", "empty"}
    assert figures(tmp_path / "out")["runs"]["right"]["f1"]["paper"]["low"] is None


def test_an_exam_is_encoded_once_for_all_its_sentences(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SideModule()
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: module)
    evaluate(work, checkpoint, tmp_path / "out", split="all")
    assert len(module.calls) == 4
    assert sorted(module.calls[0]) == ["", "the left one", "the right one"]


def test_exams_that_a_run_kept_are_its_test(work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("evaluate_work.SPLITS", {"train": ["exam0", "exam3"], "val": ["exam1"], "test": ["exam2"]})
    evaluate(work, checkpoint, tmp_path / "out", controls=False)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        assert {row["exam_id"] for row in csv.DictReader(stream)} == {"exam2"}


def test_a_model_that_reads_slices_is_asked_as_ground_asks_it(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows 50 mm about the slice that the sentence tells, counted as the site counts: here from the feet, from 0."""
    asked: dict[str, Any] = {}

    class Sliding(SideModule):
        prompt = "words+slice"

        def __init__(self) -> None:
            super().__init__()
            self.grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), patch_zyx=(16, 16, 16))

        def predict(self, image: Any, sentences: list[str], *, near: Any, tick: Any) -> Prediction:
            template = model_template(pet_with_two_lesions()[0], self.grid)
            for sentence, one in zip(sentences, near, strict=True):
                mm = one and tuple(round(float(template.to_world_mm([0, 0, z])[2])) for z in one)
                assert asked.setdefault(sentence, mm) == mm
            return super().predict(image, sentences)

    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: Sliding())
    (work / "site.json").write_text('{"slice_origin": "feet", "slice_first": 0}')
    rows = read_table(work / "labels.parquet", "labels")
    for row in rows:
        row["slice_reported"] = {"left": 10, "right": 30}[row["laterality"]]  # 6 mm each from z = 300 mm
    write_table(work / "labels.parquet", "labels", rows)
    evaluate(work, checkpoint, tmp_path / "out", split="all")
    assert asked["the left one, slice 10."] == (310, 410)
    assert asked["the right one, slice 30."] == (430, 530)
    assert asked[""] is None


def test_label_on_another_grid_is_refused_by_name(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    moved = Volume(np.ones((40, 36, 40), dtype=np.uint8), np.diag([4.0, 4.0, 6.0, 1.0]), "label")
    write_nifti(work / "labels" / "exam2" / "f001.nii.gz", moved)
    assert evaluate(work, checkpoint, tmp_path / "out", split="all") == 3
    found = figures(tmp_path / "out")
    assert list(found["failed"]) == ["exam2"]
    assert "exam2/f001" in found["failed"]["exam2"]
    assert (found["exams"], found["references"]) == (3, 6)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert {row["exam_id"] for row in csv.DictReader(file)} == {"exam0", "exam1", "exam3"}
    assert "exam2/f001" in (tmp_path / "out" / "evaluation.html").read_text()


def test_where_every_exam_fails_the_first_says_why(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    moved = Volume(np.ones((40, 36, 40), dtype=np.uint8), np.diag([4.0, 4.0, 6.0, 1.0]), "label")
    for n in range(4):
        write_nifti(work / "labels" / f"exam{n}" / "f001.nii.gz", moved)
    with pytest.raises(GeometryError, match="exam0/f001"):
        evaluate(work, checkpoint, tmp_path / "out", split="all")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_an_evaluation_that_was_stopped_goes_on_with_the_exam_it_was_at(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert evaluate(work, checkpoint, whole, split="all") == 0
    assert not (whole / "unfinished").exists()
    read: list[str] = []
    real = answering._read

    def counted(path: Path, unit: Any, case: str) -> Volume:
        if unit == "SUVbw":
            read.append(case)
            if len(read) == 3:
                raise KeyboardInterrupt
        return real(path, unit, case)

    monkeypatch.setattr(answering, "_read", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(work, checkpoint, out, split="all")
    read += ["stopped"]
    (work / "labels" / "exam0" / "f001.nii.gz").touch()  # the same content: it stands
    mask = read_nifti(work / "labels" / "exam1" / "f001.nii.gz", "label")
    write_nifti(work / "labels" / "exam1" / "f001.nii.gz", mask.like(np.roll(mask.array, 1, axis=2), "label"))
    assert evaluate(work, checkpoint, out, split="all") == 0
    assert read[read.index("stopped") + 1 :] == ["exam1", "exam2", "exam3"]
    write_nifti(work / "labels" / "exam1" / "f001.nii.gz", mask)
    again = figures(whole)
    assert evaluate(work, checkpoint, whole, split="all") == 0
    assert {**figures(whole), "seconds": 0} == {**again, "seconds": 0}


def test_answers_of_another_checkpoint_are_not_taken(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the third exam; then the file under the same name holds other weights."""
    real, asked = answering._told, []

    def told(by: Any, folder: Path, row: Any, *others: Any) -> Any:
        if len(asked) == 2 and "again" not in asked:
            raise KeyboardInterrupt
        asked.append(row["exam_id"])
        return real(by, folder, row, *others)

    monkeypatch.setattr(answering, "_told", told)
    with pytest.raises(KeyboardInterrupt):
        evaluate(work, checkpoint, tmp_path / "out", split="all")
    checkpoint.write_bytes(b"other weights")
    asked.append("again")
    evaluate(work, checkpoint, tmp_path / "out", split="all")
    assert asked == ["exam0", "exam1", "again", "exam0", "exam1", "exam2", "exam3"]


def test_missing_mask_and_missing_table_are_named(
    work: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "labels" / "exam3" / "f002.nii.gz").unlink()
    assert evaluate(work, checkpoint, tmp_path / "out", split="all") == 3
    assert "exam3/f002" in capsys.readouterr().out
    (work / "labels.parquet").unlink()
    with pytest.raises(InputError, match=r"labels\.parquet"):
        evaluate(work, checkpoint, tmp_path / "out", split="all")


def test_no_reference_and_unknown_split_are_told(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate_work.SPLITS", {"train": [f"exam{n}" for n in range(4)]})
    with pytest.raises(InputError, match="split 'test'"):
        evaluate(work, checkpoint, tmp_path / "out")
    with pytest.raises(ConfigError, match="val"):
        evaluate(work, checkpoint, tmp_path / "out", split="val")


def test_exams_that_the_run_never_saw_are_all_measured(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate_work.SPLITS", {"train": ["x"], "val": ["y"]})
    evaluate(work, checkpoint, tmp_path / "out", split="val", controls=False)
    assert figures(tmp_path / "out")["references"] == 8


def test_other_exams_of_a_patient_that_trained_are_no_test(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another folder: exam ids the run never saw, but two of the four patients; one trained, one validated."""
    module = SideModule()
    module.provenance = {
        "splits": {"train": ["x"], "val": ["y"]},
        "trained_patients": [patient_hash("p2")],
        "validated_patients": [patient_hash("p0")],
    }
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: module)
    evaluate(work, checkpoint, tmp_path / "out", controls=False)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        assert {row["exam_id"] for row in csv.DictReader(stream)} == {"exam1", "exam3"}
    assert "Left out: 2 of 4 exams" in capsys.readouterr().out


def test_exams_that_an_earlier_fit_trained_on_do_not_validate(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SideModule()
    module.provenance = {"splits": {"train": ["exam0"], "val": ["exam1", "exam2"]}, "trained_on": ["exam0", "exam1"]}
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: module)
    evaluate(work, checkpoint, tmp_path / "out", split="val", controls=False)
    assert figures(tmp_path / "out")["exams"] == 1


def test_what_the_weights_learnt_from_is_told_everywhere(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the four exams the stand-in trained on some and chose by others; a test of its own has none of them."""
    evaluate(work, checkpoint, tmp_path / "all", split="all")
    learnt = figures(tmp_path / "all")["learnt_from"]
    assert learnt["trained"] == len(SPLITS["train"]) > 0
    assert learnt["validated"] == len(SPLITS.get("val", []))
    assert "no measure of new patients" in " ".join(capsys.readouterr().out.split())
    assert "no measure of new" in (tmp_path / "all" / "evaluation.html").read_text()
    evaluate(work, checkpoint, tmp_path / "test")
    assert figures(tmp_path / "test")["learnt_from"] == {"trained": 0, "validated": 0}
    assert "measure of new" not in (tmp_path / "test" / "evaluation.html").read_text() + capsys.readouterr().out


def test_normal_exams_are_asked_what_their_reports_deny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in marks whatever it is asked of: both lesions of exam0's image lie in the normal exams' too."""
    work = make_work(tmp_path / "work")
    plain = tmp_path / "plain"
    checkpoint = stand_in(tmp_path / "run", monkeypatch)
    evaluate(work, checkpoint, plain)
    exams = read_table(work / "exams.parquet", "exams")
    normal = [
        exams[0] | {"exam_id": f"normal{n}", "patient_id": patient} for n, patient in enumerate(("p8", "p9", "p0"))
    ]
    write_table(work / "exams.parquet", "exams", [*exams, *normal])
    said = [
        {"exam_id": one["exam_id"], "denial_id": f"d{n}", "site": "hilar", "laterality": None, "section": "findings",
         "sentence": f"No {word} hilar node.", "prompt": f"No {word} hilar node."}
        for one in normal for n, word in enumerate(("avid", "enlarged"))
    ]  # fmt: skip
    write_table(work / "denials.parquet", "denials", said)
    evaluate(work, checkpoint, tmp_path / "out")
    found = figures(tmp_path / "out")
    assert found["unlabelled_exams"] == 2, "the third is of a patient who trained"
    share = found["false_positives_in_unlabelled_exams"]
    assert (share["value"], share["n"]) == (1.0, 4)
    same = figures(plain)
    assert "unlabelled_exams" not in same
    for key in ("f1", "runs", "exams", "references", "left_right_confusion"):
        assert found[key] == same[key], key
    assert (tmp_path / "out" / "predictions.csv").read_text() == (plain / "predictions.csv").read_text()
    assert "in exams without a label" in (tmp_path / "out" / "evaluation.html").read_text()

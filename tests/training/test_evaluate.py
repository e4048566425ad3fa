"""The evaluation of a stand-in that reads sides and nothing else: every figure can be told beforehand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.errors import ConfigError, GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table, write_table
from petground.pipeline.splits import patient_hash
from petground.training import evaluate as command
from petground.training.controls import absent_sentences, questions
from petground.training.evaluate import evaluate
from petground.training.grid import GridSpec, model_template
from petground.training.inference import Prediction
from petground.training.references import Reference, from_labels, from_truth, link_truth, places_here
from petground.training.work import denied_sentences

DRAW = command._draw
SIDES = ("left", "right")
SPLITS = {"train": ["exam0"], "val": ["exam1"]}
PEAK = {"left": 8.0, "right": 6.0}


class SideModule:
    """Marks voxels with SUV above 4 on the side that the sentence names; an empty sentence gives the left one."""

    threshold = 0.5

    def __init__(self) -> None:
        self.grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24))
        self.calls: list[list[str]] = []
        self.provenance: dict[str, Any] = {"splits": SPLITS}

    def predict(self, image: np.ndarray[Any, Any], sentences: list[str]) -> Prediction:
        self.calls.append(list(sentences))
        hot = (np.asarray(image)[0] > 0.25).astype(np.float32)
        right = np.arange(hot.shape[2]) >= hot.shape[2] // 2
        maps = [0.9 * hot * (right if "right" in s else ~right)[None, None, :] for s in sentences]
        return Prediction(np.stack(maps), None)


def pet_with_two_lesions() -> tuple[Volume, dict[str, np.ndarray[Any, Any]]]:
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    affine[:3, 3] = (-80.0, -70.0, 300.0)
    pet = Volume(np.ones((40, 36, 40), dtype=np.float32), affine, "SUVbw")
    world = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
    masks = {}
    for side, centre in (("left", (-40.0, 2.0, 360.0)), ("right", (36.0, 10.0, 480.0))):
        masks[side] = np.linalg.norm(world - centre, axis=-1) < 18
        pet.array[masks[side]] = 5.0
        pet.array[tuple(np.rint(pet.to_index(centre)).astype(int))] = PEAK[side]
    return pet, masks


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A labelling run of four exams of four patients, two labels each; the run trained on two of them."""
    folder = tmp_path / "work"
    pet, masks = pet_with_two_lesions()
    exams, labels, findings = [], [], []
    for n in range(4):
        exam_id = f"exam{n}"
        write_nifti(folder / "exams" / exam_id / "pet.nii.gz", pet)
        about = {"patient_id": f"p{n}", "tracer": ("FDG", "DOTATATE")[n % 2]}
        exams.append(
            {"exam_id": exam_id, "status": "ok", "pet_path": f"exams/{exam_id}/pet.nii.gz", "slices": 40, **about}
        )
        for number, side in enumerate(SIDES, start=1):
            finding_id = f"f{number:03d}"
            path = f"labels/{exam_id}/{finding_id}.nii.gz"
            write_nifti(folder / path, pet.like(masks[side].astype(np.uint8), "label"))
            slice_number = 40 - int(np.argwhere(pet.array == PEAK[side])[0][2])
            shared = {
                "exam_id": exam_id, "finding_id": finding_id, "prompt": f"the {side} one", "laterality": side,
                "site": "node", "sentence": f"the {side} one, SUVmax {PEAK[side]}, slice {slice_number}",
            }  # fmt: skip
            labels.append(
                {**shared, "suv_reported": PEAK[side], "suv_measured": PEAK[side], "volume_ml": 24.0,
                 "mask_path": path, **about}
            )  # fmt: skip
            findings.append(
                {**shared, "suv": PEAK[side], "suv_decimals": 1, "slice": slice_number, "status": "positive",
                 "stage": "check"}
            )  # fmt: skip
    for name, rows in (("exams", exams), ("labels", labels), ("findings", findings)):
        write_table(folder / f"{name}.parquet", name, rows)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.ckpt").write_bytes(b"stand-in")
    (run / "metrics.csv").write_text("epoch,step,train/loss,val/f1\n0,10,1.5,\n0,20,1.0,0.2\n1,30,0.7,0.4\n")
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: SideModule())
    monkeypatch.setattr(command, "_draw", lambda *_: [])  # plots take a second each: one test draws them
    return run / "best.ckpt"


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


def test_figures_of_a_model_that_reads_the_side(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_draw", DRAW)
    out = tmp_path / "out"
    assert evaluate(work, checkpoint, out, split="all", outline="model") == 0  # its lesions are blocks
    found = figures(out)
    assert found["outline"] == "model"
    assert (found["references"], found["exams"], found["patients"]) == (8, 4, 4)
    assert found["runs"]["right"]["f1"]["paper"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 8}
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


def phantom_of(work: Path, folder: Path, *, unread: str | None = None) -> Path:
    pet, masks = pet_with_two_lesions()
    truth = []
    for n in range(4):
        for side in SIDES:
            path = f"masks/exam{n}/{side}.nii.gz"
            mask = masks[side] & (np.arange(40) > 5)[None, None, :]
            write_nifti(folder / path, pet.like(mask.astype(np.uint8), "label"))
            at = 40 - int(np.argwhere(pet.array == PEAK[side])[0][2])
            truth.append(
                {"exam_id": f"exam{n}", "lesion_id": f"l-{side}", "suv_max": PEAK[side] + 0.04,
                 "slice": at + (30 if side == unread and n == 0 else 0), "volume_ml": 20.0, "reported": True,
                 "laterality": side, "site": "node", "mask_path": path}
            )  # fmt: skip
    truth.append({**truth[0], "lesion_id": "untold", "reported": False})
    write_table(folder / "truth.parquet", "truth", truth)
    return folder


def test_truth_is_measured_by_true_masks_and_lesions_never_read_are_missed(
    work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    phantom = phantom_of(work, tmp_path / "phantom", unread="right")
    out = tmp_path / "out"
    evaluate(work, checkpoint, out, truth=phantom, split="all")
    found = figures(out)
    assert found["measured_against"] == "truth"
    assert found["references"] == 8
    assert found["without_sentence"] == 1
    assert found["false_positives_per_empty_sentence"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 7}
    assert found["runs"]["right"]["counts"]["paper"] == {"tp": 7, "fp": 0, "fn": 1}
    assert found["f1"]["right"] == pytest.approx(14 / 15)


def test_truth_links_by_exam_rounding_and_slice_and_side() -> None:
    def lesion(key: str, suv: float, k: int, side: str | None = None, exam: str = "a") -> dict[str, Any]:
        return {"exam_id": exam, "lesion_id": key, "suv_max": suv, "slice": k, "laterality": side, "site": "rib"}

    def finding(key: str, suv: float, k: int | None, side: str | None = None, **more: Any) -> dict[str, Any]:
        row = {"exam_id": "a", "finding_id": key, "suv": suv, "suv_decimals": 1, "slice": k, "laterality": side}
        return {**row, "site": "rib", "prompt": key, "stage": "check", **more}

    truth = [
        lesion("rounded", 5.249, 10),
        lesion("other_slice", 5.2, 11),
        lesion("left", 7.31, 20, "left"),
        lesion("right", 7.33, 20, "right"),
        lesion("two_decimals", 3.144, 30),
        lesion("other_exam", 5.2, 10, exam="b"),
        lesion("prior", 9.0, 40),
    ]
    findings = [
        finding("one", 5.2, 10),
        finding("R", 7.3, 20, "right"),
        finding("L", 7.3, 20, "left"),
        finding("rough", 3.15, 30, suv_decimals=2),
        finding("fine", 3.14, 30, suv_decimals=2),
        finding("no slice", 5.2, None),
        finding("told as prior", 9.0, 40, stage="extract"),
        finding("no label, but read", 5.2, 12, stage="match"),
    ]
    assert {key: row["prompt"] for key, row in link_truth(truth, findings).items()} == {
        ("a", "rounded"): "one",
        ("a", "left"): "L",
        ("a", "right"): "R",
        ("a", "two_decimals"): "fine",
    }


def test_two_lesions_alike_do_not_share_one_finding() -> None:
    truth = [
        {"exam_id": "a", "lesion_id": str(n), "suv_max": 5.0, "slice": 3, "laterality": None, "site": None}
        for n in range(2)
    ]
    finding = {
        "exam_id": "a", "finding_id": "f", "suv": 5.0, "suv_decimals": 1, "slice": 3, "laterality": None, "site": None,
        "prompt": "p", "stage": "check",
    }  # fmt: skip
    assert len(link_truth(truth, [finding])) == 1


def reference(exam: str, site: str | None, side: str | None, prompt: str = "") -> Reference:
    return Reference(exam, site or "", exam, "FDG", prompt, 5.0, 1.0, side, site, Path())


def test_absent_sentences_name_a_place_where_the_exam_has_nothing() -> None:
    references = [reference("a", "liver", None), reference("b", "rib", "left"), reference("c", "rib", "right")]

    def absent(donors: list[int], **told: tuple[str, str]) -> list[int]:
        here = {r.exam_id: {r.place} for r in references}
        for exam, place in told.items():
            here[exam].add(place)
        return absent_sentences(references, donors, here)

    assert absent([1, 0, 1]) == [0, 1, 2]
    assert absent([1, 0, 1], a=("costal lesion", "left")) == [1, 2], "told of in other words, though no reference"
    assert absent([1, 0, 1], a=("costal lesion", "right"), c=("left rib", "")) == [0, 1]
    references[1] = reference("b", "lymph node", "left")
    assert absent([1, 1, 1]) == [2], "a node could be anywhere on its side"


def test_the_other_side_is_asked_only_where_the_report_tells_of_nothing_there() -> None:
    references = [
        reference("a", "Axillary node", "left", "An avid left axillary node."),
        reference("b", "axillary node", "left", "An avid left axillary node, not the right one."),
        reference("c", "axillary node", "right", "An avid left axillary node."),
        reference("d", None, "left", "An avid left one."),
    ]
    here: dict[str, Any] = {r.exam_id: {r.place} for r in references}
    asked, nowhere = questions(references, here)
    assert nowhere["swapped"] == [0]
    assert asked["swapped"][0] is not None
    assert asked["swapped"][0].prompt == "An avid right axillary node."
    for told in (("axilla", "right"), ("axilla", "")):
        assert questions(references, {**here, "a": {references[0].place, told}}).nowhere["swapped"] == []


def test_what_the_report_denies_is_asked_where_nothing_else_may_be(
    work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The stand-in answers any sentence with the lesion on its side: each denied one asked is a false alarm."""
    for name in ("labels", "findings"):
        table = read_table(work / f"{name}.parquet", name)
        write_table(work / f"{name}.parquet", name, [{**row, "site": "axilla"} for row in table])
    rows = read_table(work / "findings.parquet", "findings")
    here = {"exam0": {("axilla", "left"), ("axilla", "right")}, "exam1": {("node", "left")}}
    said = [  # exam, side, site, sentence
        ("exam0", "right", "liver", "no avid right liver lesion"),
        ("exam0", None, None, "no avid lesion there"),  # of an unknown place: there may be one
        ("exam0", "left", "axillary node", "a small left axillary node is not avid"),  # another lesion is there
        ("exam1", "right", "rib", "the right rib is not avid"),
        ("exam1", "left", "kidney", "no left kidney lesion"),  # there is a node somewhere on the left
        ("exam1", "right", "kidney", "SUVmax 2.0"),  # no words
        ("exam1", "right", "adrenal", "no right adrenal uptake"),
        ("exam1", "right", "lung", "the right lung is not avid"),  # a third one in an exam of two references
    ]
    more = [
        {**rows[0], "exam_id": exam, "laterality": side, "site": site, "prompt": sentence, "reason": "negated",
         "stage": "extract", "finding_id": f"n{n}"}
        for n, (exam, side, site, sentence) in enumerate(said)
    ]  # fmt: skip
    found = denied_sentences([*rows, *more], "words", here)
    assert found == {
        "exam0": ("no avid right liver lesion",),
        "exam1": ("the right rib is not avid", "no right adrenal uptake", "the right lung is not avid"),
    }
    references = [reference("exam1", "node", "left"), reference("exam0", "node", "left"), reference("exam1", "x", None)]
    asked, nowhere = questions(references, here, found)
    assert [q and q.prompt for q in asked["denied"]] == [
        "the right rib is not avid", "no avid right liver lesion", "no right adrenal uptake",
    ]  # fmt: skip
    assert nowhere["denied"] == [0, 1, 2]
    write_table(work / "findings.parquet", "findings", [*rows, *more])
    evaluate(work, checkpoint, tmp_path / "out", split="all")
    told = figures(tmp_path / "out")
    assert told["false_positives_per_denied_sentence"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert "denied" not in told["runs"], "there is nothing to hit"
    assert "what the report itself denies" in (tmp_path / "out" / "evaluation.html").read_text()


def test_places_are_those_of_the_report_and_of_a_phantoms_untold_lesions(work: Path, tmp_path: Path) -> None:
    """A mention without a label and a lesion that no report tells of are there all the same; a negated one is not."""
    rows = read_table(work / "findings.parquet", "findings")
    more = {"site": "Hilar node", "laterality": "right", "stage": "match", "finding_id": "f009", "reason": "no_match"}
    denied = {"site": "Liver", "laterality": None, "stage": "extract", "finding_id": "f010", "reason": "negated"}
    write_table(work / "findings.parquet", "findings", [*rows, {**rows[0], **more}, {**rows[0], **denied}])
    told = places_here(work, from_labels(work))["exam0"]
    assert ("hilar node", "right") in told
    assert ("liver", "") not in told
    phantom = phantom_of(work, tmp_path / "phantom")
    truth = read_table(phantom / "truth.parquet", "truth")
    truth[-1] |= {"site": "Spleen", "laterality": None}  # reported: False
    write_table(phantom / "truth.parquet", "truth", truth)
    assert ("spleen", "") in places_here(work, from_truth(work, phantom), phantom)["exam0"]
    assert ("spleen", "") not in told


def test_exams_that_a_run_kept_are_its_test(work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "SPLITS", {"train": ["exam0", "exam3"], "val": ["exam1"], "test": ["exam2"]})
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
    with pytest.raises(GeometryError, match="exam2/f001"):
        evaluate(work, checkpoint, tmp_path / "out", split="all")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_missing_mask_and_missing_table_are_named(work: Path, checkpoint: Path, tmp_path: Path) -> None:
    (work / "labels" / "exam3" / "f002.nii.gz").unlink()
    with pytest.raises(InputError, match="exam3/f002"):
        evaluate(work, checkpoint, tmp_path / "out", split="all")
    (work / "labels.parquet").unlink()
    with pytest.raises(InputError, match=r"labels\.parquet"):
        evaluate(work, checkpoint, tmp_path / "out", split="all")


def test_no_reference_and_unknown_split_are_told(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SPLITS", {"train": [f"exam{n}" for n in range(4)]})
    with pytest.raises(InputError, match="split 'test'"):
        evaluate(work, checkpoint, tmp_path / "out")
    with pytest.raises(ConfigError, match="val"):
        evaluate(work, checkpoint, tmp_path / "out", split="val")


def test_exams_that_the_run_never_saw_are_all_measured(
    work: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SPLITS", {"train": ["x"], "val": ["y"]})
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


def test_truth_of_exams_without_positive_findings_counts_as_missed(work: Path, tmp_path: Path) -> None:
    phantom = phantom_of(work, tmp_path / "phantom")
    write_table(work / "findings.parquet", "findings", [])
    assert all(r.prompt is None for r in from_truth(work, phantom))

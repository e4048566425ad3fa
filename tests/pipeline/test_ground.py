"""`petground ground` with a stand-in for the network: what is written, where it lies, and what is said."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site
from petground.labeling.volume import Volume, same_grid
from petground.pipeline.commands import ground as command
from petground.pipeline.commands.ground import Asked, ground
from petground.pipeline.ground_by import reported_k
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.training.grid import GridSpec
from petground.training.inference import Prediction

LEFT_MM, RIGHT_MM = np.array([-40.0, 2.0, 360.0]), np.array([36.0, 10.0, 480.0])
REPORT = """FINDINGS:
There is an enlarged left inguinal node with SUVmax of 8.0 on axial slice 30.
A right axillary node shows SUV max 6.0 (slice 10).
Liver background SUVmean 2.1.

IMPRESSION: As above.
"""


class SideModule:
    """Marks voxels with SUV above 4 on the side that the sentence names; grid axis x counts towards the right."""

    threshold = 0.5

    grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24))

    def __init__(self) -> None:
        self.read: list[str] = []

    def predict(self, image: np.ndarray[Any, Any], sentences: list[str]) -> Prediction:
        self.read += sentences
        hot = (np.asarray(image)[0] > 0.25).astype(np.float32)
        right = np.arange(hot.shape[2]) >= hot.shape[2] // 2
        side = {"left": ~right, "right": right}
        words = [next((w for w in ("left", "right") if w in s), None) for s in sentences]
        maps = [0.9 * hot * side[w][None, None, :] if w is not None else 0.1 * hot for w in words]
        return Prediction(np.stack(maps), None)


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """A body with a lesion low at the left (SUV 8) and one high at the right (SUV 6), stored as L-P-S."""
    affine = np.diag([-4.0, -4.0, 6.0, 1.0])
    affine[:3, 3] = (80.0, 72.0, 300.0)
    pet = Volume(np.zeros((40, 36, 40), dtype=np.float32), affine, "SUVbw")
    world = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
    pet.array[(np.abs(world[..., 0]) < 64) & (np.abs(world[..., 1]) < 50)] = 1.0
    for centre, suv in ((LEFT_MM, 8.0), (RIGHT_MM, 6.0)):
        pet.array[np.linalg.norm(world - centre, axis=-1) < 18] = 5.0
        pet.array[tuple(np.rint(pet.to_index(centre)).astype(int))] = suv
    folder = tmp_path / "exam_7"
    write_nifti(folder / "pet.nii.gz", pet)
    hu = np.where(pet.array > 0, 40, -1000).astype(np.int16)
    write_nifti(folder / "ct.nii.gz", Volume(hu, affine, "HU"))
    return folder


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> SideModule:
    stand_in = SideModule()
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: stand_in)
    return stand_in


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


@pytest.mark.parametrize("text", ["FDG avid {} axillary lymph node.", "{} adrenal nodule with SUVmax 5.2", "{} axilla"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_on_the_other_side_is_told_of_any_sentence_that_names_one(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, side: str
) -> None:
    """The model first obeys, then confuses the sides; the sentence states no slice, or no value at all."""
    out, sentence = tmp_path / "out", text.format(side)
    (one,) = command._asked(sentence, None, Site())
    assert one.laterality == side
    assert one.site is not None
    ground(exam, tmp_path / "x.ckpt", out, text=sentence)
    (row,) = json.loads((out / "findings.json").read_text())["findings"]
    assert (row["side_reported"], row["side_measured"], row["problem"]) == (side, side, None)
    obeyed, other = module.predict, {"left": "right", "right": "left"}[side]
    monkeypatch.setattr(module, "predict", lambda image, asked: obeyed(image, [s.replace(side, other) for s in asked]))
    ground(exam, tmp_path / "x.ckpt", out, text=sentence)
    (row,) = json.loads((out / "findings.json").read_text())["findings"]
    assert (row["side_reported"], row["side_measured"]) == (side, other)
    assert f"the sentence says {side}" in row["problem"]


def test_values_without_a_slice_are_told_as_they_are(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    drawn = command.write_answer

    def write(*args: Any) -> Any:
        row, picture = drawn(*args)
        shown.append(picture.headline)
        return row, picture

    monkeypatch.setattr(command, "write_answer", write)
    for text in ("Adrenal nodule with SUVmax 5.2.", "Adrenal nodule on slice 12."):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text)
    assert [one.partition("; ")[2] for one in shown] == ["reported SUVmax 5.2", "reported slice 12"]


def test_an_answer_that_the_report_refutes_says_so_and_a_mask_given_twice_too(
    exam: Path, module: SideModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The left lesion has SUVmax 8.0 at slice 30: one sentence says another value, one a slice 60 mm away."""
    report = tmp_path / "report.txt"
    report.write_text(
        "FINDINGS: Avid left axillary node, SUVmax 8.0, slice 30. Avid left lower lobe mass, SUVmax 21.3, slice 30. "
        "Avid left adrenal nodule, SUVmax 7.9, slice 20. Avid right hilar node, SUVmax 6.0, slice 10.\n"
    )
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=report)
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    right, value, away, other = (row["not_as_reported"] for row in rows)
    assert (right, value, other) == (None, "SUVmax 8.00, reported 21.3", None)
    assert re.fullmatch(r"slices? 30.*, reported 20 \(60 mm away\)", away)
    assert [row["same_mask_as"] for row in rows] == [None, "f001", "f001", None]
    printed = " ".join(capsys.readouterr().out.split())
    assert "f002: NOT AS REPORTED: SUVmax 8.00, reported 21.3." in printed
    assert "f003: the same mask as f001." in printed
    with (tmp_path / "out" / "findings.csv").open() as file:
        assert [row["same_mask_as"] for row in csv.DictReader(file)] == ["", "f001", "f001", ""]


@pytest.mark.parametrize(
    ("site", "slices", "told"),
    [
        # 40 slices of 6 mm, the left lesion's hottest voxel on the 11th from the feet
        pytest.param({}, 30, None, id="from-the-head"),
        pytest.param({"slice_origin": "feet"}, 11, None, id="from-the-feet"),
        pytest.param({"slice_origin": "feet"}, 30, "slice 11, reported 30 (114 mm away)", id="the-other-way"),
        # the CT has twice the slices, of 3 mm
        pytest.param({"slice_grid": "ct", "slice_origin": "feet"}, 21, None, id="of-the-ct"),
        pytest.param(
            {"slice_grid": "ct", "slice_origin": "feet"}, 61, "slice 21, reported 61 (120 mm away)", id="of-the-ct-away"
        ),
    ],
)
def test_slices_are_held_against_the_sentence_as_the_site_counts(
    site: dict[str, Any], slices: int, told: str | None, exam: Path, module: SideModule, tmp_path: Path
) -> None:
    ct = read_nifti(exam / "ct.nii.gz", "HU")
    fine = ct.affine @ np.diag([1.0, 1.0, 0.5, 1.0])
    write_nifti(exam / "ct.nii.gz", Volume(np.repeat(ct.array, 2, axis=2), fine, "HU"))
    (tmp_path / "site.yaml").write_text(json.dumps(site))
    text = f"Avid left inguinal node, SUVmax 8.0, slice {slices}."
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text, site=tmp_path / "site.yaml")
    (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert row["not_as_reported"] == told


def test_a_named_series_decides_which_slices_are_counted() -> None:
    """40 PET slices of 6 mm are series 4, 80 CT slices of 3 mm series 2; counted from the head, stored feet first."""
    pet = Volume(np.ones((4, 4, 40), np.float32), np.diag([-4.0, -4.0, 6.0, 1.0]), "SUVbw", series_number=4)
    ct = Volume(np.zeros((4, 4, 80), np.int16), np.diag([-4.0, -4.0, 3.0, 1.0]), "HU", series_number=2)
    site = Site(slice_by_series_number=True)

    def at(series: int | None, number: int = 21) -> range | None:
        return reported_k(Asked("f001", "", "Avid node.", None, number, series=series), pet, ct, site)

    assert (at(None), at(4)) == (range(19, 20), range(19, 20))
    assert at(2) == range(30, 31), "CT slice 21 from the head has index 59 and lies 177 mm up"
    assert (at(7), at(4, 60), at(None, 60)) == (None, None, None)
    assert reported_k(Asked("f001", "", "Avid node.", None, None), pet, ct, site) is None
    assert reported_k(Asked("f001", "", "Avid node.", None, 21), pet, None, Site(slice_grid="ct")) is None


def test_what_is_found_to_a_denial_says_so(exam: Path, module: SideModule, tmp_path: Path) -> None:
    for text, told in (("No avid left axillary nodes.", True), ("Avid left axillary nodes.", False)):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text)
        (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
        assert (row["not_as_reported"] == "the sentence says that nothing is there") == told

"""What a report denies, from its text through `petground label` to the sentences that teach an empty mask."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.errors import ConfigError
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.cli import main
from petground.pipeline.executors import Outcome, guarded
from petground.pipeline.label_plan import plan
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.nifti import write_nifti
from petground.pipeline.reports import open_export
from petground.pipeline.schemas import read_table, write_table
from petground.training.data import GroundingData
from petground.training.dataset import NEGATED, EpochSampler, ExamDataset
from petground.training.grid import GridSpec
from petground.training.work import MOST, Exam, Example, read_exams, some_of

REPORT = """FINDINGS: Hypermetabolic {side} axillary node, SUVmax 7.3, axial slice 19.
A 6 mm {other} hilar node is not avid (SUVmax 1.2).
A 5 mm {side} axillary node is not avid (SUVmax 0.9).
The 7 mm {other} axillary node (SUVmax 1.1) shows no uptake above background.
No avid {other} adrenal nodule.
No uptake in the {other} ischium or sternum.
No avid {side} axillary or {other} hilar nodes.
No abnormal uptake in the chest.
Liver SUVmax 2.1.
"""


NORMAL = "FINDINGS: No avid left adrenal nodule. No uptake in the right ischium. Left lung mass.\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled exams, each the other mirrored, a lesion at the left and at the right; and a normal one."""
    folder = tmp_path_factory.mktemp("denied")
    affine = np.array([[-4.0, 0, 0, 80], [0, 4.0, 0, -80], [0, 0, 4.0, -120], [0, 0, 0, 1]])
    lines = []
    for side, other, i in (("left", "right", 30), ("right", "left", 9), ("normal", "", None)):
        pet = np.zeros((40, 40, 60), np.float32)
        pet[4:36, 8:32] = 0.8
        if i is not None:
            distance = sum((g - c) ** 2 for g, c in zip(np.indices(pet.shape), (i, 20, 41), strict=True))
            pet = np.maximum(pet, 7.3 * np.exp(-distance / 8.0)).astype(np.float32)
        write_nifti(folder / "exams" / side / "pet.nii.gz", Volume(pet, affine, "SUVbw"))
        text = NORMAL if i is None else REPORT.format(side=side, other=other)
        lines.append(json.dumps({"exam_id": side, "report_text": text}))
    reports = folder / "reports.jsonl"
    reports.write_text("\n".join(lines))
    run = LabelRun(open_export(reports), folder / "exams", folder / "work", Site(), _in_process, unlabelled=True)
    run_labels(run)
    return folder / "work"


def _in_process(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
    for case, args in cases:
        yield guarded(function, case, args)


def test_denied_sentences_of_a_report_teach(work: Path) -> None:
    """With and without an SUV; not those of which any place has a lesion, or lies around it."""
    assert {exam.exam_id: set(exam.negated) for exam in read_exams(work)} == {
        side: {
            f"A 6 mm {other} hilar node is not avid.",
            f"The 7 mm {other} axillary node shows no uptake above background.",
            f"No avid {other} adrenal nodule.",
            f"No uptake in the {other} ischium or sternum.",
        }
        for side, other in (("left", "right"), ("right", "left"))
    }


def test_denials_without_a_value_are_a_table_of_places(work: Path) -> None:
    rows = [row for row in read_table(work / "denials.parquet", "denials") if row["exam_id"] == "left"]
    assert [(row["denial_id"], row["site"], row["laterality"]) for row in rows] == [
        ("d001", "adrenal", "right"), ("d002", "ischium", "right"), ("d002", "sternum", None),
    ]  # fmt: skip
    assert {row["section"] for row in rows} == {"findings"}
    assert all(row["prompt"] == row["sentence"] for row in rows)
    assert json.loads((work / "summary.json").read_text())["denials"] == 6


def test_a_folder_labelled_before_there_was_such_a_table_still_trains(work: Path, tmp_path: Path) -> None:
    older = shutil.copytree(work, tmp_path / "older")
    (older / "denials.parquet").unlink()
    for exam in read_exams(older):
        assert len(exam.negated) == 2
        assert all("adrenal" not in sentence for sentence in exam.negated)


def test_a_report_that_denies_much_teaches_some_of_it_the_same_every_time(work: Path, tmp_path: Path) -> None:
    much = shutil.copytree(work, tmp_path / "much")
    row = read_table(work / "denials.parquet", "denials")[0] | {"exam_id": "left"}
    rows = [row | {"denial_id": f"d{n}", "prompt": f"No avid adrenal node, {'very ' * n}."} for n in range(40)]
    write_table(much / "denials.parquet", "denials", rows)
    first, again = (next(e.negated for e in read_exams(much) if e.exam_id == "left") for _ in range(2))
    assert first == again
    assert len(first) == len(set(first)) == MOST
    assert some_of(first, "left", 3, seed=1) != some_of(first, "right", 3, seed=1)


def test_images_of_exams_that_only_deny_are_read_where_asked(work: Path, tmp_path: Path) -> None:
    row = next(row for row in read_table(work / "exams.parquet", "exams") if row["exam_id"] == "normal")
    assert (row["status"], row["reason"], row["slices"]) == ("ok", None, 60)
    assert (work / row["pet_path"]).is_file()
    export, other = open_export(work.parent / "reports.jsonl"), tmp_path / "work"
    run_labels(LabelRun(export, work.parent / "exams", other, Site(), _in_process))
    row = next(row for row in read_table(other / "exams.parquet", "exams") if row["exam_id"] == "normal")
    assert (row["status"], row["reason"], row["pet_path"]) == ("ok", "nothing_to_label", None)
    counted = [plan(export, work.parent / "exams", other, Site(), unlabelled=also) for also in (False, True)]
    assert [(one.wanted, one.deny, one.images, one.labels) for one in counted] == [(2, 0, 0, 0), (2, 1, 1, 0)]


def test_the_command_reads_exams_that_only_deny(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the normal exam nothing is labelled; without the flag its images are none of the tables' any more."""
    out = tmp_path / "work"
    command = ["label", "--reports", str(work.parent / "reports.jsonl"), "--exams", str(work.parent / "exams")]
    command += ["--out", str(out), "--workers", "1"]
    assert main([*command, "--unlabelled-exams"]) == 0
    capsys.readouterr()
    assert main([*command, "--unlabelled-exams", "--dry-run"]) == 0
    told = "2 have something to label, and 1 only deny: read the images of 0 and label 0 of these exams"
    assert told in " ".join(capsys.readouterr().out.split())
    assert sorted(folder.name for folder in (out / "labels").iterdir()) == ["left", "right"]
    for more, read in (([], 2), (["--unlabelled-exams"], 3)):
        assert main([*command, *more]) == 0
        assert sum(row["pet_path"] is not None for row in read_table(out / "exams.parquet", "exams")) == read


def test_a_report_that_only_denies_teaches_where_it_is_asked_to(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert [exam.exam_id for exam in read_exams(work)] == ["left", "right"]
    assert "1 exams without a label to use are left out: data.unlabelled_fraction is 0" in caplog.text
    data = _data(work, tmp_path, unlabelled_fraction=0.3)
    assert data.split["train"] == ["left", "normal", "right"]
    assert "No avid left adrenal nodule." in data.prompts()
    loader = data.train_dataloader()
    seen = [item for batch in loader for item in zip(batch["exam_id"], batch["sentences"], strict=True)]
    assert {exam for exam, _ in seen} == {"left", "right", "normal"}
    own = next(said for exam, said in seen if exam == "normal")
    assert sorted(own) == ["No avid left adrenal nodule."] * 2 + ["No uptake in the right ischium."] * 2
    (batch,) = (batch for batch in loader if batch["exam_id"] == ["normal"])
    assert batch["target"].shape[:2] == (1, 4)
    assert not batch["target"].any()
    assert not batch["present"].any()
    assert batch["image"].any()


def test_exams_without_a_label_leave_the_split_of_the_others_as_it_is() -> None:
    """Of 40 patients ten have normal exams beside one with a label, and ten more have normal exams alone."""
    example = Example("f001", "Avid node.", "m", "node", "left", 1.0)

    def exam(name: str, patient: int, *examples: Example) -> Exam:
        return Exam(f"{name}{patient}", f"p{patient}", None, "pet", None, examples, (), ("No avid node.",))

    exams = [exam("e", n, example) for n in range(40)]
    bare = [exam("second", n) for n in range(10)] + [exam("normal", 90 + n) for n in range(10)]
    data = GroundingData(Path("work"), validation_fraction=0.25, test_fraction=0.25, seed=3)
    plain, both = data._own_split(exams), data._own_split(exams + bare)
    assert {part: [one for one in members if one.startswith("e")] for part, members in both.items()} == plain
    part_of = {one: part for part, members in plain.items() for one in members}
    for part, members in both.items():
        assert members == sorted(members)
        assert all(part_of[one.replace("second", "e")] == part for one in members if one.startswith("second"))
    assert [sum(one.startswith("normal") for one in both[part]) for part in ("train", "val", "test")] == [8, 0, 2]


def test_who_has_no_label_does_not_validate(work: Path, tmp_path: Path) -> None:
    data = _data(work, tmp_path, unlabelled_fraction=0.3)
    data.split = {"train": ["left"], "val": ["normal", "right"], "test": []}
    assert [batch["exam_id"] for loader in data.val_dataloader() for batch in loader] == [["right"]]
    assert [batch["exam_id"] for batch in data.train_dataloader()] == [["left"]]


def test_an_unlabelled_fraction_of_nothing_is_told(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unlabelled_fraction is 1"):
        _data(work, tmp_path, unlabelled_fraction=1.0)
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["left"], "val": ["right"], "test": []}))
    for more in ({"splits": tmp_path / "splits.json"}, {"prompt": "all"}):
        with pytest.raises(ConfigError, match=r"no exam without a label can train.*--unlabelled-exams"):
            _data(work, tmp_path, unlabelled_fraction=0.3, **more)


def test_of_the_exams_without_a_label_others_come_in_each_epoch() -> None:
    """Six with labels, four without of which two are drawn; two processes take the same exams as one."""
    sampler = EpochSampler(10, 3, drawn=(4, 2))
    came = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        numbers = [number for of, number in sampler if of == epoch]
        assert len(sampler) == len(numbers) == 8
        assert set(range(6)) <= set(numbers)
        came |= set(numbers)
        halves = [EpochSampler(10, 3, rank=rank, processes=2, drawn=(4, 2)) for rank in range(2)]
        for half in halves:
            half.set_epoch(epoch)
        assert sorted(number for half in halves for _, number in half) == sorted(numbers)
        rest = EpochSampler(10, 3, step=2, drawn=(4, 2), taken=(epoch, 3))
        rest.set_epoch(epoch)
        assert [number for _, number in rest] == numbers[6:], "after three steps of two, the others of the same draw"
    assert came == set(range(10))
    plain, none = EpochSampler(10, 3), EpochSampler(14, 3, drawn=(4, 0))
    assert list(plain) == list(none)


def _data(work: Path, folder: Path, **options: Any) -> GroundingData:
    data = GroundingData(work, augment=None, validation_fraction=0, cache=folder / "cache", **options)
    data.grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24))
    data.setup("fit")
    return data


def test_denied_sentences_have_words_and_what_is_never_asked_has_none(work: Path) -> None:
    rows = read_table(work / "findings.parquet", "findings")
    assert {row["reason"]: bool(row["prompt"]) for row in rows} == {None: True, "negated": True, "reference": False}
    assert sum(row["reason"] == "negated" for row in rows) == 6


def test_where_slices_are_told_no_sentence_is_known_by_having_none(work: Path) -> None:
    assert [exam.negated for exam in read_exams(work, prompt="all")] == [(), ()]
    told = [one for exam in read_exams(work, prompt="words+suv") for one in exam.negated]
    assert len(told) == 4
    assert all("SUVmax 1." in one for one in told), "nor is one known by having no SUV where SUVs are told"


@pytest.mark.parametrize("pool", [True, False])
def test_denials_do_not_crowd_out_what_is_harder_to_know(pool: bool, tmp_path: Path) -> None:
    """However many sentences deny; without other exams' places there is still the other side."""
    own = Example("f001", "avid left axillary node", "m", "axillary", "left", 1.0)
    other = Example("f001", "avid adrenal lesion", "m", "adrenal", None, 1.0)
    exam = Exam("a", "a", None, "p", None, (own,), (own.place,), tuple(f"no uptake {n}" for n in range(MOST)))
    dataset = ExamDataset(
        tmp_path, [exam], GridSpec(), tmp_path, {}, sentences=8, pool=[own, other] if pool else [own],
        absent_fraction=0.5, swapped_fraction=0.5,
    )  # fmt: skip
    asked = [one for n in range(150) for one in dataset._choose(np.random.default_rng(n), exam)[1]]
    denied = sum(one.startswith("no ") for one in asked) / len(asked)
    swapped = asked.count("avid right axillary node") / len(asked)
    assert len(asked) == 600
    assert denied == pytest.approx(NEGATED, abs=0.05)
    assert swapped == pytest.approx((1 - NEGATED) * (0.5 if pool else 1.0), abs=0.06)

"""`petground export`: what leaves and what stays, folders that are ours, runs that go on where they were."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from export_work import PET_SHAPE, SHARES, decide, export, images, make_work, snapshot

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline import cli
from petground.pipeline.executors import Outcome
from petground.pipeline.executors.outcome import guarded
from petground.pipeline.exports.folder import check_folder, owned
from petground.pipeline.exports.formats import layout_of
from petground.pipeline.exports.layout import Options
from petground.pipeline.exports.run import draft, publish
from petground.pipeline.exports.select import select
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest; the card's own tests draw."""
    monkeypatch.setattr("petground.pipeline.exports.card.draw", lambda card: {})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("export") / "work", 6)


def test_the_newest_decision_decides_and_an_edited_outline_is_used(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 4, confidence=0.5)
    decide(
        work,
        ("e00", "f001", "accept", "2025-01-01T10:00:00Z"),
        ("e00", "f001", "not_lesion", "2025-01-02T10:00:00Z"),
        ("e00", "f002", "wrong_lesion", "2025-01-02T10:00:00Z"),
        ("e00", "f002", "accept", "2025-01-03T10:00:00Z"),
        ("e01", "f001", "wrong_lesion", "2025-01-02T10:00:00Z"),
        ("e02", "f001", "unsure", "2025-01-02T10:00:00Z"),
        ("e03", "f001", "adjust", "2025-01-02T10:00:00Z"),
    )
    pet, _ = images(3)
    drawn = np.zeros(PET_SHAPE, dtype=np.uint8)
    drawn[14, 9, 20] = 1
    write_nifti(work / "edited" / "e03" / "f001.nii.gz", pet.like(drawn, "label"))
    chosen = select(work)
    assert chosen.fates["e00", "f001"] == "not_lesion"
    assert chosen.fates["e00", "f002"] == "exported"
    assert chosen.fates["e01", "f001"] == "wrong_lesion"
    assert chosen.fates["e02", "f001"] == "unsure"
    assert {e: [x.finding_id for x in exam.lesions] for e, exam in chosen.exams.items()} == {
        "e00": ["f002"],
        "e01": ["f002"],
        "e02": ["f002"],
        "e03": ["f001", "f002"],
    }
    assert not chosen.exams["e00"].doubts, "a physician said: no lesion. That is background"
    assert [d.mask_path for d in chosen.exams["e01"].doubts] == ["labels/e01/f001.nii.gz"]
    assert chosen.exams["e03"].lesions[0].edited
    low = dict.fromkeys([("e01", "f002"), ("e02", "f002"), ("e03", "f002")], "below_confidence")
    assert select(work, min_confidence=0.9).fates == chosen.fates | low, "accepted: stays whatever its confidence"
    export(work, tmp_path / "out", "nnunet", shares={"train": 0.8, "val": 0.2, "test": 0.0})
    label = nib.load(tmp_path / "out" / "labelsTr" / "e03.nii.gz").get_fdata()
    assert label[14, 9, 20] == 1
    assert label[6, 8, 5] == 0, "the outline that was redrawn is not used any more"
    label = nib.load(tmp_path / "out" / "labelsTr" / "e01.nii.gz").get_fdata()
    assert (label[6, 8, 5], label[7, 8, 9]) == (2, 1), "a wrong lesion may be one: ignored"
    label = nib.load(tmp_path / "out" / "labelsTr" / "e00.nii.gz").get_fdata()
    assert (label[6, 8, 5], label[7, 8, 9]) == (0, 1)


def test_a_reviewers_own_file_stands_in_for_the_imported_decisions(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 2)
    path = decide(work, ("e00", "f001", "not_lesion", "2025-01-02T10:00:00Z"))
    other = path.rename(tmp_path / "mine.csv")
    assert select(work).fates["e00", "f001"] == "exported"
    assert select(work, decisions=other).fates["e00", "f001"] == "not_lesion"


def test_mentions_without_an_outline_are_ignored_kept_as_background_or_end_the_exam(tmp_path: Path) -> None:
    mention = {"exam_id": "e01", "finding_id": "f009", "sentence": "s", "suv": 4.0, "status": "excluded"}
    work = make_work(
        tmp_path / "work",
        3,
        findings=[mention | {"reason": "ambiguous_match"}, mention | {"exam_id": "e02", "reason": "physiologic"}],
        candidates=[
            {"exam_id": e, "finding_id": "f009", "rank": 0, "voxel_i": 12, "voxel_j": 8, "voxel_k": 20, "suv": 4.0}
            for e in ("e01", "e02")
        ],
    )
    shares = {"train": 1.0, "val": 0.0, "test": 0.0}
    done = export(work, tmp_path / "ignore", "nnunet", shares=shares)
    labels = {c.case: nib.load(tmp_path / "ignore" / str(c.files.union)).get_fdata() for c in done.release.cases}
    assert {case: label[12, 8, 20] for case, label in labels.items()} == {"e00": 0, "e01": 2, "e02": 0}
    assert set(np.unique(labels["e01"])) == {0, 1, 2}
    assert json.loads((tmp_path / "ignore" / "dataset.json").read_text())["labels"]["ignore"] == 2
    assert {c.case: c.exam.untold for c in done.release.cases} == {"e00": 0, "e01": 1, "e02": 0}
    export(work, tmp_path / "background", "nnunet", incomplete="background", shares=shares)
    assert nib.load(tmp_path / "background" / "labelsTr" / "e01.nii.gz").get_fdata().max() == 1
    assert "ignore" not in json.loads((tmp_path / "background" / "dataset.json").read_text())["labels"]
    done = export(work, tmp_path / "drop", "nnunet", incomplete="drop", shares=shares)
    assert [c.case for c in done.release.cases] == ["e00", "e02"]


def test_a_second_run_writes_nothing_and_gives_the_same_bytes(work: Path, tmp_path: Path) -> None:
    first = export(work, tmp_path, "nnunet")
    before = snapshot(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nii.gz")}
    again = export(work, tmp_path, "nnunet")
    assert (first.made, again.made, again.removed) == (6, 0, 0)
    assert snapshot(tmp_path) == before
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nii.gz")} == times


def test_an_interrupted_run_has_no_index_and_goes_on(work: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export(work, whole, "monai")

    def dies(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
        for number, (case, args) in enumerate(cases):
            if function.__name__ == "write_case" and number == 3:
                raise KeyboardInterrupt
            yield guarded(function, case, args)

    options = Options(to="monai", shares=SHARES)
    with owned(broken, "monai"), pytest.raises(KeyboardInterrupt):
        publish(work, broken, options, draft(work, options, run_cases=dies), name_of=None, run_cases=dies)
    assert not (broken / "datalist.json").exists()
    (broken / ".petground" / ".e05.abc.part").mkdir()
    done = export(work, broken, "monai")
    assert done.made == 3
    assert snapshot(broken) == snapshot(whole)


def test_a_damaged_file_is_written_anew_and_a_label_that_left_is_removed(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 4)
    root = tmp_path / "out"
    export(work, root, "monai")
    (root / "images" / "e01" / "pet.nii.gz").write_bytes(b"half")
    decide(
        work,
        ("e00", "f001", "not_lesion", "2025-01-01T00:00:00Z"),
        ("e02", "f001", "not_lesion", "2025-01-01T00:00:00Z"),
        ("e02", "f002", "not_lesion", "2025-01-01T00:00:00Z"),
    )
    done = export(work, root, "monai")
    assert done.made == 2
    assert done.removed == 1
    assert nib.load(root / "images" / "e01" / "pet.nii.gz").shape == PET_SHAPE
    assert not (root / "labels" / "e00" / "f001.nii.gz").exists()
    assert not (root / "images" / "e02").exists()
    fresh = tmp_path / "fresh"
    export(work, fresh, "monai")
    assert snapshot(root) == snapshot(fresh)


def test_a_case_that_fails_is_told_and_left_out(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 6)
    (work / "exams" / "e01" / "pet.nii.gz").write_bytes(b"no image")
    pet, _ = images(3)
    off = pet.like(np.ones(pet.shape, np.uint8), "label")
    moved = off.affine.copy()
    moved[0, 3] += 5.0
    write_nifti(work / "labels" / "e03" / "f001.nii.gz", type(pet)(off.array, moved, "label"))
    (work / "labels" / "e04" / "f001.nii.gz").unlink()
    done = export(work, tmp_path / "out", "nnunet", shares={"train": 0.8, "val": 0.2, "test": 0.0})
    assert {e: why.split(":")[0] for e, why in done.failures.items()} == {
        "e01": "unreadable",
        "e03": "geometry",
        "e04": "missing",
    }
    assert [c.case for c in done.release.cases] == ["e00", "e02", "e05"]
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["failed_exams"] == {"geometry": "<5", "missing": "<5", "unreadable": "<5"}
    assert {p.name for p in (tmp_path / "out" / "labelsTr").iterdir()} == {f"e0{n}.nii.gz" for n in (0, 2, 5)}
    assert len(json.loads((tmp_path / "out" / "dataset.json").read_text())) > 5


def test_one_image_under_two_patients_stays_in_one_part_or_is_dropped(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 12, copies={7: 2, 11: 2}, confidence=0.9)
    done = export(work, tmp_path / "out", "nnunet")
    parts = {c.case: c.split for c in done.release.cases}
    assert parts["e02"] == parts["e07"] == parts["e11"]
    rows = read_table(work / "duplicates.parquet", "duplicates")
    assert {(r["exam_a"], r["exam_b"]) for r in rows} == {("e02", "e07"), ("e07", "e11")}
    assert all(r["across_patients"] and r["evidence"] == "same_voxels" and r["kept"] == "both" for r in rows)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["duplicates"]["pairs across two patient ids"] == "<5"
    done = export(work, tmp_path / "out2", "nnunet", drop_duplicates=True)
    assert {"e02", "e07", "e11"} & {c.case for c in done.release.cases} == {"e02"}
    assert {r["kept"] for r in read_table(work / "duplicates.parquet", "duplicates")} == {"e02"}


def test_all_formats_and_later_exports_keep_a_patient_in_his_part(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 10)
    first = {c.case: c.split for c in export(work, tmp_path / "a", "nnunet").release.cases}
    assert {c.case: c.split for c in export(work, tmp_path / "b", "huggingface").release.cases} == first
    more = make_work(tmp_path / "work", 16)
    later = {c.case: c.split for c in export(more, tmp_path / "a", "nnunet").release.cases}
    assert {case: later[case] for case in first} == first
    assert sorted(later.values()).count("test") == 3
    ledger = work / "splits" / "60-20-20-seed0.json"
    anew = make_work(tmp_path / "anew", 16)
    options = Options(to="monai", shares=SHARES)
    plan = draft(anew, options, splits=ledger.rename(tmp_path / "old.json"))
    assert {e: plan.partition.part[x.patient_id] for e, x in plan.selection.exams.items()} == later


def test_hard_links_share_the_bytes_where_nothing_differs(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 2)
    export(work, tmp_path / "out", "monai", link=True)
    assert (tmp_path / "out" / "images" / "e00" / "pet.nii.gz").samefile(work / "exams" / "e00" / "pet.nii.gz")
    assert not (tmp_path / "out" / "images" / "e00" / "ct.nii.gz").samefile(work / "exams" / "e00" / "ct.nii.gz")


def test_foreign_folders_and_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match="not of an export"):
        check_folder(tmp_path / "theirs", "monai")
    with owned(tmp_path / "ours", "monai"):
        with pytest.raises(InputError, match="holds an export to monai"):
            check_folder(tmp_path / "ours", "nnunet")
        with pytest.raises(InputError, match="another run"), owned(tmp_path / "ours", "monai"):
            pass
    with pytest.raises(ConfigError, match="did you mean nnunet"):
        layout_of("nnUnet")


def test_when_nothing_may_leave_it_says_why(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 2, confidence=0.4)
    with pytest.raises(InputError, match="below_confidence 4"):
        select(work, min_confidence=0.5)


def test_a_part_that_nobody_is_in_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six exams of six patients with one image: they hang together, so there is nobody to validate or test on."""
    work = make_work(tmp_path / "work", 6, copies=dict.fromkeys(range(1, 6), 0))
    words = ["export", str(work), "--split", "60/20/20", "--workers", "1"]
    assert cli.main([*words, "--to", "nnunet", "--out", str(tmp_path / "raw")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nobody is in val and test: of 6 patients 6 are kept together by exams that look alike" in told
    assert "there is no imagesTs and no splits_final.json" in told
    root = tmp_path / "raw" / "Dataset501_Petground"
    assert not (root / "imagesTs").exists()
    assert not (root / "splits_final.json").exists()
    assert cli.main([*words, "--to", "monai", "--out", str(tmp_path / "monai")]) == 0
    assert "splits_final.json" not in capsys.readouterr().out


def test_a_few_patients_are_too_few_for_three_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = make_work(tmp_path / "work", 2)
    assert cli.main(["export", str(work), "--to", "nnunet", "--out", str(tmp_path / "raw"), "--workers", "1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "of 2 patients there are too few" in told


@pytest.mark.parametrize(
    ("split", "told"),
    [("50/60", "train 45.5 %, val 54.5 %"), ("4:1", "train 80 %, val 20 %"), ("60/20/20", "60 %, val 20 %, test 20 %")],
)
def test_the_shares_used_are_said(
    split: str, told: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(work), "--to", "monai", "--out", str(tmp_path / "out"), "--split", split, "--dry-run"]
    assert cli.main(words) == 0
    assert told in " ".join(capsys.readouterr().out.split())


def test_the_command_writes_a_data_set_and_a_dry_run_nothing(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "raw"
    words = ["export", str(work), "--to", "nnunet", "--out", str(out), "--split", "60/20/20", "--workers", "1"]
    before = sorted(p.name for p in work.iterdir())
    assert cli.main([*words, "--dry-run"]) == 0
    assert not out.exists()
    assert sorted(p.name for p in work.iterdir()) == before
    told = capsys.readouterr().out
    assert "Dataset501_Petground" in told
    assert "tracer: FDG" in told
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "6 exams with 12 labels (6 written now)" in told
    assert "exam ids leave as they are" in told
    with (out / "Dataset501_Petground" / "cases.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "80"], "80/10/10"),
        (["--spacing", "0,4,4"], "--spacing"),
        (["--spacing", "4,4"], "--spacing"),
        (["--min-confidence", "1.5"], "from 0 to 1"),
        (["--dataset", "X"], "Dataset501_Name"),
        (["--splits", "none.json"], "no splits file"),
        (["--anonymous-ids", "none.key"], "the key none.key cannot be read"),
        (["--decisions", "none.csv"], "no decisions"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_written(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["export", str(work), "--to", "monai", "--out", str(tmp_path / "out"), "--dry-run", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""What a WORK folder teaches: which labels and sentences, present and absent, on which grid, from which cache."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_work import AFFINE, GRID, SHAPE, data_of, make_work

from petground.labeling.errors import GeometryError, InputError, SchemaError
from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table, write_table
from petground.training import cache as cache_module
from petground.training.data import ExamDataset, GroundingData
from petground.training.grid import GridSpec
from petground.training.hits import count_hits
from petground.training.references import from_labels
from petground.training.work import leaks, read_exams, rejected


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("work"))


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


def test_items_hold_what_they_say(work: Path) -> None:
    data = data_of(work, sentences=4, absent_fraction=0.5, validation_fraction=0.0, augment=None)
    dataset = data._dataset("train", training=True)
    assert len(dataset) == 4
    for epoch in range(6):
        for number, exam in enumerate(dataset.exams):
            item = dataset[epoch, number]
            here = {example.prompt for example in exam.examples}
            assert len(item["sentences"]) == 4
            for sentence, target in zip(item["sentences"], item["target"], strict=True):
                assert (float(target.max()) == 1.0) == (sentence in here)
            again = dataset[epoch, number]
            assert again["sentences"] == item["sentences"]
    known = {tuple(dataset[epoch, 2]["sentences"]) for epoch in range(6)}
    assert len(known) > 1
    swapped = data_of(work, validation_fraction=0.0, augment=None, swapped_fraction=1.0, place_fraction=0.5)
    absent: set[str] = set()
    for epoch in range(8):
        item = swapped._dataset("train", training=True)[epoch, 0]  # its one finding lies on the right
        for sentence, target in zip(item["sentences"], item["target"], strict=True):
            assert sentence in swapped.prompts()
            assert bool(target.max()) == ("right" in sentence)
            absent |= set() if target.max() else {sentence}
    assert absent == {"Avid left axillary node.", "left axillary node"}
    whole = data_of(work, absent_fraction=0.0, validation_fraction=0.0)._dataset("train", training=False)[2]
    assert whole["sentences"] == [example.prompt for example in dataset.exams[2].examples]
    for sentence, target in zip(whole["sentences"], whole["target"], strict=True):
        x = np.argwhere(target.numpy() > 0.5)[:, 2].mean()
        assert (x > 11.5) == ("right" in sentence)  # x of a tensor grows to the patient's right


def test_cache_is_by_content_and_survives_damage(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = cache_module._make
    monkeypatch.setattr(cache_module, "_make", lambda w, exam, spec: made.append(exam.exam_id) or real(w, exam, spec))
    data_of(work)
    data_of(work)
    assert sorted(made) == ["e0", "e1", "e2", "e3"]
    mask = work / "labels/e0/f0.nii.gz"
    write_nifti(mask, Volume(np.roll(np.ones(SHAPE, dtype=np.uint8), 1), AFFINE, "label"))
    data_of(work)
    assert made[4:] == ["e0"]
    for file in (work / "cache" / "grids").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])
    data_of(work)
    assert len(made) == 9
    assert not list((work / "cache" / "grids").glob("*.part"))


def test_wrong_tables_name_the_exam(work: Path) -> None:
    labels = read_table(work / "labels.parquet", "labels")
    write_table(work / "labels.parquet", "labels", [{**labels[0], "prompt": "Node with SUVmax 5.4 on slice 88."}])
    with pytest.raises(InputError, match=r"e0: .*still tells") as caught:
        read_exams(work)
    assert "5.4" not in str(caught.value)
    write_table(work / "labels.parquet", "labels", [{**labels[0], "mask_path": "labels/none.nii.gz"}])
    with pytest.raises(InputError, match=r"e0: .*missing"):
        read_exams(work)
    write_table(work / "labels.parquet", "labels", [])
    with pytest.raises(InputError, match="no labels"):
        read_exams(work)
    write_table(work / "labels.parquet", "labels", labels)
    assert sum(len(exam.examples) for exam in read_exams(work)) == 7
    assert sum(len(exam.examples) for exam in read_exams(work, min_confidence=0.6)) == 6
    other = np.diag([9.0, 10.0, 10.0, 1.0])
    write_nifti(work / "labels/e0/f0.nii.gz", Volume(np.ones(SHAPE, dtype=np.uint8), other, "label"))
    with pytest.raises(GeometryError, match="e0"):
        data_of(work)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("Left node, SUVmax 5.4.", True),
        ("Left node (3:104).", True),
        ("Left node on image 12.", True),
        ("T11 vertebral body lesion, 1.4 x 2.0 cm.", False),
        ("Right 7th rib lesion, 12 mm, on the axial image.", False),
    ],
)
def test_leaks(prompt: str, told: bool) -> None:
    assert leaks(prompt) == told


def _decide(work: Path, *rows: tuple[str, str, str, str]) -> None:
    names = ("exam_id", "finding_id", "decision", "reason", "reviewer", "time", "version", "label_hash")
    with (work / "decisions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="x")
        writer.writeheader()
        writer.writerows(dict(zip(("exam_id", "finding_id", "decision", "time"), row, strict=True)) for row in rows)


def test_labels_whose_newest_decision_rejects_them_neither_teach_nor_measure(work: Path, tmp_path: Path) -> None:
    _decide(
        work,
        ("e0", "f0", "wrong_lesion", "2025-03-02T09:00:00Z"),
        ("e0", "f0", "accept", "2025-03-01T09:00:00Z"),  # imported later, decided earlier
        ("e1", "f0", "not_lesion", "2025-03-01T09:00:00"),
        ("e1", "f0", "accept", "2025-03-01T09:00:00Z"),  # taken back
        ("e1", "f1", "accept", "2025-03-01T12:00:00+02:00"),
        ("e1", "f1", "not_lesion", "2025-03-01T11:00:00Z"),  # an hour later
        ("e2", "f2", "unsure", "2025-03-01T09:00:00Z"),
    )
    assert rejected(work) == {("e0", "f0"), ("e1", "f1"), ("e2", "f2")}, "unsure is out, too"
    kept = [(exam.exam_id, example.finding_id) for exam in read_exams(work) for example in exam.examples]
    assert kept == [("e1", "f0"), ("e2", "f0"), ("e2", "f1"), ("e3", "f0")]
    assert sorted((r.exam_id, r.key) for r in from_labels(work)) == kept
    splits = tmp_path / "splits.json"
    splits.write_text('{"train": ["e0", "e1"], "val": ["e2", "e3"]}')
    assert data_of(work, splits=splits).split == {"train": ["e1"], "val": ["e2", "e3"]}
    _decide(work, ("e0", "f0", "wrong_lesion", "yesterday"))
    with pytest.raises(SchemaError, match="line 2"):
        read_exams(work)


def test_sentences_without_words_are_left_out_and_counted(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = read_table(work / "labels.parquet", "labels")
    prompts = {"e1": " .", "e3": ""}
    rows = [{**row, "prompt": prompts.get(row["exam_id"], row["prompt"]), "suv_measured": 5.0} for row in labels]
    write_table(work / "labels.parquet", "labels", rows)
    with caplog.at_level(logging.WARNING):
        assert [exam.exam_id for exam in read_exams(work)] == ["e0", "e2"]
    assert "3 labels are left out" in caplog.text
    assert [r.exam_id for r in from_labels(work) if r.prompt is None] == ["e1", "e1", "e3"]


def test_labels_outside_the_grid_are_left_out_by_name(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    for exam, label in (("e0", "f0"), ("e2", "f1")):
        mask = np.zeros(SHAPE, dtype=np.uint8)
        mask[8, 8, 0] = 1  # at the feet, below a grid that is too short
        write_nifti(work / f"labels/{exam}/{label}.nii.gz", Volume(mask, AFFINE, "label"))
    data = GroundingData(work, validation_fraction=0.0, absent_fraction=0.0, augment=None)
    data.grid = GridSpec((10.0, 10.0, 10.0), (32, 16, 24))
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
        data.setup("validate")
    assert "e0: label f0 lies outside" in caplog.text
    assert "e2: label f1 lies outside" in caplog.text
    assert data.split["train"] == ["e1", "e2", "e3"]
    dataset = data._dataset("train", training=False)
    assert [example.finding_id for example in dataset.exams[1].examples] == ["f0", "f2"]
    for number in range(3):
        assert (dataset[number]["target"].amax(dim=(1, 2, 3)) > 0).all()
    sides = [float(np.argwhere(target.numpy() > 0.5)[:, 2].mean()) > 11.5 for target in dataset[1]["target"]]
    assert sides == ["right" in sentence for sentence in dataset[1]["sentences"]]


def test_what_the_report_tells_of_is_never_taught_as_absent(work: Path) -> None:
    """e0 has a label on the right; without more it may be asked for the left axilla and the adrenal."""

    def asked(*more: dict[str, Any]) -> set[str]:
        rows = read_table(work / "findings.parquet", "findings")
        write_table(work / "told.parquet", "findings", rows)
        write_table(work / "findings.parquet", "findings", [*rows, *({"exam_id": "e0", **row} for row in more)])
        dataset = data_of(work, validation_fraction=0.0, augment=None)._dataset("train", training=True)
        (work / "told.parquet").replace(work / "findings.parquet")
        items = [dataset[epoch, 0] for epoch in range(12)]
        return {s for item in items for s, t in zip(item["sentences"], item["target"], strict=True) if not t.any()}

    left, adrenal = "Avid left axillary node.", "Avid left adrenal lesion."
    assert asked() == {left, adrenal}
    assert asked({"site": "axilla", "laterality": "left", "reason": "no_match"}) == {adrenal}
    assert asked({"site": "adrenal", "laterality": None, "reason": "no_slice"}) == {left}
    assert asked({"site": "adrenal", "laterality": "left", "reason": "prior"}) == {left, adrenal}


def test_a_lesion_without_a_place_could_be_any_on_its_side(work: Path) -> None:
    rows = read_table(work / "findings.parquet", "findings")
    more = {"exam_id": "e0", "site": None, "laterality": "left", "reason": "no_match"}
    write_table(work / "findings.parquet", "findings", [*rows, more])
    dataset = data_of(work, validation_fraction=0.0, augment=None)._dataset("train", training=True)
    assert all(target.any() for epoch in range(12) for target in dataset[epoch, 0]["target"])


def test_sentences_that_the_report_denies_are_asked_and_answered_by_nothing(work: Path) -> None:
    rows = read_table(work / "findings.parquet", "findings")
    denied = {
        "exam_id": "e0", "site": "iliac node", "laterality": "left", "reason": "negated",
        "prompt": "A 6 mm left iliac node is not avid.",
    }  # fmt: skip
    write_table(work / "findings.parquet", "findings", [*rows, denied])
    data = data_of(work, validation_fraction=0.0, augment=None, absent_fraction=0.5)
    assert denied["prompt"] in data.prompts()
    dataset = data._dataset("train", training=True)
    asked = [
        bool(target.any())
        for epoch in range(20)
        for item in [dataset[epoch, 0]]
        for sentence, target in zip(item["sentences"], item["target"], strict=True)
        if sentence == denied["prompt"]
    ]
    assert asked
    assert not any(asked)


@pytest.mark.parametrize("sentences", [1, 2, 4])
def test_the_share_of_absent_sentences_is_kept(work: Path, sentences: int) -> None:
    data = data_of(work, sentences=sentences, absent_fraction=0.3, validation_fraction=0.0, augment=None)
    dataset = data._dataset("train", training=True)
    empty = [
        [not target.any() for epoch in range(80) for target in dataset[epoch, number]["target"]]
        for number in range(len(dataset))
    ]
    shares = [np.mean(one) for one in empty if any(one)]  # an exam may have no sentence that is surely absent
    assert len(shares) >= 2
    assert abs(np.mean(shares) - 0.3) < 0.07
    assert {len(dataset[epoch, 0]["sentences"]) for epoch in range(9)} == {sentences}


def test_validation_asks_for_absent_places_too_and_always_the_same(work: Path) -> None:
    data = data_of(work, absent_fraction=0.5, validation_fraction=0.4)
    dataset = data._dataset("val", training=False)
    false_alarms = 0
    for number, exam in enumerate(dataset.exams):
        item = dataset[number]
        assert item["sentences"] == dataset[5, number]["sentences"]
        present = [example.prompt for example in exam.examples]
        assert item["sentences"][: len(present)] == present
        here = {example.prompt for example in exam.examples}
        absent = item["sentences"][len(present) :]
        assert not here & set(absent)
        assert not item["target"][len(present) :].any()
        target = item["target"].numpy() > 0.5
        hits = count_hits(np.ones(target.shape, dtype=np.float32), target, 0.5, np.ones(len(target)), [0.0])[0.0]
        assert (hits.predicted, hits.wanted) == (len(item["sentences"]), len(present))
        false_alarms += len(absent)
    assert false_alarms
    last = len(dataset) - 1
    assert last > 0
    for seed in range(12):  # the same whichever exams validate beside it
        both, alone = (
            ExamDataset(
                work, exams, GRID, data.cache / "grids", data._keys,
                sentences=None, pool=dataset._pool, absent_fraction=0.45, seed=seed,
            )
            for exams in (dataset.exams, dataset.exams[last:])
        )  # fmt: skip
        assert both[last]["sentences"] == alone[0]["sentences"]


def test_samples_do_not_hang_on_the_process(work: Path) -> None:
    """Loader processes get the dataset by pickle."""
    import pickle

    data = data_of(work, validation_fraction=0.0)
    dataset = data._dataset("train", training=True)
    copy: ExamDataset = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[3, 1]["image"], dataset[3, 1]["image"])

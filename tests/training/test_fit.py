"""From WORK folder to checkpoint and back, small: reading, caching, leakage, resume, what a checkpoint holds."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from petground.labeling.errors import ConfigError, GeometryError, InputError, PetgroundError, SchemaError
from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table, write_table
from petground.pipeline.splits import patient_hash
from petground.training import cache as cache_module
from petground.training.cli import main
from petground.training.data import ExamDataset, GroundingData
from petground.training.grid import GridSpec
from petground.training.hits import count_hits
from petground.training.module import GroundingModule
from petground.training.references import from_labels
from petground.training.work import leaks, read_exams, rejected

SITES = [("axillary node", "right"), ("adrenal lesion", "left"), ("axillary node", "left")]
SHAPE = (30, 20, 40)
AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])


def _exam(work: Path, number: int, rows: dict[str, list[dict[str, Any]]], sites: list[tuple[str, str]]) -> None:
    exam_id = f"e{number}"
    rng = np.random.default_rng(number)
    pet = np.zeros(SHAPE, dtype=np.float32)
    pet[4:26, 4:16, 2:38] = 1.0 + 0.1 * rng.random((22, 12, 36), dtype=np.float32)
    rows["exams"].append(
        {"exam_id": exam_id, "patient_id": f"p{number // 2}", "status": "ok", "pet_path": f"exams/{exam_id}/pet.nii.gz"}
    )
    for n, (site, side) in enumerate(sites):
        i = (22 if side == "right" else 7) + int(rng.integers(-1, 2))
        k = 30 if site.startswith("axillary") else 18
        mask = np.zeros(SHAPE, dtype=np.uint8)
        mask[i - 1 : i + 2, 8:11, k : k + 3] = 1
        pet[mask > 0] = 8.0
        path = f"labels/{exam_id}/f{n}.nii.gz"
        write_nifti(work / path, Volume(mask, AFFINE, "label"))
        rows["labels"].append(
            {"exam_id": exam_id, "finding_id": f"f{n}", "prompt": f"Avid {side} {site}.", "mask_path": path,
             "site": site, "laterality": side, "confidence": 0.9 - 0.2 * n, "patient_id": f"p{number // 2}"}
        )  # fmt: skip
        rows["findings"].append(
            {"exam_id": exam_id, "finding_id": f"f{n}", "site": site, "laterality": side, "status": "positive"}
        )
    write_nifti(work / f"exams/{exam_id}/pet.nii.gz", Volume(pet, AFFINE, "SUVbw"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    rows: dict[str, list[dict[str, Any]]] = {"exams": [], "labels": [], "findings": []}
    for number in range(4):
        _exam(work, number, rows, SITES[: 1 + number % 3])
    for name, table in rows.items():
        write_table(work / f"{name}.parquet", name, table)
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


GRID = GridSpec((10.0, 10.0, 10.0), (40, 16, 24))


def _data(work: Path, **options: Any) -> GroundingData:
    data = GroundingData(work, **options)
    data.grid = GRID
    data.prepare_data()
    data.setup("validate")
    return data


def _flags(work: Path, run: Path, *more: str) -> list[str]:
    flags = {
        "data.work": work, "data.validation_fraction": 0.4, "data.sentences": 2, "data.absent_fraction": 0.5,
        "model.net.features": "[4,8]", "model.net.encoder": "plain", "model.net.blocks_per_stage": 1,
        "model.net.decoder_convs": 1, "model.net.fusion_stages": "[0]",
        "model.grid.spacing_xyz_mm": "[10.,10.,10.]", "model.grid.shape_zyx": "[40,16,24]",
        "model.optimizer.lr": 0.01, "model.optimizer.warmup_steps": 2, "trainer.default_root_dir": run,
        "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
        "trainer.num_sanity_val_steps": 0,
    }  # fmt: skip
    return ["fit", *(f"--{key}={value}" for key, value in flags.items()), *more]


def _losses(folder: Path) -> dict[int, float]:
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")}


def test_fit_dies_resumes_to_the_same_losses_and_the_checkpoint_builds_itself(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(_flags(work, whole, "--trainer.max_epochs=3")) == 0
    step = GroundingModule.training_step

    def dying(module: GroundingModule, batch: Any, index: int) -> torch.Tensor:
        if module.global_step == 3:
            raise RuntimeError("killed")
        return step(module, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", dying)
        with pytest.raises(RuntimeError, match="killed"):
            main(_flags(work, parts, "--trainer.max_epochs=3"))
    assert main(_flags(work, parts, "--trainer.max_epochs=3", "--ckpt_path=last")) == 0
    again = _losses(parts / "version_0") | _losses(parts / "version_1")
    losses = _losses(whole / "version_0")
    assert sorted(losses) == [0, 1, 2, 3, 4, 5]
    assert sorted(_losses(parts / "version_1")) == [2, 3, 4, 5]
    assert again == pytest.approx(losses, rel=1e-4)

    run = json.loads((whole / "version_0" / "run.json").read_text())
    assert run["finished"]
    assert run["steps"] == 6
    splits = json.loads((whole / "version_0" / "splits.json").read_text())
    assert sorted(splits["train"] + splits["val"]) == ["e0", "e1", "e2", "e3"]
    assert (whole / "version_0" / "config.yaml").is_file()
    assert list((whole / "version_0").glob("events.out.tfevents*"))
    last = whole / "checkpoints" / "last.ckpt"
    assert (whole / "checkpoints" / "best.ckpt").is_file()

    stored = torch.load(last, weights_only=True)  # plain values only
    assert stored["petground"]["splits"] == splits
    assert stored["petground"]["trained_on"] == splits["train"]
    patients = [f"p{int(exam[1]) // 2}" for exam in splits["train"]]
    assert stored["petground"]["trained_patients"] == sorted({patient_hash(one) for one in patients})
    assert "torch" in stored["petground"]["versions"]
    module = GroundingModule.load_from_checkpoint(last)
    assert module.grid == GRID
    assert module.net_config.features == [4, 8]
    assert module.provenance["step"] == 6

    with pytest.raises(ConfigError, match="already holds a training"):
        main(_flags(work, whole, "--trainer.max_steps=4"))


def test_without_validation_the_newest_is_kept(work: Path, tmp_path: Path) -> None:
    assert main(_flags(work, tmp_path / "run", "--trainer.max_steps=2", "--data.validation_fraction=0")) == 0
    assert {file.name for file in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_predict_encodes_once_and_equals_single_sentences(work: Path) -> None:
    data = _data(work)
    torch.manual_seed(0)
    module = GroundingModule(
        net={"features": [4, 8], "fusion_stages": [0], "encoder": "plain"},  # type: ignore[arg-type]
        grid=GRID,
    )
    item = data._dataset("train", training=False)[0]
    calls: list[int] = []
    module.net.encoder.register_forward_hook(lambda *_: calls.append(1))
    sentences = ["Avid left adrenal lesion.", "", "Avid right axillary node with more words."]
    image = item["image"].numpy()
    together = module.predict(image, sentences, chunk=2).probabilities
    assert len(calls) == 1
    assert together.shape == (3, *GRID.shape_zyx)
    alone = np.stack([module.predict(image, [one]).probabilities[0] for one in sentences])
    assert np.abs(together - alone).max() < 2e-2  # bfloat16
    with pytest.raises(InputError, match="grid"):
        module.predict(image[:, :8], sentences)


def test_items_hold_what_they_say(work: Path) -> None:
    data = _data(work, sentences=4, absent_fraction=0.5, validation_fraction=0.0, augment=None)
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
    swapped = _data(work, validation_fraction=0.0, augment=None, swapped_fraction=1.0, place_fraction=0.5)
    absent: set[str] = set()
    for epoch in range(8):
        item = swapped._dataset("train", training=True)[epoch, 0]  # its one finding lies on the right
        for sentence, target in zip(item["sentences"], item["target"], strict=True):
            assert sentence in swapped.prompts()
            assert bool(target.max()) == ("right" in sentence)
            absent |= set() if target.max() else {sentence}
    assert absent == {"Avid left axillary node.", "left axillary node"}
    whole = _data(work, absent_fraction=0.0, validation_fraction=0.0)._dataset("train", training=False)[2]
    assert whole["sentences"] == [example.prompt for example in dataset.exams[2].examples]
    for sentence, target in zip(whole["sentences"], whole["target"], strict=True):
        x = np.argwhere(target.numpy() > 0.5)[:, 2].mean()
        assert (x > 11.5) == ("right" in sentence)  # x of a tensor grows to the patient's right


def test_cache_is_by_content_and_survives_damage(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = cache_module._make
    monkeypatch.setattr(cache_module, "_make", lambda w, exam, spec: made.append(exam.exam_id) or real(w, exam, spec))
    _data(work)
    _data(work)
    assert sorted(made) == ["e0", "e1", "e2", "e3"]
    mask = work / "labels/e0/f0.nii.gz"
    write_nifti(mask, Volume(np.roll(np.ones(SHAPE, dtype=np.uint8), 1), AFFINE, "label"))
    _data(work)
    assert made[4:] == ["e0"]
    for file in (work / "cache" / "grids").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])
    _data(work)
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
        _data(work)


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


def test_a_loss_that_is_no_number_names_the_exam(work: Path) -> None:
    data = _data(work)
    module = GroundingModule(net={"features": [4, 8], "fusion_stages": [0]}, grid=GRID)  # type: ignore[arg-type]
    batch: dict[str, Any] = next(_batches(data))
    batch["image"] = batch["image"] * float("nan")
    with pytest.raises(PetgroundError, match=rf"^{batch['exam_id'][0]}: the loss is nan"):
        module.training_step(batch, 0)


def _batches(data: GroundingData) -> Iterator[dict[str, Any]]:
    return iter(data.train_dataloader())  # type: ignore[arg-type]


def test_wrong_usage_is_answered_with_the_nearest_names(work: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(_flags(work, tmp_path / "run", "--model.optimizer.lrr=1")) == 2
    assert "model.optimizer.lr" in capsys.readouterr().err
    config = tmp_path / "c.yaml"
    config.write_text("model: {net: {featuers: [4, 8]}}\n")
    assert main(["fit", f"--config={config}", f"--data.work={work}"]) == 2
    assert "model.net.features" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="num_heads"):
        main(_flags(work, tmp_path / "run", "--model.net.fusion={name: contextual_gate, heads: 2}"))
    with pytest.raises(ConfigError, match="multiples of"):
        main(_flags(work, tmp_path / "run", "--model.grid.shape_zyx=[41,16,24]"))
    with pytest.raises(ConfigError, match="demo"):
        main(["fit", "--config", "dem", f"--data.work={work}"])
    assert main(["--help"]) == 0


@pytest.mark.parametrize("name", ["demo", "contextual_net_3d"])
def test_shipped_configs_are_valid(name: str, work: Path, capsys: Any) -> None:
    assert main(["fit", "--config", name, f"--data.work={work}", "--run_dir", "here", "--print_config"]) == 0
    said = capsys.readouterr().out
    assert "contextual_gate" in said
    assert "default_root_dir: here" in said


def test_going_on_with_another_split_forgets_nobody(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text('{"train": ["e0", "e1"], "val": ["e2"]}')
    second.write_text('{"train": ["e2"], "val": ["e0"]}')
    assert main(_flags(work, run, "--trainer.max_epochs=1", f"--data.splits={first}")) == 0
    go_on = _flags(work, run, "--trainer.max_epochs=2", f"--data.splits={second}", "--ckpt_path=last")
    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(go_on)
    began = json.loads((run / "version_1" / "run.json").read_text())
    assert not began["finished"]
    assert began["splits"] == {"train": ["e2"], "val": ["e0"]}
    assert main(go_on) == 0
    made = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["petground"]
    assert made["splits"] == began["splits"]
    assert made["trained_on"] == ["e0", "e1", "e2"]
    assert made["validated_on"] == ["e0", "e2"]
    assert made["trained_patients"] == sorted({patient_hash("p0"), patient_hash("p1")})


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
    assert rejected(work) == {("e0", "f0"), ("e1", "f1")}
    kept = [(exam.exam_id, example.finding_id) for exam in read_exams(work) for example in exam.examples]
    assert kept == [("e1", "f0"), ("e2", "f0"), ("e2", "f1"), ("e2", "f2"), ("e3", "f0")]
    assert sorted((r.exam_id, r.key) for r in from_labels(work)) == kept
    splits = tmp_path / "splits.json"
    splits.write_text('{"train": ["e0", "e1"], "val": ["e2", "e3"]}')
    assert _data(work, splits=splits).split == {"train": ["e1"], "val": ["e2", "e3"]}
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
        dataset = _data(work, validation_fraction=0.0, augment=None)._dataset("train", training=True)
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
    dataset = _data(work, validation_fraction=0.0, augment=None)._dataset("train", training=True)
    assert all(target.any() for epoch in range(12) for target in dataset[epoch, 0]["target"])


def test_sentences_that_the_report_denies_are_asked_and_answered_by_nothing(work: Path) -> None:
    rows = read_table(work / "findings.parquet", "findings")
    denied = {
        "exam_id": "e0", "site": "iliac node", "laterality": "left", "reason": "negated",
        "prompt": "A 6 mm left iliac node is not avid.",
    }  # fmt: skip
    write_table(work / "findings.parquet", "findings", [*rows, denied])
    data = _data(work, validation_fraction=0.0, augment=None, absent_fraction=0.5)
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
    data = _data(work, sentences=sentences, absent_fraction=0.3, validation_fraction=0.0, augment=None)
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
    data = _data(work, absent_fraction=0.5, validation_fraction=0.4)
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


def test_arguments_of_the_process_are_no_reason_to_warn(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["petground", "train", "fit"])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*args parameter.*")
        assert main(["fit", "--config", "demo", f"--data.work={work}", "--print_config"]) == 0


def test_samples_do_not_hang_on_the_process(work: Path) -> None:
    """Loader processes get the dataset by pickle."""
    import pickle

    data = _data(work, validation_fraction=0.0)
    dataset = data._dataset("train", training=True)
    copy: ExamDataset = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[3, 1]["image"], dataset[3, 1]["image"])


def test_ctrl_c_is_told_as_such_and_not_as_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr("petground.training.cli.TrainCLI", stopped)
    with pytest.raises(KeyboardInterrupt):
        main(["fit", "--config", "demo"])

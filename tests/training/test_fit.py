"""A fit, small: it resumes to the same losses, its checkpoint builds itself, wrong usage is told."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_work import GRID, data_of, flags_of, make_work

from petground.labeling.errors import ConfigError, InputError, PetgroundError
from petground.pipeline.splits import patient_hash
from petground.training.augment import AugmentConfig
from petground.training.cli import main
from petground.training.data import GroundingData
from petground.training.dataset import collate
from petground.training.module import GroundingModule


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("work"))


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


def _losses(folder: Path) -> dict[int, float]:
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")}


def test_fit_dies_resumes_to_the_same_losses_and_the_checkpoint_builds_itself(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(flags_of(work, whole, "--trainer.max_epochs=3")) == 0
    step = GroundingModule.training_step

    def dying(module: GroundingModule, batch: Any, index: int) -> torch.Tensor:
        if module.global_step == 3:
            raise RuntimeError("killed")
        return step(module, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", dying)
        with pytest.raises(RuntimeError, match="killed"):
            main(flags_of(work, parts, "--trainer.max_epochs=3"))
    assert main(flags_of(work, parts, "--trainer.max_epochs=3", "--ckpt_path=last")) == 0
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
        main(flags_of(work, whole, "--trainer.max_steps=4"))


def test_without_validation_the_newest_is_kept(work: Path, tmp_path: Path) -> None:
    assert main(flags_of(work, tmp_path / "run", "--trainer.max_steps=2", "--data.validation_fraction=0")) == 0
    assert {file.name for file in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_predict_encodes_once_and_equals_single_sentences(work: Path) -> None:
    data = data_of(work)
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


def test_a_loss_that_is_no_number_names_the_exam(work: Path) -> None:
    data = data_of(work)
    module = GroundingModule(net={"features": [4, 8], "fusion_stages": [0]}, grid=GRID)  # type: ignore[arg-type]
    batch: dict[str, Any] = next(_batches(data))
    batch["image"] = batch["image"] * float("nan")
    with pytest.raises(PetgroundError, match=rf"^{batch['exam_id'][0]}: the loss is nan"):
        module.training_step(batch, 0)


def test_a_lesion_that_augmentation_pushed_out_of_the_grid_is_not_taught_as_absent(work: Path) -> None:
    far = AugmentConfig(affine_chance=1.0, rotate_rad=0.0, scale=0.0, shift_voxels=24.0)
    data = data_of(work, augment=far, sentences=4, absent_fraction=0.25, validation_fraction=0.0)
    dataset = data._dataset("train", training=True)
    kinds: set[float | None] = set()
    for epoch, number in itertools.product(range(6), range(len(dataset))):
        item = dataset[epoch, number]
        assert collate([item])["present"].shape == (1, 4)
        here = {example.prompt for example in dataset.exams[number].examples}
        for sentence, target, present in zip(item["sentences"], item["target"], item["present"].tolist(), strict=True):
            shown = 1.0 if target.max() >= 0.5 else None
            told = None if math.isnan(present) else present
            assert told == (shown if sentence in here else 0.0)
            kinds.add(told)
    assert kinds == {0.0, 1.0, None}


def _batches(data: GroundingData) -> Iterator[dict[str, Any]]:
    return iter(data.train_dataloader())  # type: ignore[arg-type]


def test_wrong_usage_is_answered_with_the_nearest_names(work: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(flags_of(work, tmp_path / "run", "--model.optimizer.lrr=1")) == 2
    assert "model.optimizer.lr" in capsys.readouterr().err
    config = tmp_path / "c.yaml"
    config.write_text("model: {net: {featuers: [4, 8]}}\n")
    assert main(["fit", f"--config={config}", f"--data.work={work}"]) == 2
    assert "model.net.features" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="num_heads"):
        main(flags_of(work, tmp_path / "run", "--model.net.fusion={name: contextual_gate, heads: 2}"))
    with pytest.raises(ConfigError, match="multiples of"):
        main(flags_of(work, tmp_path / "run", "--model.grid.shape_zyx=[41,16,24]"))
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
    first.write_text('{"train": ["e0"], "val": ["e2"]}')
    second.write_text('{"train": ["e1", "e2"], "val": []}')
    assert main(flags_of(work, run, "--trainer.max_epochs=1", f"--data.splits={first}")) == 0
    go_on = flags_of(work, run, "--trainer.max_epochs=2", f"--data.splits={second}", "--ckpt_path=last")
    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(go_on)
    began = json.loads((run / "version_1" / "run.json").read_text())
    assert not began["finished"]
    assert began["splits"] == {"train": ["e1", "e2"], "val": []}
    assert main(go_on) == 0
    made = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["petground"]
    assert made["splits"] == began["splits"]
    assert made["trained_on"] == ["e0", "e1", "e2"]
    assert made["validated_on"] == ["e2"]
    assert made["trained_patients"] == sorted({patient_hash("p0"), patient_hash("p1")})


def test_arguments_of_the_process_are_no_reason_to_warn(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["petground", "train", "fit"])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*args parameter.*")
        assert main(["fit", "--config", "demo", f"--data.work={work}", "--print_config"]) == 0


def test_ctrl_c_is_told_as_such_and_not_as_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr("petground.training.cli.TrainCLI", stopped)
    with pytest.raises(KeyboardInterrupt):
        main(["fit", "--config", "demo"])

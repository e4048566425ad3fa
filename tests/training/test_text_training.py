"""A network trained together with its text encoder: from a config to a checkpoint that says the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_text import make_text_model

from petground.labeling.errors import ConfigError
from petground.models.text.encoder import TextEncoder
from petground.pipeline.nifti import read_nifti
from petground.training.cli import main
from petground.training.inference import ground_volumes, load_module
from petground.training.module import GroundingModule

NET = {"features": [4, 8], "fusion_stages": [0], "encoder": "plain", "blocks_per_stage": 1, "decoder_convs": 1}
SAID = ["Avid left adrenal lesion.", "", "Avid right axillary node."]


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_model(tmp_path_factory.mktemp("reader") / "bert", "bert")


def _flags(work: Path, run: Path, reader: Path, train: str, **more: Any) -> list[str]:
    flags = {
        "data.work": work, "run_dir": run, "data.workers": 0, "data.test_fraction": 0, "data.validation_fraction": 0.3,
        "data.sentences": 2, **{f"model.net.{name}": value for name, value in NET.items()},
        "model.text.name": reader, "model.text.train": train, "model.text.lr_factor": 0.5,
        "model.grid.spacing_xyz_mm": "[12.,12.,12.]", "model.grid.shape_zyx": "[32,16,24]",
        "model.optimizer.lr": 0.02, "model.optimizer.warmup_steps": 0, "trainer.accelerator": "cpu",
        "trainer.precision": "32-true", "trainer.enable_progress_bar": "false", "trainer.num_sanity_val_steps": 0,
        "trainer.enable_model_summary": "false", "trainer.log_every_n_steps": 1,
    }  # fmt: skip
    flags |= {name.replace("__", "."): value for name, value in more.items()}
    return ["fit", *(f"--{key}={value}" for key, value in flags.items())]


def _answers(checkpoint: Path, work: Path) -> np.ndarray:
    pet = read_nifti(work / "exams/e0/pet.nii.gz", "SUVbw")
    return np.stack([one.probability.array for one in ground_volumes(load_module(checkpoint), pet, None, SAID)])


@pytest.mark.parametrize("train", ["lora", "full"])
def test_the_encoder_learns_with_the_network_and_goes_with_the_checkpoint(
    train: str, patch_work: Path, tmp_path: Path, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if train == "lora":
        pytest.importorskip("peft", reason="the extra lora is not installed")

    def banked(*_: Any) -> None:
        raise AssertionError("a trained encoder has no states that could be kept")

    monkeypatch.setattr(TextEncoder, "__call__", banked)
    run = tmp_path / "run"
    ema = {"model__optimizer__ema": 0.5 if train == "lora" else 0.0}  # the average, too, holds adapters alone
    assert main(_flags(patch_work, run, reader, train, trainer__max_epochs=1, **ema)) == 0
    assert main(_flags(patch_work, run, reader, train, trainer__max_epochs=2, ckpt_path="last", **ema)) == 0
    checkpoint = run / "checkpoints" / "last.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    text = {name: tensor for name, tensor in stored["state_dict"].items() if name.startswith("text_model.")}
    assert text
    assert all("lora_" in name for name in text) == (train == "lora")
    rates = [group["initial_lr"] for group in stored["optimizer_states"][0]["param_groups"]]
    assert rates[:2] == [0.02, 0.02]
    assert set(rates[2:]) == {0.01}
    assert len(rates) == (3 if train == "lora" else 4), "adapters have no biases"

    fresh = GroundingModule(net=NET, text=stored["hyper_parameters"]["text"] | {"pretrained": True})  # type: ignore[arg-type]
    assert fresh.text_model is not None
    start = fresh.text_model.state_dict()
    moved = [name for name in start if not torch.allclose(text[f"text_model.{name}"], start[name], atol=1e-4)]
    assert any("lora_B" in name if train == "lora" else "layer.0" in name for name in moved)

    said = _answers(checkpoint, patch_work)
    assert not np.allclose(said[0], said[2], atol=1e-5), "sentences differ"
    if train == "full":  # config and tokenizer are enough: the weights are in the checkpoint
        (reader / "model.safetensors").rename(reader / "model.away")
        try:
            assert np.array_equal(_answers(checkpoint, patch_work), said)
        finally:
            (reader / "model.away").rename(reader / "model.safetensors")
    else:
        other = make_text_model(tmp_path / "other", "bert", seed=1)
        stored["hyper_parameters"]["text"]["name"] = str(other)
        torch.save(stored, tmp_path / "other.ckpt")
        with pytest.raises(ConfigError, match="not the one this checkpoint was trained with"):
            load_module(tmp_path / "other.ckpt")


def test_gradients_reach_the_adapters_from_the_loss_on_masks(reader: Path, patch_work: Path) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    torch.manual_seed(0)
    grid: Any = {"spacing_xyz_mm": [12.0, 12.0, 12.0], "shape_zyx": [32, 16, 24]}
    text: Any = {"name": str(reader), "train": "lora"}
    module = GroundingModule(net=NET, text=text, grid=grid)  # type: ignore[arg-type]
    assert module.text_model is not None
    target = torch.zeros(1, 2, 32, 16, 24)
    target[:, 0, 4:9, 3:7, 5:9] = 1
    batch = {"image": torch.rand(1, 2, 32, 16, 24), "sentences": [SAID[::2]], "target": target, "exam_id": ["e0"]}
    module._losses(batch)["loss"].backward()
    grads = {name: p.grad for name, p in module.text_model.named_parameters() if p.requires_grad}
    assert all(grad is not None for grad in grads.values())
    assert any(grad.abs().sum() > 0 for name, grad in grads.items() if "lora_B" in name and grad is not None)
    frozen = [p for p in module.text_model.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None for p in frozen)


def test_a_frozen_encoder_is_in_no_checkpoint(reader: Path) -> None:
    module = GroundingModule(net=NET, text={"name": str(reader)})  # type: ignore[arg-type]
    assert module.text_model is None
    assert all(name.startswith("net.") for name in module.state_dict())


def test_wrong_text_settings_end_a_training_before_it_begins(patch_work: Path, tmp_path: Path, reader: Path) -> None:
    wrong = _flags(patch_work, tmp_path / "run", reader, "full", model__text__dtype="bfloat16", trainer__max_steps=1)
    with pytest.raises(ConfigError, match="bfloat16"):
        main(wrong)
    assert not (tmp_path / "run" / "checkpoints").exists()

"""Each architecture through the same module, loss and configs: steps, a checkpoint, what is judged of a 2.5D one."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from petground.labeling.errors import ConfigError
from petground.models.networks import learned_prompts
from petground.models.unet import Decoded
from petground.training.cli import main
from petground.training.inference import load_module
from petground.training.losses import LossConfig, deep_loss, grounding_loss
from petground.training.module import GroundingModule, OptimizerConfig

GATE = {"name": "contextual_gate"}
SMALL: dict[str, Any] = {"features": [4, 8], "fusion": GATE, "fusion_stages": [0], "encoder": "plain"}
KINDS: dict[str, dict[str, Any]] = {
    "unet": SMALL,
    "blind": {**SMALL, "fusion": {"name": "none"}},
    "projections": {**SMALL, "architecture": "projections"},
    "llmseg": {"architecture": "llmseg", "features": [8, 8], "llmseg": {"num_heads": 2, "prompt_length": 3}},
    "llmseg_banked": {"architecture": "llmseg", "features": [8, 8], "llmseg": {"num_heads": 2, "prompts": 0}},
}
GRID = {"spacing_xyz_mm": (10.0, 10.0, 10.0), "shape_zyx": (12, 8, 16)}
SENTENCES = ["Avid left axillary node.", "Avid right axillary node with more words."]
BENCH = ("ours", "faithful", "projections", "llmseg", "blind")


def _module(kind: str) -> GroundingModule:
    torch.manual_seed(0)
    return GroundingModule(net=KINDS[kind], grid=GRID, optimizer=OptimizerConfig(lr=0.02, warmup_steps=0))  # type: ignore[arg-type]


def _batch() -> dict[str, Any]:
    target = torch.zeros(1, 2, 12, 8, 16)
    target[0, 0, 3:5, 2:4, 3:5] = 1.0
    target[0, 1, 3:5, 2:4, 11:13] = 1.0
    image = 0.1 * torch.rand(1, 2, 12, 8, 16, generator=torch.Generator().manual_seed(1))
    image[:, 0] += target.amax(1)
    return {"exam_id": ["e0"], "image": image, "sentences": [SENTENCES], "target": target}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_teach_and_the_checkpoint_builds_the_same_again(kind: str, tmp_path: Path) -> None:
    module, batch = _module(kind), _batch()
    image = batch["image"][0].numpy()
    module.predict(image, SENTENCES)  # inference comes first, as with Lightning's sanity check
    data = torch.utils.data.DataLoader([batch], batch_size=None)
    trainer = pl.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first = float(module._losses(batch)["loss"].detach())
    trainer.fit(module, data)
    assert float(module._losses(batch)["loss"].detach()) < first
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("net.")} == set(before)  # no language model in it
    assert [name for name in before if name not in moved and not name.endswith("bias")] == []
    prompts = learned_prompts(module.net)
    assert (prompts is not None) == (kind == "llmseg")
    if prompts is not None:
        _, model = module.bank.encoder.model_on(torch.device("cpu"))
        assert all(not p.requires_grad and p.grad is None for p in model.parameters())

    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = load_module(tmp_path / "one.ckpt", device="cpu")
    assert again.net_config == module.net_config
    said, same = module.predict(image, SENTENCES), again.predict(image, SENTENCES)
    assert np.array_equal(said.probabilities, same.probabilities)
    alone = np.stack([module.predict(image, [one]).probabilities[0] for one in SENTENCES])
    assert np.abs(alone - said.probabilities).max() < 2e-2  # bfloat16 where the machine has it
    assert (kind == "blind") == np.array_equal(said.probabilities[0], said.probabilities[1])


def test_a_view_is_judged_by_the_targets_projection() -> None:
    target = _batch()["target"]
    sagittal, coronal = target.amax(4, keepdim=True), target.amax(3, keepdim=True)
    config = LossConfig(place=0.3)

    def said(side: torch.Tensor, front: torch.Tensor) -> dict[str, torch.Tensor]:
        views = tuple(Decoded([40.0 * view - 20.0], None) for view in (side, front))
        return deep_loss(Decoded([torch.full_like(target, 9.0)], None, views), target, config)

    right = said(sagittal, coronal)
    assert set(right) == {"loss", "dice", "ce", "place"}
    assert float(right["loss"]) == pytest.approx(0.0, abs=1e-3)  # and the crossed stage is not judged
    mirrored = said(sagittal, coronal.flip(4))
    assert float(mirrored["dice"]) == pytest.approx(0.5, abs=0.1)  # one view of two is wrong
    upside_down = said(sagittal.flip(2), coronal.flip(2))
    assert float(upside_down["dice"]) > 0.8
    expected = [grounding_loss(40.0 * view - 20.0, view.flip(4), config)["loss"] for view in (sagittal, coronal)]
    turned = deep_loss(
        Decoded([], None, tuple(Decoded([40.0 * v - 20.0], None) for v in (sagittal, coronal))), target.flip(4), config
    )
    assert float(turned["loss"]) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    left, right_side = (
        coronal[0, 0, 3, 0].argwhere().flatten().tolist(),
        coronal[0, 1, 3, 0].argwhere().flatten().tolist(),
    )
    assert (left, right_side) == ([3, 4], [11, 12])


def _config(name: str) -> dict[str, Any]:
    text = files("petground.configs.train").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_bench_configs_differ_in_network_and_loss_only() -> None:
    def shared(name: str) -> dict[str, Any]:
        config = _config(f"bench_{name}")
        model = {key: value for key, value in config["model"].items() if key not in ("net", "loss")}
        trainer = {key: value for key, value in config["trainer"].items() if key != "default_root_dir"}
        return {**config, "model": model, "trainer": trainer}

    assert all(shared(name) == shared("ours") for name in BENCH)
    ours, blind = _config("bench_ours")["model"], _config("bench_blind")["model"]
    assert {**ours["net"], "fusion": {"name": "none"}} == blind["net"]
    assert ours["loss"] == blind["loss"]


@pytest.mark.parametrize("name", [*(f"bench_{one}" for one in BENCH), "projections", "llmseg"])
def test_shipped_configs_are_valid(name: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["fit", "--config", name, f"--data.work={tmp_path}", "--print_config"]) == 0
    assert "architecture:" in capsys.readouterr().out
    config = _config(name)["model"]
    if config["text"]["name"] == "minilm":
        with torch.device("meta"):
            module = GroundingModule(**config)
        assert module.net_config.fits(module.grid.shape_zyx)


def test_unknown_options_of_an_architecture_are_answered_with_the_nearest(tmp_path: Path, capsys: Any) -> None:
    for flag, near in (
        ("llmseg.promts=3", "model.net.llmseg.prompts"),
        ("projections.cct=max", "model.net.projections.ct"),
    ):
        assert main(["fit", "--config", "bench_llmseg", f"--data.work={tmp_path}", f"--model.net.{flag}"]) == 2
        assert near in capsys.readouterr().err
    assert main(["fit", "--config", "bench_ours", f"--data.work={tmp_path}", "--model.net.architecture=unett"]) == 2
    assert "projections" in capsys.readouterr().err


def test_prompts_are_for_a_frozen_model() -> None:
    with pytest.raises(ConfigError, match="frozen language model"):
        GroundingModule(net=KINDS["llmseg"], grid=GRID, text={"train": "full"})  # type: ignore[arg-type]

"""Optimizer recipes, moving average, torch.compile: what they do to the weights, and how a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from small_fit import logged, small_flags
from torch import nn

from petground.labeling.errors import ConfigError
from petground.models.unet import Decoded
from petground.training import compiled
from petground.training.cli import main
from petground.training.losses import LossConfig, deep_loss, losses_by_exam
from petground.training.module import GroundingModule
from petground.training.optimizers import (
    OptimizerConfig,
    clip_gradients,
    follow_config,
    make_optimizer,
    parameter_groups,
)


def test_the_recipes_are_those_of_the_papers() -> None:
    sgd = OptimizerConfig(name="sgd")
    assert (sgd.lr, sgd.weight_decay, sgd.momentum, sgd.warmup_steps) == (0.01, 3e-5, 0.99, 0)
    assert [sgd.factor(step, 100) for step in (0, 50, 100, 120)] == pytest.approx([1.0, 0.5**0.9, 0.0, 0.0])
    adamw = OptimizerConfig()
    assert (adamw.lr, adamw.weight_decay, adamw.warmup_steps, adamw.momentum) == (5e-5, 0.01, 500, None)
    assert OptimizerConfig(name="sgd", schedule="cosine", lr=0.1).factor(50, 100) == pytest.approx(0.5)

    net = nn.Sequential(nn.Conv3d(1, 2, 1), nn.InstanceNorm3d(2, affine=True))
    other = nn.Linear(2, 2)
    other.weight.requires_grad_(False)
    optimizer, schedule = make_optimizer(sgd, parameter_groups(sgd, [(net, 1.0), (other, 0.1), (None, 1.0)]), 10)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [3e-5, 0.0, 0.0]
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 3, 1]
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 0.01, 0.001])
    before = [p.clone() for p in net.parameters()]
    net(torch.randn(1, 1, 2, 2, 2)).sum().backward()
    other(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01 * 0.9**0.9] * 2 + [0.001 * 0.9**0.9])
    assert any(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_in_one_pass_is_the_recipes_and_is_not_taken_where_gradients_are_scaled(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.01, weight_decay=0.1, warmup_steps=2)  # type: ignore[arg-type]
    left = []
    for scaled in (False, True):
        torch.manual_seed(0)
        net = nn.Conv3d(2, 3, 3)
        optimizer, schedule = make_optimizer(config, parameter_groups(config, [(net, 1.0)]), 10, scaled=scaled)
        assert bool(optimizer.defaults["fused"]) is not scaled
        for _ in range(4):
            optimizer.zero_grad()
            net(torch.randn(2, 2, 5, 5, 5)).square().mean().backward()
            optimizer.step()
            schedule.step()
        left.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*left, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("scaled", [False, True])
def test_moments_of_another_memory_order_go_on_as_they_would_have(name: str, scaled: bool) -> None:
    """Of a checkpoint from a GPU, say: weights lie channels last on CPUs, moments as where they were saved."""
    config = OptimizerConfig(name=name, lr=0.01, warmup_steps=0)  # type: ignore[arg-type]
    batches = torch.randn(6, 1, 3, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    left = []
    for order in (torch.contiguous_format, torch.channels_last_3d):
        torch.manual_seed(0)
        net = nn.Conv3d(3, 4, 3)
        groups = parameter_groups(config, [(net, 1.0)])
        optimizer, schedule = make_optimizer(config, groups, 10, scaled=scaled)

        def train(part: torch.Tensor) -> None:
            for one in part:
                optimizer.zero_grad()  # noqa: B023
                net(one).square().mean().backward()  # noqa: B023
                optimizer.step()  # noqa: B023

        train(batches[:3])
        saved = optimizer.state_dict()
        net = net.to(memory_format=order)  # type: ignore[call-overload]
        groups = parameter_groups(config, [(net, 1.0)])
        optimizer, schedule = make_optimizer(config, groups, 10)
        optimizer.load_state_dict(saved)
        follow_config(optimizer, schedule, config, groups, 10)
        assert all(group["fused"] for group in optimizer.param_groups)
        train(batches[3:])
        left.append(net.weight.detach().contiguous())
    torch.testing.assert_close(*left, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("how", "wanted"), [("norm", [0.6, 0.8]), ("value", [1.0, 1.0]), (None, [0.6, 0.8])])
def test_gradients_are_clipped_in_mixed_precision_too(how: str | None, wanted: list[float]) -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer, _ = make_optimizer(OptimizerConfig(), [{"params": [weight]}], 10)
    for plugin in (MixedPrecision("bf16-mixed", "cpu"), Precision()):
        trainer = cast(Trainer, SimpleNamespace(precision_plugin=plugin))
        weight.grad = torch.tensor([3.0, 4.0])
        clip_gradients(trainer, optimizer, None, how)
        assert weight.grad.tolist() == [3.0, 4.0]
        clip_gradients(trainer, optimizer, 1.0, how)
        assert weight.grad.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"momentum": 0.9}, "momentum"), ({"lr": 0.0}, "lr"), ({"ema": 1.0}, "ema"), ({"name": "sdg"}, "adamw, sgd"),
     ({"name": "sgd", "momentum": 1.0}, "momentum"), ({"warmup_steps": -1}, "warmup_steps")],
)  # fmt: skip
def test_settings_out_of_range_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        OptimizerConfig(**wrong)


def test_a_batch_costs_what_its_exams_cost_alone() -> None:
    """Else two processes with an exam each would learn another thing than one with both."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 3, 4, 4, 4, generator=generator), torch.randn(2, 3, 8, 8, 8, generator=generator)]
    target = torch.zeros(2, 3, 8, 8, 8)
    target[0, 0, 1:3, 1:3, 1:3] = target[1, :2, 5:7, 5:7, 5:7] = 1  # one sentence with a lesion, and two
    decoded = Decoded(logits, torch.randn(2, 3, generator=generator))
    config = LossConfig(place=0.3)
    each = losses_by_exam(decoded, target, config)
    for exam in range(2):
        one = Decoded([s[exam : exam + 1] for s in logits], decoded.presence[exam : exam + 1])  # type: ignore[index]
        for name, value in deep_loss(one, target[exam : exam + 1], config).items():
            assert float(each[name][exam]) == pytest.approx(float(value))
    assert float(each["dice"].mean()) != pytest.approx(float(deep_loss(decoded, target, config)["dice"]), rel=1e-6)


def _dying(at: int) -> Callable[..., Any]:
    step = GroundingModule.training_step

    def training_step(module: GroundingModule, batch: Any, index: int) -> torch.Tensor:
        if module.global_step == at:
            raise RuntimeError("killed")
        return step(module, batch, index)

    return training_step


@pytest.mark.parametrize("recipe", [{"name": "sgd"}, {"name": "adamw", "ema": 0.9}])
def test_a_killed_run_goes_on_to_the_same_losses_and_weights(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    more = {f"model__optimizer__{key}": value for key, value in recipe.items()}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(small_flags(patch_work, whole, **more)) == 0
    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", _dying(4))  # 3 exams train: in the second epoch
        with pytest.raises(RuntimeError, match="killed"):
            main(small_flags(patch_work, parts, **more))
    if "ema" in recipe:
        with pytest.raises(ConfigError, match=r"moving average.*ema"):
            main(small_flags(patch_work, parts, ckpt_path="last"))
    assert main(small_flags(patch_work, parts, **more, ckpt_path="last")) == 0
    losses = logged(whole / "version_0")
    again: dict[int, float] = {}
    for version in sorted(parts.glob("version_*")):
        again |= logged(version) if (version / "metrics.csv").is_file() else {}
    assert sorted(losses) == [0, 1, 2, 3, 4, 5]
    assert again == pytest.approx(losses, rel=1e-5)
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, parts))
    for key in ("state_dict", "current_model_state"):
        assert (key in one) == (key == "state_dict" or "ema" in recipe)
        for name, value in one.get(key, {}).items():
            torch.testing.assert_close(two[key][name], value, rtol=1e-4, atol=1e-6)


def test_the_average_is_what_validates_and_is_kept(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "decoder.head.weight"
    trained: list[torch.Tensor] = []
    validated: list[torch.Tensor] = []
    step, validation = GroundingModule.training_step, GroundingModule.validation_step

    def noting(into: list[torch.Tensor], real: Callable[..., Any]) -> Callable[..., Any]:
        def run(module: GroundingModule, batch: Any, index: int) -> Any:
            into.append(module.net.get_parameter(name).detach().clone())
            return real(module, batch, index)

        return run

    monkeypatch.setattr(GroundingModule, "training_step", noting(trained, step))
    monkeypatch.setattr(GroundingModule, "validation_step", noting(validated, validation))
    run = tmp_path / "run"
    assert main(small_flags(patch_work, run, model__optimizer__ema=0.2)) == 0
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    after = [*trained[1:], stored["current_model_state"][f"net.{name}"]]  # a step begins with what the last one left
    assert len(after) == 6
    average, averages = after[0], [after[0]]
    for updates, weights in enumerate(after[1:], start=1):
        decay = min(0.2, (1 + updates) / (10 + updates))
        average = decay * average + (1 - decay) * weights
        averages.append(average)
    torch.testing.assert_close(stored["state_dict"][f"net.{name}"], averages[-1])
    assert not torch.allclose(averages[-1], after[-1])
    torch.testing.assert_close(validated, [averages[2], averages[5]])
    assert stored["hyper_parameters"]["optimizer"]["ema"] == 0.2


def test_compiled_steps_give_the_same_losses(patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by dynamo and run by torch: the code generator itself is torch's to test."""
    calls: list[str] = []
    real = torch.compile

    def noting(function: Any, **how: Any) -> Any:
        calls.append(function.__name__)
        return real(function, **{**how, "backend": "eager"})

    monkeypatch.setattr(torch, "compile", noting)
    # the average copies the module
    more = {"trainer__max_steps": 2, "trainer__limit_val_batches": 0, "model__optimizer__ema": 0.9}
    assert main(small_flags(patch_work, tmp_path / "plain", **more)) == 0
    assert calls == []
    assert main(small_flags(patch_work, tmp_path / "compiled", **more, model__compile="true")) == 0
    assert calls == ["encode", "decode"]
    plain, quick = (logged(tmp_path / run / "version_0") for run in ("plain", "compiled"))
    assert quick == pytest.approx(plain, rel=1e-4)
    keys = [
        list(torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
        for run in ("plain", "compiled")
    ]
    assert keys[0] == keys[1]


def test_without_a_compiler_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    class Net(nn.Module):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

        decode = encode

    monkeypatch.setattr(compiled, "BACKEND", broken)
    encode, _ = compiled.compiled_steps(Net())
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler.*model.compile"):
        encode(torch.ones(2))

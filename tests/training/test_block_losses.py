"""Losses of blocks' own in a training: weighed into the step's, logged by name, and no part of validation's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_fit import logged, small_flags

from petground.labeling.errors import ConfigError
from petground.models.unet import Decoded
from petground.training.cli import main
from petground.training.losses import LossConfig, losses_by_exam, outcome, with_blocks
from petground.training.module import GroundingModule


def _module(blocks: float, **net: Any) -> GroundingModule:
    torch.manual_seed(0)
    small = {"features": [4, 8], "fusion_stages": [0], "encoder": "plain", "blocks_per_stage": 1, **net}
    module = GroundingModule(net=small, loss={"blocks": blocks})  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(4, 5, module.bank.encoder.channels, generator=generator)
    module.embed = lambda sentences: (tokens, torch.ones(4, 5, dtype=torch.bool))  # type: ignore[method-assign]
    return module


def _batch() -> dict[str, Any]:
    target = torch.zeros(2, 2, 4, 4, 6)
    target[0, 0, 1, 2, 3] = target[1, 1, 2, 1, 5] = 1
    image = torch.rand(2, 2, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    return {"image": image, "target": target, "sentences": [["a", "b"], ["c", "d"]], "exam_id": ["e0", "e1"]}


MOH = {"attention": {"name": "moh", "num_heads": 4, "shared_heads": 1, "active_heads": 2}}
POLICY = {
    "attention": {"name": "softmax"}, "token_reduction": {"name": "ia_red2", "estimator": "reinforce"},
}  # fmt: skip


@pytest.mark.parametrize(("net", "name"), [(MOH, "moh/balance"), (POLICY, "ia_red2/policy")])
def test_the_step_has_the_blocks_loss_with_its_weight_and_validation_has_not(net: dict[str, Any], name: str) -> None:
    by_weight = {}
    for weight in (0.0, 1.0, 3.0):
        module = _module(weight, **net).train()
        torch.manual_seed(5)
        by_weight[weight] = module._losses_by_exam(_batch())
    task, once, thrice = by_weight.values()
    assert set(once) - set(task) == {name}
    assert once[name].shape == (2,)
    torch.testing.assert_close(once["loss"], task["loss"] + once[name])
    torch.testing.assert_close(thrice["loss"], task["loss"] + 3 * once[name])
    assert name not in module.eval()._losses_by_exam(_batch())
    module = _module(1.0, **net).train()
    module._losses(_batch())["loss"].backward()
    assert all(p.grad is not None for n, p in module.net.named_parameters() if ".gates." in n or ".query." in n)


def test_what_a_step_draws_hangs_on_its_place_in_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroundingModule, "log_dict", lambda *a, **k: None)
    monkeypatch.setattr(GroundingModule, "_losses_by_exam", lambda *a: {"loss": torch.rand(2)})
    module = _module(1.0)

    def drawn(before: int, batch: int) -> float:
        torch.manual_seed(before)  # a restart leaves another state
        return module.training_step(_batch(), batch).item()

    assert drawn(7, 3) == drawn(8, 3)
    assert len({drawn(7, batch) for batch in range(4)}) == 4, "each batch draws anew"


def test_a_training_logs_it_and_a_checkpoint_has_nothing_of_it(patch_work: Path, tmp_path: Path) -> None:
    """Accumulated, with an average that copies the module, with checkpointing, and gone on with."""
    blocks = {"model__net__attention": json.dumps({**MOH["attention"], "stages": [0]})}
    more = {
        **blocks, "model__net__checkpointing": "true", "model__optimizer__ema": 0.9, "data__validation_fraction": 0.25,
        "trainer__accumulate_grad_batches": 2, "model__loss__blocks": 2.0,
    }  # fmt: skip
    run = tmp_path / "run"
    assert main(small_flags(patch_work, run, **more)) == 0
    logs = run / "version_0"
    own, loss, dice, ce = (logged(logs, f"train/{name}") for name in ("moh/balance", "loss", "dice", "ce"))
    assert own.keys() == loss.keys()
    assert all(value > 0 for value in own.values())
    for step, value in loss.items():
        assert value == pytest.approx(dice[step] + ce[step] + 2 * own[step], rel=1e-4)
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [name for name in stored["state_dict"] if "own" in name]
    assert stored["hyper_parameters"]["loss"]["blocks"] == 2.0


def test_right_is_a_peak_in_the_lesion_or_silence_where_there_is_none() -> None:
    target = torch.zeros(1, 5, 2, 2, 3)
    target[0, :3, 1, 0, 2] = 1
    logits = torch.full_like(target, -3.0)
    logits[0, 0, 1, 0, 2] = -2.0  # highest there, though not marked
    logits[0, 1, 0, 1, 2] = 4.0  # elsewhere
    logits[0, 2, 1, 0, 2], logits[0, 2, 0, 0, 0] = 1.0, 2.0  # marked, and higher elsewhere
    logits[0, 4, 0, 0, 0] = 1.0  # of nothing: a false alarm; the one before is silent
    said = outcome(Decoded([logits], None), target)
    assert said.correct.tolist() == [[1, 0, 0, 1, 0]]
    assert said.present.tolist() == [[1, 1, 1, 0, 0]]
    known = torch.tensor([[1.0, math.nan, 0.0, 1.0, 0.0]])
    assert torch.equal(outcome(Decoded([logits], None), target, known).present.nan_to_num(9), known.nan_to_num(9))


def test_without_blocks_losses_are_as_they_were() -> None:
    with pytest.raises(ConfigError):
        LossConfig(blocks=-1.0)
    module = _module(1.0).train()
    batch = _batch()
    assert set(module._losses_by_exam(batch)) == {"loss", "dice", "ce"}
    losses = losses_by_exam(module._decoded(batch), batch["target"], LossConfig())
    assert with_blocks(losses, {}, 1.0) == losses


def test_two_exams_at_once_or_one_after_the_other_give_the_same_gradient() -> None:
    """Accumulated, or shared out to two processes: of `moh` the balance is each exam's own."""
    module, batch = _module(100.0, **MOH).train(), _batch()
    tokens, mask = module.embed([])
    gradients = []
    for parts in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
        module.zero_grad()
        for part in parts:
            rows = slice(2 * part.start, 2 * part.stop)
            module.embed = lambda _, rows=rows: (tokens[rows], mask[rows])  # type: ignore[method-assign,misc]
            losses = module._losses({name: value[part] for name, value in batch.items()})
            (losses["loss"] / len(parts)).backward()
        gradients.append({name: p.grad.clone() for name, p in module.net.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)

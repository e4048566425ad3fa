"""Early exits: dyvte_exit, mue_exit, dyn_perceiver."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.token_reduction.exits import EarlyExit, exit_label
from petground.models.blocks.voxel_attention import VoxelAttention
from petground.models.registry import build

KEYS = ["dyvte_exit", "mue_exit", "dyn_perceiver"]


def _inputs(batch: int = 3) -> tuple[Tensor, dict[str, Any]]:
    torch.manual_seed(1)
    text_mask = torch.ones(batch, 5, dtype=torch.bool)
    text_mask[-1, 3:] = False
    text = torch.randn(batch, 5, 8, dtype=torch.float64)
    return torch.randn(batch, 30, 8, dtype=torch.float64), {"text": text, "text_mask": text_mask}


def _made(key: str, **options: Any) -> EarlyExit:
    torch.manual_seed(0)
    module = build("token_reduction", key, channels=8, **{"layers": 4, **options})
    assert isinstance(module, EarlyExit)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "judges" in name:
                parameter.normal_(std=0.5)  # routers that do not all say "stay"
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for number, layer in enumerate(module.layers):  # the deeper, the less is changed
            layer.back.out.weight.mul_(0.5**number)
            layer.back.out.bias.mul_(0.5**number)
    return module.double().eval()


@pytest.mark.parametrize("key", KEYS)
def test_a_threshold_above_one_is_the_full_stack_bit_for_bit(key: str) -> None:
    tokens, given = _inputs()
    with torch.no_grad():
        never = _made(key, threshold=1.01).trace(tokens, **given)
        full = _made(key, threshold=-2.0).train().trace(tokens, **given)  # nobody leaves while training
    assert never.depth.tolist() == full.depth.tolist() == [4, 4, 4]
    assert torch.equal(never.voxels, full.voxels)
    assert torch.equal(never.code, full.code)
    reduced = _made(key, threshold=1.01)(tokens, **given)
    assert reduced.mask.all()
    assert torch.equal(reduced.unmerge(reduced.tokens), reduced.tokens)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("least", [1, 2])
def test_the_lowest_threshold_leaves_after_the_least_layer(key: str, least: int) -> None:
    tokens, given = _inputs()
    module = _made(key, threshold=-2.0, least=least)
    with torch.no_grad():
        assert module.trace(tokens, **given).depth.tolist() == [least] * 3
        reduced = module(tokens, **given)
    assert not reduced.mask.any()
    assert reduced.tokens.shape[1] == 1  # nothing is left to compute on
    assert torch.equal(reduced.unmerge(torch.ones(3, 1, 2).double()), torch.zeros(3, 30, 2).double())


@pytest.mark.parametrize("key", KEYS)
def test_depth_grows_with_the_threshold(key: str) -> None:
    tokens, given = _inputs(8)
    with torch.no_grad():
        depths = [
            _made(key, threshold=t).trace(tokens, **given).depth
            for t in (-2.0, 0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, *(0.95 + 0.005 * n for n in range(10)), 1.1)
        ]
    for lower, higher in pairwise(depths):
        assert (lower <= higher).all()
    assert len({int(d) for one in depths for d in one}) > 2  # and there is something between first and never


@pytest.mark.parametrize("key", KEYS)
def test_who_leaves_adds_nothing_and_the_others_do_not_notice(key: str) -> None:
    tokens, given = _inputs(8)
    for threshold in (0.3, 0.5, 0.6, 0.7, 0.9, *(0.95 + 0.002 * n for n in range(25))):
        module = _made(key, threshold=threshold)
        with torch.no_grad():
            depth = module.trace(tokens, **given).depth
        if 0 < int((depth == 4).sum()) < 8:
            break
    else:
        pytest.fail("no threshold at which some leave and some stay")
    stay = depth == 4
    with torch.no_grad():
        reduced, full = module(tokens, **given), _made(key, threshold=1.1)(tokens, **given)
    assert torch.equal(reduced.mask, stay[:, None].expand(-1, 30))
    assert torch.equal(reduced.tokens[stay], full.tokens[stay])
    layer = VoxelAttention(8, 8, 2, SoftmaxAttention(8, 2), module, needs_grid=False).double().eval()
    nn.init.normal_(layer.outward.weight)
    nn.init.normal_(layer.outward.bias)
    layer.text = nn.Identity()
    layer.norm = nn.Identity()
    x = tokens.transpose(1, 2).unflatten(2, (2, 3, 5))
    with torch.no_grad():
        out = layer(x, given["text"], given["text_mask"])
    assert torch.equal(out[~stay], x[~stay])
    assert not torch.isclose(out[stay], x[stay]).all()


def test_after_the_exit_the_text_does_not_see_the_voxels() -> None:
    """All leave after layer 1: whatever the later layers would take from the voxels changes nothing in the text."""
    tokens, given = _inputs()
    module = _made("dyvte_exit", threshold=-2.0)
    with torch.no_grad():
        before = module.trace(tokens, **given)
        for layer in list(module.layers)[1:]:
            for parameter in layer.look.parameters():
                parameter.normal_()
        after = module.trace(tokens, **given)
        assert torch.equal(before.code, after.code)
        seen = _made("dyvte_exit", threshold=1.1).trace(tokens, **given)
        other = _made("dyvte_exit", threshold=1.1).trace(tokens + 1.0 * torch.randn_like(tokens), **given)
    assert not torch.allclose(before.code, seen.code)
    assert not torch.allclose(seen.code, other.code)


def test_routers_alone_learn_from_their_loss() -> None:
    tokens, given = _inputs()
    module = _made("dyvte_exit").train()
    trace = module.trace(tokens.requires_grad_(), **given)
    assert trace.logits.shape == (3, 4, 2)
    nn.functional.cross_entropy(trace.logits[:, 1], torch.tensor([0, 1, 1])).backward()
    learnt = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learnt
    assert all(name.startswith("judges.1.") for name in learnt)
    assert tokens.grad is None or not tokens.grad.any()


def test_router_reads_mean_and_last_word() -> None:
    tokens, given = _inputs()
    module = _made("dyvte_exit", layers=1)
    trace = module.trace(tokens, **given)
    mean = torch.stack([trace.code[0].mean(0), trace.code[1].mean(0), trace.code[2, :3].mean(0)])
    last = torch.stack([trace.code[0, 4], trace.code[1, 4], trace.code[2, 2]])
    assert torch.allclose(trace.logits[:, 0], module.judges[0](torch.cat([mean, last], -1)))


def test_labels_for_the_routers() -> None:
    full = torch.zeros(4, 1000, dtype=torch.bool)
    exited = full.clone()
    exited[1, :10] = True  # 99.0 %: not above
    exited[2, :9] = True
    losses = torch.tensor([1.0, 1.0, 1.02, 1.04])
    assert exit_label(exited, full, losses, torch.ones(4)).tolist() == [1, 0, 1, 0]


def test_streams_stop_at_their_own_depths() -> None:
    tokens, given = _inputs(8)
    with torch.no_grad():
        pairs = set()
        for threshold in (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99):
            trace = _made("mue_exit", threshold=threshold).trace(tokens, **given)
            pairs |= set(zip(trace.depth.tolist(), trace.code_depth.tolist(), strict=True))
        still = _made("mue_exit", threshold=0.9)
        for layer in still.layers:  # the voxels read nothing: they saturate at once, the text does not
            layer.back.out.weight.zero_()
            layer.back.out.bias.zero_()
        trace = still.trace(tokens, **given)
    assert any(voxels != text for voxels, text in pairs)
    assert (trace.depth == 1).all()
    assert (trace.code_depth > 1).any()


def test_an_exits_code_does_not_depend_on_later_layers() -> None:
    tokens, given = _inputs()
    module = _made("dyn_perceiver", threshold=1.1)
    with torch.no_grad():
        before = module.trace(tokens, **given).logits
        for parameter in module.layers[2].parameters():
            parameter.normal_()
        after = module.trace(tokens, **given).logits
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


@pytest.mark.parametrize("key", KEYS)
def test_untrained_nobody_leaves_and_the_voxels_are_as_they_came(key: str) -> None:
    tokens, given = _inputs()
    reduced = build("token_reduction", key, channels=8).double().eval()(tokens, **given)
    assert reduced.mask.all()
    assert torch.equal(reduced.tokens, tokens)


def test_the_code_starts_from_the_sentence() -> None:
    tokens, given = _inputs()
    module = _made("dyn_perceiver", threshold=1.1)
    with torch.no_grad():
        one = module.trace(tokens, **given).logits
        other = module.trace(tokens, text=-given["text"], text_mask=given["text_mask"]).logits
        without = module.trace(tokens).logits
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, without)


def test_by_default_saturation_leaves_nobody_when_next_to_nothing_changes() -> None:
    """A few steps into the training: evaluated is the network that is trained."""
    tokens, given = _inputs()
    module = _made("mue_exit")
    with torch.no_grad():
        for layer in module.layers:
            layer.back.out.weight.mul_(1e-6)
            layer.back.out.bias.mul_(1e-6)
        evaluated, trained = module(tokens, **given), module.train()(tokens, **given)
    assert evaluated.mask.all()
    assert torch.equal(evaluated.tokens, trained.tokens)

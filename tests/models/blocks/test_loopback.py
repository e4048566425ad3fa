"""DeRIS: one round is the one-pass model, no existence is no mask, the order of the queries means nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from petground.models import BlockError, build
from petground.models.blocks.fusion.loopback import Referred, union
from petground.models.blocks.own_losses import Outcome, listening, own_losses
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig


def _block(**options: object) -> nn.Module:
    torch.manual_seed(0)
    block = build("fusion", "loopback", channels=8, text_channels=6, num_heads=2, queries=5, **options)
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    nn.init.constant_(block.exists.bias, 4.0)
    return block.double().eval()


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    return torch.randn(2, 8, 3, 4, 5).double(), torch.randn(2, 5, 6).double(), mask


def test_one_round_is_the_one_pass_model_of_the_same_state() -> None:
    x, tokens, mask = _inputs()
    once, thrice = _block(rounds=1), _block(rounds=3)
    once.load_state_dict(thrice.state_dict())
    words = once.text(tokens)
    values = once.norm(x.flatten(2).transpose(1, 2))
    queries, _ = once.perception(once.queries.expand(2, -1, -1), values, values, None)
    real = torch.cat([mask, torch.ones(2, 5, dtype=torch.bool)], dim=1)
    states = once.cognition(torch.cat([words, queries], dim=1), real)
    said, referred = once.loop(x, words, mask)
    assert torch.equal(said, states[:, :5])
    assert torch.equal(referred.queries, states[:, 5:])
    assert torch.equal(referred.masks, once.perception.masks(states[:, 5:], values))
    assert not torch.allclose(once(x, tokens, mask)[0], thrice(x, tokens, mask)[0], atol=1e-4)


def test_existence_below_the_threshold_is_an_empty_mask() -> None:
    x, tokens, mask = _inputs()
    block = _block(threshold=0.5)
    assert not torch.allclose(block(x, tokens, mask)[0], x, atol=1e-3)
    nn.init.constant_(block.exists.bias, -40.0)
    out, said = block(x, tokens, mask)
    assert torch.equal(out, x)
    _, referred = block.loop(x, block.text(tokens), mask)
    assert union(referred, 0.5).abs().max() == 0
    assert not torch.equal(said, tokens)  # the words still learn what was seen


def test_existence_is_judged_per_sentence() -> None:
    masks = torch.full((2, 3, 4), 2.0)
    referred = Referred(torch.zeros(2, 3, 8), masks, torch.full((2, 3), 2.0), torch.tensor([-1.0, 1.0]))
    found = union(referred, 0.5)
    assert found[0].abs().max() == 0
    assert found[1].min() > 0.5
    assert union(referred, None)[0].min() > 0  # training is soft


def test_the_union_of_sure_masks_is_their_union() -> None:
    masks = torch.full((1, 3, 6), -60.0)
    masks[0, 0, :2] = 60.0
    masks[0, 1, 1:4] = 60.0
    masks[0, 2, 5] = 60.0
    referred = Referred(torch.zeros(1, 3, 8), masks, torch.tensor([[60.0, 60.0, -60.0]]), torch.tensor([60.0]))
    assert torch.allclose(union(referred, 0.5)[0], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0]))


def _own(block: nn.Module, present: Tensor, *given: Tensor) -> dict[str, Tensor]:
    with listening(block) as held:
        block(*given)
    return own_losses(held, Outcome(torch.zeros_like(present), present))


def test_existence_is_judged_by_what_the_exam_has() -> None:
    """Mean over an exam's sentences of which it is known; the data gives a mismatched sentence present 0."""
    x, tokens, mask = _inputs()
    block = _block(loss_weight=0.5).train()
    logits = block.loop(x, block.text(tokens), mask)[1].exists.float()
    told = binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0]), reduction="none")
    by_exam = _own(block, torch.tensor([[0.0], [1.0]]), x, tokens, mask)["loopback/existence"]
    assert torch.allclose(by_exam, 0.5 * told)
    assert torch.allclose(
        _own(block, torch.tensor([[0.0, 1.0]]), x, tokens, mask)["loopback/existence"], by_exam.mean()
    )
    unknown = _own(block, torch.tensor([[math.nan, 1.0]]), x, tokens, mask)["loopback/existence"]
    assert torch.allclose(unknown, by_exam[1])
    assert not _own(block, torch.full((2, 1), math.nan), x, tokens, mask)["loopback/existence"].any()
    assert _own(block.eval(), torch.ones(2, 1), x, tokens, mask) == {}
    assert _own(_block(loss_weight=0.0).train(), torch.ones(2, 1), x, tokens, mask) == {}
    with pytest.raises(BlockError, match="loss_weight"):
        _block(loss_weight=-1.0)


def test_a_mismatched_sentence_comes_to_mark_nothing() -> None:
    """After its own loss alone: the mismatched one has existence 0 and an empty mask, the exam's own keeps its."""
    x, tokens, mask = _inputs()
    x = x[:1].expand(2, -1, -1, -1, -1)  # one exam, two sentences
    present = torch.tensor([[0.0, 1.0]])
    block = _block(threshold=0.5).train()
    optimizer = torch.optim.Adam(block.parameters(), lr=0.05)
    for _ in range(15):
        optimizer.zero_grad()
        _own(block, present, x, tokens, mask)["loopback/existence"].sum().backward()
        optimizer.step()
    out, _ = block.eval()(x, tokens, mask)
    referred = block.loop(x, block.text(tokens), mask)[1]
    assert referred.exists[0].sigmoid() < 0.1
    assert union(referred, 0.5)[0].abs().max() == 0
    assert torch.equal(out[0], x[0])
    assert referred.exists[1].sigmoid() > 0.9
    assert not torch.equal(out[1], x[1])


def test_existence_learns_in_the_network() -> None:
    small = {"features": [4, 8], "blocks_per_stage": 1, "decoder_convs": 1, "fusion_stages": [0]}
    torch.manual_seed(0)
    net = GroundingNet(NetConfig(**small, fusion={"name": "loopback", "queries": 3, "rounds": 1}), text_channels=6)
    with listening(net.train()) as held:
        net(torch.randn(2, 2, 4, 4, 8), torch.randn(2, 3, 5, 6), torch.ones(2, 3, 5, dtype=torch.bool))
    present = torch.tensor([[1.0, 0.0, math.nan], [0.0, 0.0, 1.0]])
    own = own_losses(held, Outcome(torch.zeros(2, 3), present))
    assert own["loopback/existence"].shape == (2,)
    own["loopback/existence"].sum().backward()
    learnt = [name for name, one in net.named_parameters() if one.grad is not None and one.grad.abs().max() > 0]
    assert any("exists" in name for name in learnt)
    assert any("encoder" in name for name in learnt)


def test_the_order_of_the_queries_means_nothing() -> None:
    x, tokens, mask = _inputs()
    block = _block()
    out, said = block(x, tokens, mask)
    _, referred = block.loop(x, block.text(tokens), mask)
    found = union(referred, 0.5)
    block.queries.data = block.queries.data[torch.tensor([4, 2, 0, 1, 3])]
    turned, turned_said = block(x, tokens, mask)
    assert torch.allclose(turned, out, atol=1e-9)
    assert torch.allclose(turned_said, said, atol=1e-9)
    assert torch.allclose(union(block.loop(x, block.text(tokens), mask)[1], 0.5), found, atol=1e-9)


def test_voxels_outside_every_mask_stay_as_they_are() -> None:
    x, tokens, mask = _inputs()
    block = _block()
    nn.init.constant_(block.exists.bias, 40.0)
    block.perception.mask[2].weight.data.zero_()
    block.perception.mask[2].bias.data.copy_(torch.tensor([300.0] + [0.0] * 7))  # a mask is the sign of channel 0
    change = (block(x, tokens, mask)[0] - x).abs().amax(dim=1)
    inside = block.norm(x.flatten(2).transpose(1, 2))[..., 0].reshape(2, 3, 4, 5)
    assert change[inside < -0.5].max() < 1e-9
    assert change[inside > 0.5].min() > 1e-3

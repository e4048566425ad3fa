"""DeRIS: one round is the one-pass model, no existence is no mask, the order of the queries means nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.fusion.loopback import Referred, union


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

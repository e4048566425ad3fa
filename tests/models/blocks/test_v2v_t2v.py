"""CrossLMM: closed gates leave the self-attention layer, few tokens whatever the grid, weights that sum to one."""

from __future__ import annotations

import torch
from torch import nn

from petground.models import build
from petground.models.blocks.fusion.cells import coarser, pooled
from petground.models.blocks.fusion.v2v_t2v import DualCrossLayer


def _block(**options: object) -> nn.Module:
    torch.manual_seed(0)
    block = build("fusion", "v2v_t2v", channels=8, text_channels=6, num_heads=2, **options)
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return block


def test_closed_gates_are_the_plain_self_attention_layer_bit_for_bit() -> None:
    torch.manual_seed(0)
    layer = DualCrossLayer(8, 2)
    states, original, mask = torch.randn(2, 11, 8), torch.randn(2, 40, 8), torch.rand(2, 4) > 0.3
    assert torch.equal(layer(states, original, mask, 7), layer.among(states, mask, 7))
    nn.init.constant_(layer.gate_words, 0.5)
    opened = layer(states, original, mask, 7)
    assert torch.equal(opened[:, :7], layer.among(states, mask, 7)[:, :7])
    assert not torch.equal(opened[:, 7:], layer.among(states, mask, 7)[:, 7:])


def test_gates_stay_within_one() -> None:
    """tanh: however far a gate is turned, what is added is at most the attention's answer."""
    layer = DualCrossLayer(8, 2)
    states, original, mask = torch.randn(1, 5, 8), torch.randn(1, 9, 8), torch.ones(1, 2, dtype=torch.bool)
    nn.init.constant_(layer.gate_voxels, 50.0)
    plain = layer.among(states, mask, 3)
    assert torch.allclose(layer(states, original, mask, 3)[:, :3], plain[:, :3] + layer.voxels(plain[:, :3], original))


def test_each_row_of_both_cross_attentions_sums_to_one() -> None:
    """Where all original tokens are the same, every query reads just that one."""
    torch.manual_seed(0)
    layer = DualCrossLayer(8, 2)
    one = torch.randn(1, 1, 8)
    for attend in (layer.voxels, layer.words):
        answer = attend(torch.randn(1, 6, 8), one.expand(1, 30, 8))
        assert torch.allclose(answer, attend.out(attend.value(one)).expand(1, 6, 8), atol=1e-6)


def test_the_self_attention_is_as_long_on_any_grid() -> None:
    block, lengths = _block(cells=3), []
    block.layers[0].attend.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    for grid in ((3, 4, 5), (6, 7, 8), (12, 9, 10)):
        block(torch.randn(1, 8, *grid), torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool))
    assert lengths == [27 + 5] * 3


def test_pooling_of_a_small_grid_is_the_grid() -> None:
    x = torch.randn(1, 8, 3, 2, 4)
    assert coarser(x.shape, 4) == (3, 2, 4)
    assert pooled(x, coarser(x.shape, 4)) is x


def test_pooling_is_adaptive_average_pooling() -> None:
    x = torch.randn(2, 3, 7, 5, 9, dtype=torch.float64)
    for grid in ((3, 5, 4), (1, 2, 9), (6, 1, 1)):
        assert torch.allclose(pooled(x, grid), nn.functional.adaptive_avg_pool3d(x, grid), atol=1e-12)

"""DeepStack: the split is a bijection, groups enter once each, the sequence never grows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.fusion.cells import stacked, unstacked


def _block(**options: object) -> nn.Module:
    torch.manual_seed(0)
    block = build("fusion", "deepstack", channels=8, text_channels=6, num_heads=2, **options)
    for parameter in block.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return block.eval()


def _parts(block: nn.Module, cells: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """coarse, words, mask, fine of the stack."""
    torch.manual_seed(1)
    mask = torch.tensor([[True, True, True, False]])
    return torch.randn(1, cells, 8), torch.randn(1, 4, 8), mask, torch.randn(1, cells, block.groups, 8)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_split_is_a_bijection(stride: int) -> None:
    x = torch.randn(2, 3, 7, 5, 6)
    groups = stacked(x, stride)
    assert torch.equal(unstacked(groups, stride, (7, 5, 6)), x)
    assert int((groups != 0).sum()) == x.numel()  # nothing twice: the rest are the zeros of cut cells


def test_a_group_is_one_dilated_sampling() -> None:
    x = torch.randn(1, 3, 4, 6, 8)
    groups = stacked(x, 2)
    for s, (z, y, width) in enumerate((z, y, w) for z in (0, 1) for y in (0, 1) for w in (0, 1)):
        assert torch.equal(groups[:, :, s], x[:, :, z::2, y::2, width::2].flatten(2).transpose(1, 2))


def test_no_layer_is_longer_than_the_base() -> None:
    block, lengths = _block(), []
    for layer in block.layers:
        layer.register_forward_hook(lambda _, given, out: lengths.append((given[0].shape[1], out.shape[1])))
    block(torch.randn(1, 8, 4, 6, 8), torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool))
    assert lengths == [(2 * 3 * 4 + 5, 2 * 3 * 4 + 5)] * 9


def test_zero_fine_features_give_the_base_model() -> None:
    block = _block()
    coarse, words, mask, fine = _parts(block)
    real = torch.cat([torch.ones(1, 6, dtype=torch.bool), mask], dim=1)
    states = torch.cat([coarse, words], dim=1)
    for layer in block.layers:
        states = layer(states, real)
    assert torch.equal(block.stack(coarse, words, mask, torch.zeros_like(fine)), states)
    assert not torch.allclose(block.stack(coarse, words, mask, fine), states, atol=1e-3)


@pytest.mark.parametrize(("start", "interval"), [(1, 1), (0, 2), (2, 3)])
def test_each_group_enters_once_at_its_own_layer(start: int, interval: int) -> None:
    block = _block(start=start, interval=interval)
    assert [block.group(start + s * interval) for s in range(8)] == list(range(8))
    assert sum(block.group(number) is not None for number in range(len(block.layers))) == 8
    coarse, words, mask, fine = _parts(block)
    entered = []
    for layer in block.layers:
        layer.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    block.stack(coarse, words, mask, fine)
    base = entered.copy()
    for s in range(8):
        entered.clear()
        other = fine.clone()
        other[:, :, s] += 1.0
        block.stack(coarse, words, mask, other)
        same = [torch.equal(a, b) for a, b in zip(base, entered, strict=True)]
        first = start + s * interval
        assert same == [number < first for number in range(len(block.layers))]
        moved = entered[first] - base[first]
        assert torch.allclose(moved[:, :6], block.fine(torch.ones(8)).expand(1, 6, 8), atol=1e-5)
        assert moved[:, 6:].abs().max() == 0  # at the visual positions only


def test_a_detail_finer_than_a_cell_is_told() -> None:
    """Two inputs with the same means of all cells differ in what the stack says, not only in x itself."""
    block = _block()
    x, tokens, mask = torch.randn(1, 8, 4, 4, 4), torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool)
    other = x + torch.tensor([1.0, -1.0]).repeat(2)
    assert not torch.allclose(block(x, tokens, mask)[1], block(other, tokens, mask)[1], atol=1e-4)

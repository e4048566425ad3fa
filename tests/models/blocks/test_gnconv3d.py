"""HorNet: an operator of degree n + 1, equivariant to shifts, at the cost that the paper gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petground.models import build
from petground.models.blocks.contract import BlockError


def _mixer(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build("mixer", "gnconv3d", channels=16, kernel=3, **options).double()


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_without_bias_it_is_of_degree_order_plus_one(order: int) -> None:
    mixer = _mixer(order=order, bias=False, residual=False)
    x = torch.randn(1, 16, 4, 5, 6).double()
    out = mixer(x)
    assert out.abs().max() > 0
    for c in (2.0, -1.5):
        assert torch.allclose(mixer(c * x), c ** (order + 1) * out, rtol=1e-9, atol=1e-15)


def test_order_one_is_a_gated_convolution() -> None:
    mixer = _mixer(order=1, residual=False)
    x = torch.randn(1, 16, 4, 5, 6).double()
    p, q = mixer.inward(x).chunk(2, dim=1)
    assert torch.allclose(mixer(x), mixer.outward(p * mixer.depthwise(q) / 3))


def test_shifts_of_the_input_shift_the_output_away_from_the_borders() -> None:
    mixer = _mixer(order=3, residual=False)
    x = torch.randn(1, 16, 8, 9, 10).double()
    out, moved = mixer(x), mixer(x.roll((1, 2, 3), (2, 3, 4)))
    inside = (..., slice(2, -2), slice(3, -2), slice(4, -2))
    assert torch.allclose(moved[inside], out.roll((1, 2, 3), (2, 3, 4))[inside], atol=1e-12)


@pytest.mark.parametrize(("order", "widths"), [(1, [16]), (3, [4, 8, 16]), (5, [1, 2, 4, 8, 16])])
def test_channels_double_up_to_the_full_width(order: int, widths: list[int]) -> None:
    mixer = _mixer(order=order)
    assert mixer.widths == widths
    assert widths[0] + sum(widths) == 2 * 16


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kernel", [3, 7])
def test_multiplications_are_those_of_the_closed_form(order: int, kernel: int) -> None:
    """Per voxel, section 3.2 with a cubic kernel; a weight of a convolution multiplies once per voxel, a gate once."""
    c, k3 = 32, kernel**3
    mixer = build("mixer", "gnconv3d", channels=c, order=order, kernel=kernel, bias=False, residual=False)
    counted = sum(parameter.numel() for parameter in mixer.parameters()) + sum(mixer.widths)
    projections = 3 * c * c + 2 / 3 * c * c * (1 - 0.25 ** (order - 1))
    assert counted == pytest.approx(projections + 2 * c * (k3 + 1) * (1 - 0.5**order))
    assert counted <= c * (2 * k3 + 11 / 3 * c + 2)


def test_the_block_starts_next_to_the_identity() -> None:
    x = torch.randn(1, 16, 4, 5, 6).double()
    assert torch.allclose(_mixer()(x), x, atol=1e-4)
    assert not torch.equal(_mixer()(x), x)


def test_mistakes_are_named() -> None:
    with pytest.raises(BlockError, match=r"multiple of 16"):
        build("mixer", "gnconv3d", channels=24)
    with pytest.raises(BlockError, match="odd"):
        build("mixer", "gnconv3d", channels=16, kernel=4)
    with pytest.raises(BlockError, match="order=0"):
        build("mixer", "gnconv3d", channels=16, order=0)

"""What the windowed blocks compute by themselves and what the kernels make of the same cut, bias and lists are one."""

from __future__ import annotations

import pytest
import torch

from petground.kernels.routed_attention import routed_attention
from petground.models.blocks.attention.bilevel_routing import BilevelRouting
from petground.models.blocks.attention.grouping import box_attention, box_by_kernel
from petground.models.blocks.attention.relative_bias import AxialEmbedding
from petground.models.blocks.attention.window_attention import WindowAttention, fused
from petground.models.blocks.contract import Grid
from tests.models.conformance.memory import largest_tensor

GRID = Grid((5, 6, 9), (3.0, 2.0, 1.5))


def _inputs(width: int = 8) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, GRID.tokens, width) for _ in range(3))
    return q, k, v, torch.rand(2, GRID.tokens) > 0.3


@pytest.mark.parametrize(
    "options",
    [
        {"position": "table", "shift": "shifted", "distance": "short", "halo": (0, 0, 0)},
        {"position": "log_mm", "shift": "plain", "distance": "short", "halo": (2, 1, 3)},
        {"position": "mlp_mm", "shift": "shifted", "distance": "long", "halo": (0, 0, 0)},
        {"position": "query", "shift": "plain", "distance": "short", "halo": (2, 1, 3)},
        {"position": "query", "shift": "shifted", "distance": "long", "interval": (1, 2, 3), "halo": (0, 0, 0)},
        {"position": "none", "shift": "shifted", "distance": "long", "interval": (1, 2, 3), "halo": (0, 0, 0)},
    ],
)
def test_windows(options: dict[str, object]) -> None:
    block = WindowAttention(16, 2, window=(4, 3, 4), **options)
    q, k, v, mask = _inputs()
    for keep in (mask, None):
        truth, _ = block(q, k, v, mask=keep, grid=GRID, need_weights=True)  # written out
        position, cut = block.positions[0], block.cuts(GRID)[0]
        scaled, keys = q * 8**-0.5, k
        if isinstance(position, AxialEmbedding):
            scaled, keys = position.widen(q, scaled, k, cut)
        found = fused(scaled, keys, v, keep, position, cut, GRID.spacing_zyx_mm)
        torch.testing.assert_close(found, truth, atol=2e-6, rtol=1e-5)


def test_a_halo_copies_no_window() -> None:
    """Eight times the keys at the defaults: the answer and its gradient hold less than one such copy."""
    torch.manual_seed(0)
    grid, block = Grid((16, 16, 16)), WindowAttention(32, 1, position="query", shift="plain", distance="short")
    q, k, v = (torch.randn(1, 1, grid.tokens, 32, requires_grad=True) for _ in range(3))
    with largest_tensor() as made:
        block(q, k, v, grid=grid)[0].square().sum().backward()
    assert made.numbers < 8 * k.numel(), made.shape


@pytest.mark.parametrize(("shape", "reach"), [((5, 6, 9), (1, 2, 3)), ((1, 1, 270), (0, 0, 4))])
def test_boxes(shape: tuple[int, int, int], reach: tuple[int, int, int]) -> None:
    q, k, v, mask = _inputs()
    mask[1] = False
    for keep in (mask, None):
        truth = box_attention(q, k, v, shape, reach, mask=keep)
        torch.testing.assert_close(box_by_kernel(q, k, v, shape, reach, keep), truth, atol=2e-6, rtol=1e-5)


def test_routing() -> None:
    block = BilevelRouting(16, 2, regions=(2, 3, 3), topk=3, local=0)
    q, k, v, mask = _inputs()
    truth, _ = block(q, k, v, mask=mask, grid=GRID)
    table, region = block.route(q, k, GRID, mask), block.cut(GRID).window
    found = routed_attention(q, k, v, table, grid=GRID.shape_zyx, region=region, mask=mask)
    torch.testing.assert_close(found, truth, atol=2e-6, rtol=1e-5)

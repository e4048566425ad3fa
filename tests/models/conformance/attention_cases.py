"""Attention blocks to test, with random parameters, and tokens to give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block, Grid
from petground.models.registry import BLOCKS, build
from tests.models.conformance.examples import ATTENTION as EXAMPLES

HEADS, DIM = 2, 4
ALL = [pytest.param(block, id=key) for key, block in BLOCKS["attention"].items()]
SELF = [p for p in ALL if "self" in p.values[0].patterns]
CROSS = [p for p in ALL if "cross" in p.values[0].patterns]
CAUSAL = [p for p in ALL if "causal" in p.values[0].patterns]


def made(block: Block, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> nn.Module:
    """The block in evaluation mode, its parameters random (what starts at zero would hide mistakes)."""
    torch.manual_seed(seed)
    given = {**EXAMPLES.get(block.key, {}), **options}
    module = build("attention", block.key, channels=HEADS * DIM, num_heads=HEADS, **given)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def tokens(count: int, *, seed: int = 1, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(batch, HEADS, count, DIM, dtype=dtype)


def asked(block: Block, grid: tuple[int, int, int] = (3, 5, 7), **given: Any) -> tuple[list[Tensor], dict[str, Any]]:
    """q, k, v and keywords in the block's own pattern: self-attention on a grid, else cross-attention to 6 keys."""
    shape = Grid(grid, (4.0, 2.0, 2.0))
    q = tokens(shape.tokens)
    if "self" in block.patterns or "cross" not in block.patterns:
        causal = {} if "self" in block.patterns else {"causal": True}
        return [q, tokens(shape.tokens, seed=2), tokens(shape.tokens, seed=3)], {"grid": shape, **causal, **given}
    return [q, tokens(6, seed=2), tokens(6, seed=3)], {"grid": shape, "cross": True, **given}

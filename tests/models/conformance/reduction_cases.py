"""Token reductions to test, with random parameters, and tokens, scores and a sentence to give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block, Grid, Reduced
from petground.models.registry import BLOCKS, build
from tests.models.conformance.examples import TOKEN_REDUCTION as EXAMPLES

CHANNELS = 8
ALL = [pytest.param(block, id=key) for key, block in BLOCKS["token_reduction"].items()]


def made(block: Block, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    given = {**EXAMPLES.get(block.key, {}), **options}
    module = build("token_reduction", block.key, channels=CHANNELS, **given)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def asked(grid: tuple[int, int, int] = (3, 5, 7), batch: int = 2) -> tuple[Tensor, dict[str, Any]]:
    torch.manual_seed(1)
    shape = Grid(grid, (4.0, 2.0, 2.0))
    tokens = torch.randn(batch, shape.tokens, CHANNELS, dtype=torch.float64)
    text = torch.randn(batch, 5, CHANNELS, dtype=torch.float64)
    text_mask = torch.ones(batch, 5, dtype=torch.bool)
    text_mask[-1, 3:] = False
    scores = torch.rand(batch, shape.tokens, dtype=torch.float64)
    return tokens, {"grid": shape, "scores": scores, "text": text, "text_mask": text_mask}


def back(reduced: Reduced) -> Tensor:
    """On all voxels again, [B, N, C], as a layer that changes nothing would leave it: with its gain and carry."""
    dense = reduced.unmerge(reduced.tokens if reduced.gain is None else reduced.tokens * reduced.gain[..., None])
    return dense if reduced.carry is None else dense + reduced.carry[..., None]

"""Fusions to test, as they start and with random parameters, and streams to give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block
from petground.models.registry import BLOCKS, build
from tests.models.conformance.examples import FUSION as EXAMPLES

CHANNELS, TEXT, WORDS = 8, 6, 5
BOX = torch.tensor([[[-1.0, -0.5, -1.0], [0.0, 0.5, 0.25]], [[-0.5, -1.0, 0.0], [1.0, 0.25, 1.0]]], dtype=torch.float64)
ALL = [pytest.param(block, id=key) for key, block in BLOCKS["fusion"].items()]


def serving(what: str) -> list[Any]:
    return [p for p in ALL if what in p.values[0].serves]


def built(block: Block, seed: int = 0, **options: Any) -> nn.Module:
    """As it starts."""
    torch.manual_seed(seed)
    given = {**EXAMPLES.get(block.key, {}), **options}
    return build("fusion", block.key, channels=CHANNELS, text_channels=TEXT, **given)


def made(block: Block, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> nn.Module:
    """In evaluation mode, its parameters random (what starts at zero would hide mistakes)."""
    module = built(block, seed, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def asked(grid: tuple[int, int, int] = (3, 4, 5), dtype: torch.dtype = torch.float64, batch: int = 2) -> list[Tensor]:
    """x, tokens, mask of `batch` sentences; the first two have padding."""
    torch.manual_seed(1)
    mask = torch.ones(batch, WORDS, dtype=torch.bool)
    mask[0, 3:] = False
    mask[1, 1] = False
    x = torch.randn(batch, CHANNELS, *grid, dtype=torch.float64)
    return [x.to(dtype), torch.randn(batch, WORDS, TEXT, dtype=torch.float64).to(dtype), mask]


def skip_of(block: Block, x: Tensor, exams: int) -> dict[str, Tensor]:
    """The encoder's features, for the blocks that read them."""
    torch.manual_seed(2)
    return {"skip": torch.randn_like(x[:exams])} if "skip" in block.serves else {}

"""Mixers to test, with random parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petground.models.blocks.contract import Block
from petground.models.registry import BLOCKS, build
from tests.models.conformance.examples import MIXER as EXAMPLES

CHANNELS = 8
ALL = [pytest.param(block, id=key) for key, block in BLOCKS.get("mixer", {}).items()]


def made(block: Block, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = build("mixer", block.key, channels=CHANNELS, **EXAMPLES.get(block.key, {}))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.double().eval()

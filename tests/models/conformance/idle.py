"""Which parameters got no gradient, and whether their blocks declare them: `Block.idle`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from petground.models.blocks.contract import Block
from petground.models.net_config import NetConfig
from petground.models.registry import BLOCKS

__all__ = ["blocks_of", "declared", "without_gradient"]


def without_gradient(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.grad is None}


def declared(names: Iterable[str], blocks: Iterable[Block]) -> set[str]:
    """Those of the names that the blocks' patterns take."""
    patterns = [f"*.{pattern}" for block in blocks for pattern in block.idle]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def blocks_of(config: NetConfig) -> list[Block]:
    """The blocks of a network that declare idle parameters."""
    keys = {line.split(": ")[0] for line in config.idle}
    return [block for blocks in BLOCKS.values() for key, block in blocks.items() if key in keys]

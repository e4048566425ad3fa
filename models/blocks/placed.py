"""A block's first tensor against the block itself: where its parameters are, of what type and how wide.

`build` gives every block this check, so that no block writes it. Whether the other tensors go with the first one, the
slot's own check says, see `contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block, BlockInputError

__all__ = ["checks_its_place"]

_FIRST = {"attention": "q", "token_reduction": "tokens", "mixer": "x", "fusion": "x"}


def checks_its_place(module: nn.Module, block: Block, channels: int) -> None:
    """Before each forward of the block: BlockInputError unless its first tensor goes with its parameters and buffers.

    A block without any serves every device, type and width. Under autocast other types than float64 mix.
    """
    # a partial, since a closure could not be pickled with the block
    check = partial(_check, block.key, _FIRST[block.slot], channels, "types" in block.serves)
    module.register_forward_pre_hook(check, with_kwargs=True)


def _check(
    key: str,
    argument: str,
    channels: int,
    any_type: bool,
    module: nn.Module,
    given: tuple[Any, ...],
    named: Mapping[str, Any],
) -> None:
    tensor = given[0] if given else named.get(argument)
    own = next(chain(module.parameters(), module.buffers()), None)
    if own is None or not isinstance(tensor, Tensor):
        return
    if tensor.device != own.device:
        raise BlockInputError(key, argument, f"is on {tensor.device}", f"move it to {own.device}, where the block is")
    weight = next(module.parameters(), None)
    if weight is None or not tensor.is_floating_point():
        return
    if not any_type and not _go_together(tensor, weight):
        remedy = f"give {weight.dtype}, as the block's parameters are, or run both under autocast"
        raise BlockInputError(key, argument, f"is {tensor.dtype}", remedy)
    if argument == "tokens" and tensor.ndim == 3 and tensor.shape[2] != channels:
        wanted = f"give [B, N, {channels}], the block's channels"
        raise BlockInputError(key, argument, f"is {tuple(tensor.shape)}", wanted)


def _go_together(tensor: Tensor, weight: Tensor) -> bool:
    if tensor.dtype == weight.dtype:
        return True
    # autocast leaves float64 as it is
    return torch.float64 not in (tensor.dtype, weight.dtype) and torch.is_autocast_enabled(tensor.device.type)

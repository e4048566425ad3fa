"""torch.ops.petground.topk, for the backend that is no PyTorch: Triton. A choice has no gradient."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from petground.kernels._shared.precision import operator
from petground.kernels._triton.runtime import why_not

__all__ = ["cannot_serve", "topk_op"]


def cannot_serve(scores: Tensor, device: torch.device) -> str | None:
    """Why the kernels cannot take these scores, or None."""
    if scores.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"does not take {scores.dtype}"
    return why_not(device)


@operator("topk")
def topk_op(scores: Tensor, wanted: Tensor | None, k: int, mask: Tensor | None, size: int, places: bool) -> Tensor:
    """Places [B, size] or choice [B, N] of at most k scores of each row; see triton.topk_triton."""
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    module = importlib.import_module("petground.kernels.topk.triton")
    found: Tensor = module.topk_triton(scores, wanted, k, mask, size, places)
    return found


@topk_op.register_fake
def _(scores: Tensor, wanted: Tensor | None, k: int, mask: Tensor | None, size: int, places: bool) -> Tensor:
    if places:
        return scores.new_empty((scores.shape[0], size), dtype=torch.long)
    return scores.new_empty(scores.shape, dtype=torch.bool)

"""Top-k selection by Triton kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from petground.kernels._triton.runtime import launch
from petground.kernels.topk.triton_kernels import count_digits, write_chosen

__all__ = ["cases", "topk_triton"]

_BLOCK = 1024  # with 2048 the last kernel spills on some GPUs
_WARPS = 8
# Digits of eight bits until equal prefixes are equal scores: the rest of a 16-bit number in float32 is always the same
_PASSES = {torch.bfloat16: 2, torch.float16: 3, torch.float32: 4}


def topk_triton(scores: Tensor, wanted: Tensor | None, k: int, mask: Tensor | None, size: int, places: bool) -> Tensor:
    """Places [B, size] int64, ascending and -1 behind them, or which scores are chosen [B, N] bool.

    wanted [B] int64 or None: k for all rows; never more than k of a row, which is at most `size`.
    """
    rows, columns = scores.shape
    if places:
        out = scores.new_full((rows, size), -1, dtype=torch.long)
    else:
        out = scores.new_empty((rows, columns), dtype=torch.bool)
    if rows == 0 or columns == 0 or (places and size == 0):
        return out
    passes = _PASSES[scores.dtype]
    parts = -(-columns // _BLOCK)
    keep = None if mask is None else mask.view(torch.uint8)
    counts = scores.new_empty((passes, rows, parts, 256), dtype=torch.int32)
    totals = scores.new_empty((passes, rows, 256), dtype=torch.int32)
    common: dict[str, Any] = {
        "scores": scores, "keep": keep, "totals": totals,
        "state": scores.new_empty((passes, rows, 2), dtype=torch.int64),
        "rows": rows, "columns": columns, "parts": parts, "lowest": torch.finfo(scores.dtype).min,
        "scores_b": scores.stride(0), "scores_n": scores.stride(1),
        "keep_b": 0 if keep is None else keep.stride(0), "keep_n": 0 if keep is None else keep.stride(1),
        "MASKED": keep is not None, "BLOCK": _BLOCK,
    }  # fmt: skip
    how_many = {"wanted": None if wanted is None else wanted.contiguous(), "k": k}
    for number in range(passes):
        launch(
            count_digits,
            rows * parts,
            common | how_many | {"counts": counts, "PASS": number},
            num_warps=_WARPS,
            num_stages=1,
        )
        torch.sum(counts[number], 1, dtype=torch.int32, out=totals[number])
    before = counts.cumsum(2, dtype=torch.int32).sub_(counts)
    kinds = {"PASSES": passes, "PLACES": places}
    arguments = common | kinds | {"before": before, "out": out if places else out.view(torch.uint8), "size": size}
    launch(write_chosen, rows * parts, arguments, num_warps=_WARPS, num_stages=1)
    return out


def cases() -> Iterator[str]:
    """Runs the selection on meta tensors of every kind that has kernels of its own; yields what it was."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        scores = torch.empty(2, 110592, dtype=dtype, device="meta")
        mask = torch.empty(2, 110592, dtype=torch.bool, device="meta")
        wanted = torch.empty(2, dtype=torch.long, device="meta")
        topk_triton(scores, wanted, 64, mask, 64, True)
        topk_triton(scores, None, 64, None, 64, False)
        yield f"topk {str(dtype).removeprefix('torch.')}"

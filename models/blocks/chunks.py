"""Large intermediates, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["by_rows"]


def by_rows(compute: Callable[[int, int], Tensor], count: int, step: int, dim: int = 2) -> Tensor:
    """Joins compute(first, last) along axis `dim` over all of `count`, at most `step` (1 or more) at a time.

    In training what is between is not kept, but worked out a second time for the gradient; one chunk alone is kept.
    Without gradients every chunk goes into the one answer. Chunks kept in a list would lie between the large blocks
    that are freed, and glibc before 2.38 finds such a gap too small for the next block of the same size, as tensors are
    aligned: where freed memory stays with the process (`petground.kernels.memory`), all N x N would be held in the end.
    """
    if step >= count:
        return compute(0, count)
    if torch.is_grad_enabled():
        starts = range(0, count, step)
        chunks = [checkpoint(compute, one, min(one + step, count), use_reentrant=False) for one in starts]
        return torch.cat(chunks, dim=dim)
    chunk = compute(0, step)
    out = chunk.new_empty((*chunk.shape[:dim], count, *chunk.shape[dim + 1 :]))
    out.narrow(dim, 0, step).copy_(chunk)
    for first in range(step, count, step):
        last = min(first + step, count)
        out.narrow(dim, first, last - first).copy_(compute(first, last))
    return out

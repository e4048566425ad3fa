"""The softmax map that a cheaper attention is to imitate, of a few queries: never N x N."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.precision import autocast_off, widened
from petground.models.blocks.attention.softmax import masked_softmax

__all__ = ["softmax_rows", "some_rows"]

ROWS = 64


def some_rows(count: int, device: torch.device) -> Tensor:
    """Numbers of the queries that a distillation looks at: all up to ROWS, else ROWS drawn anew at each call."""
    if count <= ROWS:
        return torch.arange(count, device=device)
    return torch.randint(count, (ROWS,), device=device)


def softmax_rows(
    q: Tensor, k: Tensor, rows: Tensor, mask: Tensor | None, *, causal: bool = False, cross: bool = False
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T / sqrt(D)) of the rows [R] alone, and which keys count there (None: all).

    q [B, H, N, D], k [B, H, M, D], mask [B, M] bool -> [B, H, R, M] in at least 32 bits without a gradient, and bool,
    broadcastable to it. Rows of padded queries are zero, which are the keys' but in cross-attention.
    """
    keep = None if mask is None else mask[:, None, None, :]
    if causal:
        before = rows[:, None] >= torch.arange(k.shape[2], device=k.device)
        keep = before if keep is None else keep & before
    if mask is not None and not cross:
        padded = mask[:, rows][:, None, :, None]
        keep = padded if keep is None else keep & padded
    with torch.no_grad(), autocast_off(q):
        scores = widened(q[:, :, rows]) @ widened(k).transpose(-1, -2) * q.shape[-1] ** -0.5
        return masked_softmax(scores, keep), keep

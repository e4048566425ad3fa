"""How answers and gradients lie in memory; the same for real tensors and for those that only have a shape."""

from __future__ import annotations

from torch import Tensor

__all__ = ["empty_answer", "empty_features", "empty_queries"]


def empty_answer(q: Tensor, v: Tensor, x: Tensor | None, backend: str) -> Tensor:
    """[B, H, N, E] for the answer: as [B, N, H, E] in memory, so that joining the heads afterwards copies nothing; of
    "chunked" channels first, [B, H, E, N], where the queries lie so (Triton's kernels write channels side by side).

    With a gate the answer lies as x does where x has its channels first ([B, C, Z, Y, X] features need no copy).
    """
    if x is not None:
        return empty_features(x)
    batch, heads, rows, _ = q.shape
    return _empty(q, (batch, heads, rows, v.shape[3]), first=backend == "chunked" and _channels_first(q))


def empty_features(x: Tensor) -> Tensor:
    """[B, H, N, E] for gated features or their gradient: channels first in memory where x is, else [B, N, H, E]."""
    return _empty(x, x.shape, first=_channels_first(x))


def empty_queries(q: Tensor, backend: str) -> Tensor:
    """[B, H, N, D] for the queries' gradient: as [B, N, H, D] in memory, from where projections give them; of "chunked"
    channels first where they lie so."""
    return _empty(q, q.shape, first=backend == "chunked" and _channels_first(q))


def _channels_first(tensor: Tensor) -> bool:
    return tensor.stride(2) == 1 and tensor.shape[2] > 1


def _empty(like: Tensor, shape: tuple[int, ...], *, first: bool) -> Tensor:
    batch, heads, rows, width = shape
    if first:
        return like.new_empty(batch, heads, width, rows).transpose(2, 3)
    return like.new_empty(batch, rows, heads, width).transpose(1, 2)

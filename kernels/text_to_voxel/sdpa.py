"""PyTorch's fused attention, softmax only."""

from __future__ import annotations

from torch import Tensor

from petground.kernels.sdpa import masked_sdpa

__all__ = ["text_to_voxel_sdpa"]


def text_to_voxel_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """Same contract as the reference with softmax.

    scale [H] goes into the queries, of which there are few, before they are rounded; None is 1 / sqrt(D).
    """
    keep = None if mask is None else mask[:, None, None, :]
    if scale is None:
        return masked_sdpa(q, k, v, keep)
    return masked_sdpa((q.to(scale.dtype) * scale[:, None, None]).to(q.dtype), k, v, keep, scale=1.0)

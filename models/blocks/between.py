"""Softmax attention from one stream of tokens to another, by the kernel made for its shape."""

from __future__ import annotations

from torch import Tensor

from petground.kernels.cross_attention import cross_attention
from petground.kernels.text_to_voxel import text_to_voxel
from petground.models.blocks.backend import Backend

__all__ = ["attend_between"]


def attend_between(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, backend: Backend = "auto") -> Tensor:
    """softmax(q k^T / sqrt(D)) v, q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool -> [B, H, N, E].

    Fewer queries than keys share the keys out (words that read voxels), more of them read all keys each (voxels that
    read words): the answer is the same, and N x M is not held.
    """
    attend = text_to_voxel if q.shape[2] < k.shape[2] else cross_attention
    return attend(q, k, v, mask=mask, backend=backend)

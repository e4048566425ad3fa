"""Softmax attention within groups of tokens, all groups at once, through PyTorch's fused kernels where they serve."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels.sdpa import masked_sdpa
from petground.models.blocks.attention.softmax import masked_softmax

__all__ = ["attend"]

BUDGET = 2**24  # entries of a mask that are held at once


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    keys: Tensor | None = None,
    parts: Tensor | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T + bias) v in each of G groups; q carries its scale.

    Args:
        q: [G, H, Q, D].
        k: [G, H, K, D].
        v: [G, H, K, E].
        bias: [H, Q, K], the same in every group.
        keys: [G, K] bool, True where a key counts.
        parts: [G, K] numbers (Q = K): tokens of different numbers do not see each other.
        need_weights: the weights [G, H, Q, K], too.

    A query without keys gets zero. A bias and a mask meet for some groups at a time, so that no more than BUDGET
    entries are held beyond what autograd keeps; G Q K, not N N, bounds it all.
    """
    if need_weights:
        scores = q @ k.transpose(-1, -2)
        weights = masked_softmax(scores if bias is None else scores + bias, _keep(keys, parts))
        return weights.to(v.dtype) @ v, weights  # a bias of its own type makes weights of another
    if keys is None and parts is None:
        return masked_sdpa(q, k, v, bias=None if bias is None else bias[None], scale=1.0), None
    step = max(1, BUDGET // (q.shape[1] * q.shape[2] * k.shape[2]))
    done = []
    for first in range(0, q.shape[0], step):
        some = slice(first, first + step)
        keep = _keep(None if keys is None else keys[some], None if parts is None else parts[some])
        done.append(masked_sdpa(q[some], k[some], v[some], keep, bias=bias, scale=1.0))
    return (done[0] if len(done) == 1 else torch.cat(done)), None


def _keep(keys: Tensor | None, parts: Tensor | None) -> Tensor | None:
    """Who sees whom: [G, 1, Q or 1, K]."""
    keep = None if keys is None else keys[:, None, None, :]
    if parts is None:
        return keep
    together = parts[:, None, :, None] == parts[:, None, None, :]
    return together if keep is None else keep & together

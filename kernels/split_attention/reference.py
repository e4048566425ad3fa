"""Every prefix of the keys at once, by the exact merge of softmax attention over parts of them.

A part leaves (m, u, w): m [B, H, N, 1] the largest score, u [B, H, N, 1] = sum exp(s - m), w [B, H, N, E] =
sum exp(s - m) v. They merge exactly, in any order (Attention as an RNN, arXiv 2405.13956, section 3.2). A part without
real keys is (-inf, 0, 0), the neutral element. m carries no gradient: the answer w / u does not depend on it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Part", "finish", "merge", "prefix_attention_reference"]

Part = tuple[Tensor, Tensor, Tensor]


def merge(a: Part, b: Part) -> Part:
    """Two parts as one; associative and commutative."""
    largest = torch.maximum(a[0], b[0])
    left, right = torch.exp(a[0] - _finite(largest)), torch.exp(b[0] - _finite(largest))
    return largest, a[1] * left + b[1] * right, a[2] * left + b[2] * right


def finish(part: Part) -> Tensor:
    """W / u: the attention over all merged keys [B, H, N, E]; zero where there were none."""
    return part[2] / part[1].masked_fill(part[1] == 0, 1.0)


def prefix_attention_reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """One query per head against every prefix of the keys: o_t = softmax(q . k_1..t) v_1..t -> [B, H, N, E].

    q [H, D], k [B, H, N, D], v [B, H, N, E]. A parallel scan of `merge` in log2(N) steps (section 3.2, after Hillis
    and Steele), with memory linear in N.
    """
    kind, wide = v.dtype, torch.promote_types(v.dtype, torch.float32)  # scores and sums over the keys leave 16 bits
    q, k, v = q.to(wide), k.to(wide), v.to(wide)
    scores = torch.einsum("hd,bhnd->bhn", q, k)[..., None] * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, :, None], float("-inf"))
        v = v.masked_fill(~mask[:, None, :, None], 0.0)
    largest = scores.detach()
    own = torch.exp(scores - _finite(largest))  # one for a real key, with the score's gradient
    parts: Part = (largest, own, own * v)
    step = 1
    while step < k.shape[2]:
        parts = merge(_later(parts, step), parts)
        step *= 2
    return finish(parts).to(kind)


def _later(parts: Part, step: int) -> Part:
    """Each token gets the part of the token `step` before it; the first ones the neutral element."""
    m, u, w = (part[:, :, :-step] for part in parts)
    shift = (0, 0, step, 0)
    return pad(m, shift, value=float("-inf")), pad(u, shift), pad(w, shift)


def _finite(largest: Tensor) -> Tensor:
    """-inf minus -inf is undefined: without a key any number does."""
    return largest.masked_fill(largest == float("-inf"), 0.0)

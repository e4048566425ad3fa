"""Few queries to many keys on the CPU with any activation: some keys at a time, merged exactly as they come."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.activations import elementwise_, slope

__all__ = ["backward_chunked", "forward_chunked"]

_BLOCK_SCORES = 1 << 17  # scores of a head at a time: 512 KiB of float32 stay in the cache


def _kind(q: Tensor) -> torch.dtype:
    # float16 products are a hundred times slower than float32 ones on CPUs, bfloat16 scores too coarse
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _scores(scaled: Tensor, k: Tensor, mask: Tensor | None, cut: slice) -> tuple[Tensor, Tensor, Tensor | None]:
    """(scores [B, H, M, C], keys of the cut, what to drop [B, 1, 1, C])."""
    keys = k[:, :, cut].to(scaled.dtype)
    drop = None if mask is None else ~mask[:, None, None, cut]
    return scaled @ keys.transpose(-1, -2), keys, drop


def _cuts(queries: int, keys: int) -> list[slice]:
    step = max(1, _BLOCK_SCORES // queries)
    return [slice(start, start + step) for start in range(0, keys, step)]


def forward_chunked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, activation: str, shift: float
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, M, E] and log-sum-exp [B H M] (of size 0 where the activation is not softmax)."""
    kind = _kind(q)
    scaled = q.to(kind) * scale.to(kind)[:, None, None]
    answer = q.new_zeros(*q.shape[:3], v.shape[3], dtype=kind)
    peak = q.new_full((*q.shape[:3], 1), float("-inf"), dtype=kind)
    total = torch.zeros_like(peak)
    for cut in _cuts(q.shape[2], k.shape[2]):
        scores, _, drop = _scores(scaled, k, mask, cut)
        values = v[:, :, cut].to(kind)
        if activation != "softmax":
            found = elementwise_(scores.add_(shift), activation)
            answer += (found if drop is None else found.masked_fill_(drop, 0.0)) @ values
            continue
        if drop is not None:
            scores.masked_fill_(drop, float("-inf"))
        higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
        level = higher.masked_fill(torch.isneginf(higher), 0.0)  # no key yet: exp(-inf - 0) is 0, not NaN
        shrink = torch.exp(peak - level)
        found = scores.sub_(level).exp_()
        total = total * shrink + found.sum(-1, keepdim=True)
        answer = answer * shrink + found @ values
        peak = higher
    if activation != "softmax":
        return answer.to(q.dtype), q.new_empty(0, dtype=kind)
    empty = torch.isneginf(peak)
    total = total.masked_fill(empty, 1.0)
    return (answer / total).to(q.dtype), (peak.masked_fill(empty, 0.0) + total.log()).flatten()


def backward_chunked(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, out: Tensor, stat: Tensor,
    activation: str, shift: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, scale."""
    kind = _kind(q)
    factor = scale.to(kind)[:, None, None]
    scaled = q.to(kind) * factor
    above = grad.to(kind)
    dq = scaled.new_zeros(scaled.shape)  # not in the layout of q: see the fake form
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    level = stat.view(*q.shape[:3], 1) if activation == "softmax" else stat
    balance = (above * out.to(kind)).sum(-1, keepdim=True)
    for cut in _cuts(q.shape[2], k.shape[2]):
        scores, keys, drop = _scores(scaled, k, mask, cut)
        steep = above @ v[:, :, cut].to(kind).transpose(-1, -2)
        if activation == "softmax":
            found = scores.sub_(level).exp_()
            steep = steep.sub_(balance).mul_(found)
        else:
            scores = scores.add_(shift)
            found = elementwise_(scores.clone(), activation)
            steep = steep.mul_(slope(scores, found, activation))
        if drop is not None:
            found = found.masked_fill_(drop, 0.0)
            steep = steep.masked_fill_(drop, 0.0)
        dv[:, :, cut] = found.transpose(-1, -2) @ above
        dk[:, :, cut] = steep.transpose(-1, -2) @ scaled
        dq += steep @ keys
    dscale = (dq * q.to(kind)).sum((0, 2, 3))
    return (dq * factor).to(q.dtype), dk, dv, dscale.to(scale.dtype)

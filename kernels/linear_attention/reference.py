"""The truth: linear attention as the quadratic form, every pair of tokens looked at, in float32 at least.

q [B, H, N, D] and k [B, H, M, D] are features already (a feature map is the caller's), v [B, H, M, E],
mask [B, M] bool with True = a real key, log_decay [H] with values <= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linear_attention_carried_quadratic", "linear_attention_quadratic"]


def linear_attention_quadratic(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    *,
    causal: bool = False,
    normalize: bool = False,
) -> Tensor:
    """o_i = sum_j W_ij v_j with W_ij = (q_i . k_j) exp(log_decay |i - j|), over j <= i when causal -> [B, H, N, E].

    normalize divides each row by its sum. Holds [B, H, N, M] in memory.
    """
    kind = v.dtype  # sums over many keys leave float16
    q, k, v = (one.to(torch.promote_types(one.dtype, torch.float32)) for one in (q, k, v))
    weights = q @ k.transpose(-1, -2)
    rows, cols = weights.shape[-2:]
    if log_decay is not None:
        steps = (torch.arange(rows, device=q.device)[:, None] - torch.arange(cols, device=q.device)).abs()
        weights = weights * torch.exp(log_decay.to(q.dtype)[:, None, None] * steps)
    if causal:
        weights = weights.tril()
    if mask is not None:
        weights = weights.masked_fill(~mask[:, None, None, :], 0.0)
        v = v.masked_fill(~mask[:, None, :, None], 0.0)
    out = weights @ v
    if normalize:  # a row without keys sums to zero and stays zero
        total = weights.sum(-1, keepdim=True)
        out = out / total.masked_fill(total == 0, 1.0)
    return out.to(kind)


def linear_attention_carried_quadratic(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, mask: Tensor | None, log_decay: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The causal answer after what state [B, H, D, E] stands for, and the state after it, in float32 at least.

    The state of tokens 0..T-1 is sum_t lambda^(T-1-t) k_t^T v_t; query number t after it reads lambda^(t+1) of it.
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    out = linear_attention_quadratic(q.to(wide), k.to(wide), v.to(wide), mask, log_decay, causal=True)
    rates = torch.zeros(q.shape[1], device=q.device) if log_decay is None else log_decay
    count = k.shape[2]
    t = torch.arange(count, device=q.device, dtype=wide)[:, None]
    faded = torch.exp(rates.to(wide)[:, None, None] * (count - 1 - t)) * k
    if mask is not None:
        faded, v = (one.masked_fill(~mask[:, None, :, None], 0.0) for one in (faded, v))
    after = faded.to(wide).transpose(-1, -2) @ v.to(wide)
    if state is not None:
        out = out + torch.exp(rates.to(wide)[:, None, None] * (t + 1)) * q.to(wide) @ state.to(wide)
        after = after + torch.exp(rates.to(wide) * count)[:, None, None] * state.to(wide)
    return out.to(v.dtype), after

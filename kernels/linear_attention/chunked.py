"""Linear attention in chunks of tokens, on any device: time and memory linear in N, nothing of N x N.

q [B, H, N, D] and k [B, H, M, D] are features already (a feature map is the caller's), v [B, H, M, E],
mask [B, M] bool with True = a real key, log_decay [H] with values <= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linear_attention_carried_chunked", "linear_attention_chunked"]


def linear_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    *,
    causal: bool = False,
    normalize: bool = False,
    chunk_size: int = 64,
) -> Tensor:
    """o_i = sum_j (q_i . k_j) exp(log_decay |i - j|) v_j, over j <= i when causal -> [B, H, N, E].

    normalize divides each row by its sum of weights. Without decay and order it is q (k^T v). Else chunks of
    `chunk_size` tokens in turn (Lightning Attention-2, arXiv 2401.04658, section 3.2): inside a chunk the left product,
    of all earlier chunks a state [D, E]. Both directions are two passes, the second strict, so that no token counts
    twice.
    """
    kind = v.dtype
    k, v = _real(k, v, mask, normalize)
    if causal:
        out, _ = _scan(q, k, v, log_decay, chunk_size, strict=False)
    elif log_decay is None:
        q, k, v = _wide(q, k, v)
        out = q @ (k.transpose(-1, -2) @ v)
    else:
        out, _ = _scan(q, k, v, log_decay, chunk_size, strict=False)
        back, _ = _scan(q.flip(2), k.flip(2), v.flip(2), log_decay, chunk_size, strict=True)
        out = out + back.flip(2)
    return (_divided(out) if normalize else out).to(kind)


def linear_attention_carried_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None,
    mask: Tensor | None,
    log_decay: Tensor | None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """The causal answer after what state [B, H, D, E] stands for, and the state after it, in float32 at least."""
    kind = v.dtype
    k, v = _real(k, v, mask, normalize=False)
    out, state = _scan(q, k, v, log_decay, chunk_size, strict=False, state=state)
    return out.to(kind), state


def _scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    chunk_size: int,
    *,
    strict: bool,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """State S <- lambda^L S + (lambda^(L-1-t) k_t)^T v_t; o_t = lambda^(t+1) q_t S + the products inside the chunk.

    lambda only ever gets exponents >= 0: nothing overflows. strict leaves a token's own key out. state: what was
    before, None: nothing. Answer and last state are in float32 at least, see `_wide`.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    decay = torch.zeros(q.shape[1], dtype=wide, device=q.device) if log_decay is None else log_decay.to(wide)
    decay = decay[:, None, None]
    if state is None:
        state = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=wide, device=q.device)
    state = state.to(wide)
    outs = []
    for qc, kc, vc in zip(*(torch.split(one, chunk_size, 2) for one in (q, k, v)), strict=True):
        qc, kc, vc = _wide(qc, kc, vc)
        count = qc.shape[2]
        t = torch.arange(count, dtype=wide, device=q.device)
        inside = qc @ kc.transpose(-1, -2) * torch.exp(decay * (t[:, None] - t).clamp(min=0))
        into = qc * torch.exp(decay * (t[:, None] + 1))
        outs.append(inside.tril(-1 if strict else 0) @ vc + into @ state)
        last = kc * torch.exp(decay * (count - 1 - t[:, None]))
        state = state * torch.exp(decay * count) + last.transpose(-1, -2) @ vc
    return torch.cat(outs, dim=2), state


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In float32 at least: sums over many keys leave float16, and would stand still in bfloat16."""
    return tuple(one.to(torch.promote_types(one.dtype, torch.float32)) for one in tensors)


def _real(k: Tensor, v: Tensor, mask: Tensor | None, normalize: bool) -> tuple[Tensor, Tensor]:
    """Padded keys and values become zero; with normalize a column of ones beside the values sums the weights."""
    if normalize:
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    if mask is None:
        return k, v
    padded = ~mask[:, None, :, None]
    return k.masked_fill(padded, 0.0), v.masked_fill(padded, 0.0)


def _divided(out: Tensor) -> Tensor:
    return out[..., :-1] / _nonzero(out[..., -1:])


def _nonzero(total: Tensor) -> Tensor:
    """A row without keys sums to zero and stays zero."""
    return total.masked_fill(total == 0, 1.0)

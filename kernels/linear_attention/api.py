"""Linear attention over feature-mapped queries and keys: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels.linear_attention.chunked import linear_attention_chunked
from petground.kernels.linear_attention.ops import linear_attention_op
from petground.kernels.linear_attention.plans import cannot_serve
from petground.kernels.linear_attention.reference import linear_attention_quadratic

__all__ = ["available_backends", "linear_attention"]


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that `backend=` can have for float32 tensors of this device, besides "auto"."""
    reasons = _reasons(torch.empty(1, 1, 1, 16, device="meta"), None, torch.device(device))
    return tuple(name for name, reason in reasons.items() if reason is None)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    causal: bool = False,
    normalize: bool = False,
    chunk_size: int = 64,
    backend: str = "auto",
) -> Tensor:
    """o_i = sum_j (q_i . k_j) lambda^|i-j| v_j, q [B, H, N, D], k [B, H, M, D], v [B, H, M, E] -> [B, H, N, E].

    mask: [B, M] bool, True = a real key. log_decay: [H], log of lambda, <= 0; it and causal need M = N.
    normalize: rows are divided by their sum of weights, which must not be negative; a row without keys is zero.
    chunk_size: tokens at a time of backend "chunked"; it changes time and memory, not the answer.
    backend: "auto", "chunked" (no N x M in memory), "reference" (quadratic) or "triton" (neither; no gradient of
        log_decay). A backend asked for by name that cannot serve raises; "auto" says once in the log what it picked.

    Raises KernelInputError for tensors that do not fit, BackendUnavailableError for a backend that is not there.
    """
    _check(q, k, v, mask, log_decay, causal, chunk_size)
    picked = choose("linear_attention", backend, _reasons(q, log_decay, q.device), f"{q.device.type} {q.dtype}")
    if picked == "triton":
        out, total = linear_attention_op(q, k, v, mask, log_decay, causal, normalize)
        return (out / total.masked_fill(total == 0, 1.0).unsqueeze(-1)).to(v.dtype) if normalize else out
    if picked == "reference":
        return linear_attention_quadratic(q, k, v, mask, log_decay, causal=causal, normalize=normalize)
    return linear_attention_chunked(q, k, v, mask, log_decay, causal=causal, normalize=normalize, chunk_size=chunk_size)


def _reasons(q: Tensor, log_decay: Tensor | None, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    triton = cannot_serve(q, log_decay, device)
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"chunked": None, "reference": None, "triton": triton}
    return {"triton": triton, "chunked": None, "reference": None}


def _check(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None, causal: bool, chunk_size: int
) -> None:
    check_qkv(q, k, v, mask, "softmax", 0.0)
    if (causal or log_decay is not None) and q.shape[2] != k.shape[2]:
        raise KernelInputError(f"{q.shape[2]} queries and {k.shape[2]} keys: causal and decay need as many of both")
    if log_decay is not None and (log_decay.shape != q.shape[1:2] or not torch.is_floating_point(log_decay)):
        raise KernelInputError(
            f"log_decay is {log_decay.dtype} {tuple(log_decay.shape)}, expected floats [{q.shape[1]}]"
        )
    if chunk_size < 1:
        raise KernelInputError(f"chunk_size is {chunk_size}, expected at least 1")

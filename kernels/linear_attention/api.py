"""Linear attention over feature-mapped queries and keys: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import FLOATS, check_tensor, check_whole, readable
from petground.kernels.linear_attention.chunked import linear_attention_carried_chunked, linear_attention_chunked
from petground.kernels.linear_attention.ops import linear_attention_op
from petground.kernels.linear_attention.plans import cannot_serve
from petground.kernels.linear_attention.reference import (
    linear_attention_carried_quadratic,
    linear_attention_quadratic,
)

__all__ = ["available_backends", "linear_attention", "linear_attention_carried"]


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

    mask: [B, M] bool, True = a real key. log_decay: [H], log of lambda, <= 0 (looked at on the CPU alone); it and
        causal need M = N.
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
    with autocast_off(q):
        if picked == "reference":
            return linear_attention_quadratic(q, k, v, mask, log_decay, causal=causal, normalize=normalize)
        return linear_attention_chunked(
            q, k, v, mask, log_decay, causal=causal, normalize=normalize, chunk_size=chunk_size
        )


def linear_attention_carried(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    chunk_size: int = 64,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The next piece of a long sequence: causal `linear_attention`, and the state that the piece after it starts with.

    q [B, H, N, D], k [B, H, N, D], v [B, H, N, E], state [B, H, D, E] as the piece before gave it, None at the start ->
    the answer [B, H, N, E] and the new state, in float32 at least. Pieces of any lengths give what one pass over all of
    them does; gradients pass through the state. mask, log_decay, chunk_size: as in `linear_attention`.

    backend: "auto", "chunked" or "reference": Triton's kernels start their states at zero.
    Raises KernelInputError for tensors that do not fit, BackendUnavailableError for a backend that is not there.
    """
    _check(q, k, v, mask, log_decay, True, chunk_size)
    if state is not None:
        shape = (*q.shape[:2], q.shape[3], v.shape[3])
        check_tensor("linear_attention_carried", "state", state, "BHDE", shape, FLOATS, q.device)
    reasons = {"chunked": None, "reference": None, "triton": "starts its states at zero"}
    picked = choose("linear_attention_carried", backend, reasons, f"{q.device.type} {q.dtype}")
    with autocast_off(q):
        if picked == "reference":
            return linear_attention_carried_quadratic(q, k, v, state, mask, log_decay)
        return linear_attention_carried_chunked(q, k, v, state, mask, log_decay, chunk_size)


def _reasons(q: Tensor, log_decay: Tensor | None, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    triton = cannot_serve(q, log_decay, device)
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"chunked": None, "reference": None, "triton": triton}
    return {"triton": triton, "chunked": None, "reference": None}


def _check(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None, causal: bool, chunk_size: int
) -> None:
    name = "linear_attention"
    check_qkv(name, q, k, v, mask)
    check_whole(name, "chunk_size", chunk_size, 1)
    if (causal or log_decay is not None) and q.shape[2] != k.shape[2]:
        held = f"q has {q.shape[2]} tokens and k {k.shape[2]}"
        raise KernelInputError(f"{name}: {held}, expected as many of both with causal or log_decay")
    if log_decay is None:
        return
    check_tensor(name, "log_decay", log_decay, "H", q.shape[1:2], FLOATS, q.device)
    # above 0 far tokens would count the more; lambda of 0 has no logarithm that can be multiplied by a distance of 0
    if readable(log_decay) and not bool(((log_decay <= 0) & log_decay.isfinite()).all()):
        raise KernelInputError(f"{name}: log_decay holds {log_decay.tolist()}, expected finite numbers of at most 0")

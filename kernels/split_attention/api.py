"""Softmax attention of few queries over very many keys, which come in parts: checks and dispatch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels.split_attention.reference import split_attention_reference
from petground.kernels.split_attention.sdpa import split_attention_sdpa

__all__ = ["available_backends", "split_attention"]

_BACKENDS: dict[str, Callable[..., Tensor]] = {  # the preferred first
    "sdpa": split_attention_sdpa,
    "reference": split_attention_reference,
}


def available_backends() -> tuple[str, ...]:
    """Names accepted by `backend=` besides "auto"."""
    return tuple(_BACKENDS)


def split_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, split_size: int = 1024, backend: str = "auto"
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, q [B, H, N, D], k [B, H, M, D], v [B, H, M, E] -> [B, H, N, E], exact.

    mask: [B, M] bool, True = a real key; a row without keys is zero.
    split_size: keys that "reference" looks at together.
    Raises KernelInputError for tensors that do not fit, BackendUnavailableError for a backend that is not there.
    """
    check_qkv(q, k, v, mask, "softmax", 0.0)
    if split_size < 1:
        raise KernelInputError(f"split_size is {split_size}, expected at least 1")
    picked = choose("split_attention", backend, dict.fromkeys(_BACKENDS), q.device.type)
    return _BACKENDS[picked](q, k, v, mask, split_size=split_size)

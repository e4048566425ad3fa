"""Cross-attention from many queries (voxels) to few masked keys (text tokens): checks and dispatch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from petground.kernels.cross_attention.reference import cross_attention_reference
from petground.kernels.cross_attention.sdpa import cross_attention_sdpa

__all__ = ["BackendUnavailableError", "KernelInputError", "available_backends", "cross_attention"]

_log = logging.getLogger(__name__)
_Impl = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
_BACKENDS: dict[str, _Impl] = {"reference": cross_attention_reference, "sdpa": cross_attention_sdpa}
_SDPA_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class KernelInputError(ValueError):
    """Tensors do not fit together; the message names the axis."""


class BackendUnavailableError(RuntimeError):
    """The backend asked for does not exist here or cannot serve these tensors."""


def available_backends() -> tuple[str, ...]:
    """Names accepted by `backend=` besides "auto"."""
    return tuple(_BACKENDS)


def cross_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Masked multi-head attention, q [B, H, N, D], k [B, H, P, D], v [B, H, P, E] -> [B, H, N, E].

    mask: [B, P] bool, True where the key is real, False where it is padding. Entries without any real key give
        zeros. Values in padded keys and their values never reach the output, unless they are not finite.
    backend: "auto", "reference" or "sdpa". A backend asked for by name that cannot serve raises; "auto" says once
        in the log what it picked.

    Raises KernelInputError for shapes, types or devices that do not fit, BackendUnavailableError as above.
    """
    _check(q, k, v, mask)
    if backend == "auto":
        backend = "sdpa" if q.dtype in _SDPA_DTYPES else "reference"
        _say_once(backend, q.device.type)
    if backend not in _BACKENDS:
        raise BackendUnavailableError(f"no cross-attention backend '{backend}'; there are {', '.join(_BACKENDS)}")
    if backend == "sdpa" and q.dtype not in _SDPA_DTYPES:
        raise BackendUnavailableError(f"backend 'sdpa' does not take {q.dtype}; use 'reference' or 'auto'")
    return _BACKENDS[backend](q, k, v, mask)


@cache
def _say_once(backend: str, device: str) -> None:
    _log.info("cross_attention on %s: backend %s", device, backend)


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.ndim != 4:
            raise KernelInputError(f"{name} has shape {tuple(tensor.shape)}, expected 4 axes [B, H, N or P, D]")
        if not tensor.is_floating_point() or tensor.dtype != q.dtype or tensor.device != q.device:
            raise KernelInputError(f"{name} is {tensor.dtype} on {tensor.device}, q is {q.dtype} on {q.device}")
    if k.shape[:2] != q.shape[:2] or v.shape[:2] != q.shape[:2]:
        raise KernelInputError(
            f"batch and heads differ: q {tuple(q.shape[:2])}, k {tuple(k.shape[:2])}, v {tuple(v.shape[:2])}"
        )
    if k.shape[-1] != q.shape[-1]:
        raise KernelInputError(f"q has {q.shape[-1]} channels per head, k has {k.shape[-1]}")
    if k.shape[2] != v.shape[2] or k.shape[2] == 0:
        raise KernelInputError(f"k has {k.shape[2]} keys, v has {v.shape[2]}; both must be the same and at least 1")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise KernelInputError(f"mask is {mask.dtype}, expected bool with True for a real key")
    if mask.shape != (q.shape[0], k.shape[2]) or mask.device != q.device:
        raise KernelInputError(
            f"mask is {tuple(mask.shape)} on {mask.device}, expected {(q.shape[0], k.shape[2])} on {q.device}"
        )

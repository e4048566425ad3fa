"""Checks of attention operands that the operators share."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.errors import KernelInputError

__all__ = ["ACTIVATIONS", "check_qkv", "head_scale"]

ACTIVATIONS = ("softmax", "sigmoid", "softplus")


def check_qkv(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, activation: str, shift: float) -> None:
    """Raises KernelInputError unless q [B, H, N, D], k [B, H, P, D], v [B, H, P, E], mask [B, P] bool go together."""
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
    if 0 in q.shape or 0 in v.shape:
        raise KernelInputError(f"q {tuple(q.shape)} or v {tuple(v.shape)} has an axis of size 0; give at least one")
    if activation not in ACTIVATIONS:
        raise KernelInputError(f"no activation '{activation}'; there are {', '.join(ACTIVATIONS)}")
    if activation == "softmax" and shift != 0.0:
        raise KernelInputError(f"shift={shift} changes nothing under softmax; leave it at 0")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise KernelInputError(f"mask is {mask.dtype}, expected bool with True for a real key")
    if mask.shape != (q.shape[0], k.shape[2]) or mask.device != q.device:
        raise KernelInputError(
            f"mask is {tuple(mask.shape)} on {mask.device}, expected {(q.shape[0], k.shape[2])} on {q.device}"
        )


def head_scale(q: Tensor, temperature: Tensor | float | None) -> Tensor:
    """What the dot products are multiplied by, [H]: 1 / (sqrt(D) temperature), in float32 (float64 for float64).

    Raises KernelInputError unless temperature is a number, a tensor of one element or one per head.
    """
    heads, width = q.shape[1], q.shape[3]
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    root = width**-0.5
    if temperature is None:
        return torch.full((heads,), root, dtype=kind, device=q.device)
    if not isinstance(temperature, Tensor):
        if temperature == 0:
            raise KernelInputError("temperature is 0; give a number other than 0")
        return torch.full((heads,), root / temperature, dtype=kind, device=q.device)
    if temperature.numel() not in (1, heads) or not temperature.is_floating_point() or temperature.device != q.device:
        raise KernelInputError(
            f"temperature is {temperature.dtype} {tuple(temperature.shape)} on {temperature.device}, "
            f"expected one float or one for each of {heads} heads on {q.device}"
        )
    return (root / temperature.reshape(-1).to(kind)).expand(heads).contiguous()

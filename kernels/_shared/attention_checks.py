"""Checks of attention operands that the operators share."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.tensor_checks import FLOATS, check_tensor, finite_number, readable

__all__ = ["ACTIVATIONS", "check_activation", "check_qkv", "head_scale"]

ACTIVATIONS = ("softmax", "sigmoid", "softplus")


def check_qkv(operator: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    """Raises KernelInputError unless q [B, H, N, D], k [B, H, P, D], v [B, H, P, E], mask [B, P] bool go together."""
    check_tensor(operator, "q", q, "BHND", (None,) * 4, FLOATS, None)
    batch, heads, _, width = q.shape
    check_tensor(operator, "k", k, "BHPD", (batch, heads, None, width), (q.dtype,), q.device)
    keys = k.shape[2]
    check_tensor(operator, "v", v, "BHPE", (batch, heads, keys, None), (q.dtype,), q.device)
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if 0 in tensor.shape:
            raise KernelInputError(f"{operator}: {name} is {tuple(tensor.shape)}, expected no axis of size 0")
    if mask is not None:  # True for a real key
        check_tensor(operator, "mask", mask, "BP", (batch, keys), (torch.bool,), q.device)


def check_activation(operator: str, activation: str, shift: float) -> None:
    """Raises KernelInputError unless there is such an activation and `shift` does something under it."""
    if activation not in ACTIVATIONS:
        raise KernelInputError(f"{operator}: activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    if not finite_number(shift):
        raise KernelInputError(f"{operator}: shift is {shift!r}, expected a finite number")
    if activation == "softmax" and shift != 0.0:
        raise KernelInputError(f"{operator}: shift is {shift}, which changes nothing under softmax; leave it at 0")


def head_scale(operator: str, q: Tensor, temperature: Tensor | float | None) -> Tensor:
    """What the dot products are multiplied by, [H]: 1 / (sqrt(D) temperature), in float32 (float64 for float64).

    Raises KernelInputError unless temperature is a number, a tensor of one element or one per head, and neither 0 nor
    infinite (of a tensor looked at on the CPU alone).
    """
    heads, width = q.shape[1], q.shape[3]
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    root = width**-0.5
    if temperature is None:
        return torch.full((heads,), root, dtype=kind, device=q.device)
    if not isinstance(temperature, Tensor):
        if not finite_number(temperature) or temperature == 0:
            wanted = "expected a finite number but 0, or a tensor"
            raise KernelInputError(f"{operator}: temperature is {temperature!r}, {wanted}")
        return torch.full((heads,), root / temperature, dtype=kind, device=q.device)
    flat = temperature.reshape(-1)
    check_tensor(operator, "temperature", flat, "H", (1 if len(flat) == 1 else heads,), FLOATS, q.device)
    if readable(flat) and not bool((flat.isfinite() & (flat != 0)).all()):
        raise KernelInputError(f"{operator}: temperature holds 0, nan or inf, expected other numbers")
    return (root / flat.to(kind)).expand(heads).contiguous()

"""Attention from few queries to very many masked keys: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_activation, check_qkv, head_scale
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.precision import autocast_off
from petground.kernels._triton.attention_plans import cannot_serve
from petground.kernels.text_to_voxel.ops import text_to_voxel_op
from petground.kernels.text_to_voxel.reference import text_to_voxel_reference
from petground.kernels.text_to_voxel.sdpa import text_to_voxel_sdpa

__all__ = ["available_backends", "text_to_voxel"]


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that `backend=` can have for float32 tensors of this device, besides "auto"."""
    small = torch.empty(1, 1, 1, 16, device="meta")
    reasons = _reasons(small, small, "softmax", torch.device(device))
    return tuple(name for name, reason in reasons.items() if reason is None)


def text_to_voxel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    activation: str = "softmax",
    temperature: Tensor | float | None = None,
    shift: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Masked multi-head attention, q [B, H, M, D], k [B, H, N, D], v [B, H, N, E] -> [B, H, M, E]; N much above M.

    activation(q k^T / (sqrt(D) temperature)) v. With few queries there is nothing to share out but the keys: parts of
    them are attended to at the same time and put together exactly (largest score, sum, values of each part).

    mask: [B, N] bool, True where the voxel counts. Entries without any give zeros. Voxels that do not count never
        reach the output, unless they are not finite.
    activation, temperature, shift: as in `petground.kernels.cross_attention`.
    backend: "auto", "reference", "sdpa" (softmax), "chunked" (for the CPU; any activation) or "triton". A backend
        asked for by name that cannot serve raises; "auto" says once in the log what it picked.

    Raises KernelInputError for shapes, types or devices that do not fit, BackendUnavailableError as above.
    """
    check_qkv("text_to_voxel", q, k, v, mask)
    check_activation("text_to_voxel", activation, shift)
    reasons = _reasons(q, v, activation, q.device)
    picked = choose("text_to_voxel", backend, reasons, f"{q.device.type} {q.dtype} {activation}")
    if picked == "sdpa":
        scale = None if temperature is None else head_scale("text_to_voxel", q, temperature)
        return text_to_voxel_sdpa(q, k, v, mask, scale)
    scale = head_scale("text_to_voxel", q, temperature)
    if picked == "reference":
        with autocast_off(q):
            return text_to_voxel_reference(q, k, v, mask, scale=scale, activation=activation, shift=shift)
    return text_to_voxel_op(q, k, v, mask, scale, activation, float(shift), picked)[0]


def _reasons(q: Tensor, v: Tensor, activation: str, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    sdpa = None if activation == "softmax" else f"has no {activation}"
    triton = cannot_serve(q, v, device)
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"sdpa": sdpa, "chunked": None, "reference": None, "triton": triton}
    return {"triton": triton, "sdpa": sdpa, "chunked": None, "reference": None}

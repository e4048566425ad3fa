"""Attention over windows and neighbourhoods of a 3D grid: checks and dispatch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv, head_scale
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.grids import check_grid, three
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import FLOATS, axes_of, check_tensor
from petground.kernels._triton.window_plans import PAIRS, cannot_serve
from petground.kernels.window_attention.ops import window_attention_op
from petground.kernels.window_attention.pattern import Pattern, relative_pairs
from petground.kernels.window_attention.reference import window_attention_reference

__all__ = ["available_backends", "neighbourhood_attention", "window_attention"]

_MOST = 1 << 20  # places of a box that kernels can count


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that `backend=` can have for float32 tensors of this device, besides "auto"."""
    small = torch.empty(1, 1, 1, 16, device="meta")
    pattern = Pattern.windows((1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1))
    reasons = _reasons(small, small, None, pattern, torch.device(device))
    return tuple(name for name, reason in reasons.items() if reason is None)


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int] = (0, 0, 0),
    halo: Sequence[int] = (0, 0, 0),
    interval: Sequence[int] = (1, 1, 1),
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    temperature: Tensor | float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Each voxel attends to its window: q, k [B, H, N, D], v [B, H, N, E] of a grid (z, y, x) -> [B, H, N, E].

    answer = softmax(q k^T / (sqrt(D) temperature) + B) v. The grid need not hold whole windows: places outside it are
    no keys. All sizes in voxels (z, y, x).

    window: voxels of a window; the first begins at voxel 0.
    shift: windows begin so many voxels further; what stays before the first is a window of its own. Swin's cyclic shift
        with its mask (arXiv 2103.14030, section 3.2) is the same.
    halo: keys reach so many voxels further than the queries, on every side (HaloNet, arXiv 2103.12731).
    interval: voxels of a window lie so far apart (CrossFormer's long distance, arXiv 2108.00154).
    mask: [B, N] bool, True where the voxel is a key. A query without keys gets zero. Values in keys that do not count
        never reach the output, unless they are not finite.
    bias: what a score gains by the query's place less the key's, counted in intervals: [H, 2 rz + 1, 2 ry + 1,
        2 rx + 1] or [H, offsets] flat, r = window - 1 + halo; entry 0 is offset -r. It gets a gradient. A function of
        the offset in mm is given by its values here.
    temperature: a number, or a tensor of one element or one per head; it gets a gradient.
    backend: "auto", "reference", "chunked" (for the CPU) or "triton". One asked for by name that cannot serve raises.

    Raises KernelInputError for shapes, types or devices that do not fit, BackendUnavailableError as above.
    """
    name = "window_attention"
    sizes, sides = three(f"{name}: grid", grid), three(f"{name}: window", window)
    moved, rim = three(f"{name}: shift", shift, 0), three(f"{name}: halo", halo, 0)
    far = three(f"{name}: interval", interval)
    if any(s >= w * i for s, w, i in zip(moved, sides, far, strict=True)):
        most = f"less than window {sides} times interval {far} along each axis"
        raise KernelInputError(f"{name}: shift is {moved}, expected {most}")
    pattern = Pattern.windows(sizes, sides, moved, rim, far)
    return _run(name, q, k, v, mask, bias, temperature, pattern, backend)


def neighbourhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    grid: Sequence[int],
    size: Sequence[int],
    dilation: Sequence[int] = (1, 1, 1),
    edges: Literal["slide", "cut"] = "slide",
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    temperature: Tensor | float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Each voxel attends to the box of voxels around it: q, k [B, H, N, D], v [B, H, N, E] of a grid -> [B, H, N, E].

    size: of the box, in voxels (z, y, x); an even one has one more before than behind.
    dilation: voxels of the box lie so far apart (DiNAT, arXiv 2209.15001).
    edges: where the box reaches out of the grid, "slide" moves it inside, so that every voxel has as many keys (NAT,
        arXiv 2204.07143, section 3.1, and natten), "cut" leaves out what is outside.
    bias: [H, 2 rz + 1, 2 ry + 1, 2 rx + 1] or flat, r = size - 1 for "slide" and size // 2 for "cut".

    All else as in `window_attention`.
    """
    name = "neighbourhood_attention"
    sizes, sides = three(f"{name}: grid", grid), three(f"{name}: size", size)
    far = three(f"{name}: dilation", dilation)
    if edges not in ("slide", "cut"):
        raise KernelInputError(f"{name}: edges is {edges!r}, expected slide or cut")
    if edges == "slide" and any(s * i > n for s, i, n in zip(sides, far, sizes, strict=True)):
        most = f"at most grid {sizes} along each axis, or edges='cut'"
        raise KernelInputError(f"{name}: size is {sides} times dilation {far}, expected {most}")
    pattern = Pattern.neighbours(sizes, sides, far, slide=edges == "slide")
    return _run(name, q, k, v, mask, bias, temperature, pattern, backend)


def _run(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None,
    temperature: Tensor | float | None, pattern: Pattern, backend: str,
) -> Tensor:  # fmt: skip
    check_qkv(name, q, k, v, mask)
    check_grid(name, pattern.grid, q, k)
    if bias is not None:
        bias = _flat_bias(name, bias, q, pattern)
    picked = choose(name, backend, _reasons(q, v, bias, pattern, q.device), f"{q.device.type} {q.dtype}")
    scale = head_scale(name, q, temperature)
    if picked == "reference":
        with autocast_off(q):
            return window_attention_reference(q, k, v, mask, bias, pattern=pattern, scale=scale)
    return window_attention_op(q, k, v, mask, bias, scale, pattern.numbers(), picked)[0]


def _reasons(
    q: Tensor, v: Tensor, bias: Tensor | None, pattern: Pattern, device: torch.device
) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    triton = cannot_serve(q, v, device)
    if math.prod([min(axis.steps, axis.window + 2 * axis.span) for axis in pattern.axes]) > _MOST:
        triton = f"takes windows of up to {_MOST} voxels"
    elif bias is not None and bias.requires_grad and torch.is_grad_enabled() and relative_pairs(pattern) > PAIRS:
        triton = f"sums the gradient of a bias over up to {PAIRS} pairs of voxels, here {relative_pairs(pattern)}"
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"chunked": None, "reference": None, "triton": triton}
    return {"triton": triton, "chunked": None, "reference": None}


def _flat_bias(name: str, bias: Tensor, q: Tensor, pattern: Pattern) -> Tensor:
    """[H, offsets], an entry for each offset."""
    heads, offsets = q.shape[1], pattern.offsets
    if axes_of(name, "bias", bias) == 2:
        check_tensor(name, "bias", bias, "HO", (heads, math.prod(offsets)), FLOATS, q.device)
    else:
        check_tensor(name, "bias", bias, "HZYX", (heads, *offsets), FLOATS, q.device)
    return bias.flatten(1)

"""Block-sparse attention between regions of a 3D grid: checks and dispatch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv, head_scale
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.grids import check_grid, three
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import axes_of, check_tensor, readable
from petground.kernels._triton.window_plans import cannot_serve
from petground.kernels.routed_attention.ops import routed_attention_op
from petground.kernels.routed_attention.reference import routed_attention_reference
from petground.kernels.routed_attention.regions import Regions

__all__ = ["available_backends", "routed_attention"]

_MOST = 1 << 20  # regions, and places of one, that kernels can count


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that `backend=` can have for float32 tensors of this device, besides "auto"."""
    small = torch.empty(1, 1, 1, 16, device="meta")
    reasons = _reasons(small, small, Regions((1, 1, 1), (1, 1, 1)), torch.device(device))
    return tuple(name for name, reason in reasons.items() if reason is None)


def routed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    *,
    grid: Sequence[int],
    region: Sequence[int],
    mask: Tensor | None = None,
    temperature: Tensor | float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Each region attends to the voxels of the regions in its list: q, k [B, H, N, D], v [B, H, N, E] -> [B, H, N, E].

    answer = softmax(q k^T / (sqrt(D) temperature)) v over them (BiFormer, arXiv 2303.08810, section 3.2). Tokens in a
    line are the grid (1, 1, N) in regions (1, 1, block).

    table: whole numbers [B, S, T], or [B, H, S, T] for lists of each head: the T regions that each of the S regions
        attends to, counted in C order. An entry below 0 is none; a region listed twice counts twice. An entry beyond
        the last region is an error on the CPU and none on a GPU, where looking would wait for it.
    grid, region: voxels (z, y, x) of the grid and of a region; the last of an axis may reach over the grid's end.
    mask: [B, N] bool, True where the voxel is a key. A query without keys gets zero. Values in keys that do not count
        never reach the output, unless they are not finite.
    temperature: a number, or a tensor of one element or one per head; it gets a gradient. The lists get none.
    backend: "auto", "reference", "chunked" (for the CPU) or "triton". One asked for by name that cannot serve raises.

    Raises KernelInputError for shapes, types or devices that do not fit, BackendUnavailableError as above.
    """
    check_qkv("routed_attention", q, k, v, mask)
    regions = Regions(three("routed_attention: grid", grid), three("routed_attention: region", region))
    check_grid("routed_attention", regions.grid, q, k)
    lists = _checked(table, q, regions)
    picked = choose("routed_attention", backend, _reasons(q, v, regions, q.device), f"{q.device.type} {q.dtype}")
    scale = head_scale("routed_attention", q, temperature)
    if picked == "reference":
        with autocast_off(q):
            return routed_attention_reference(q, k, v, lists, mask, regions=regions, scale=scale)
    return routed_attention_op(q, k, v, lists, mask, scale, regions.numbers(), picked)[0]


def _reasons(q: Tensor, v: Tensor, regions: Regions, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    triton = cannot_serve(q, v, device)
    if max(regions.count, regions.each) > _MOST:
        triton = f"takes up to {_MOST} regions of up to {_MOST} voxels"
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"chunked": None, "reference": None, "triton": triton}
    return {"triton": triton, "chunked": None, "reference": None}


def _checked(table: Tensor, q: Tensor, regions: Regions) -> Tensor:
    """[B, 1 or H, S, T]."""
    batch, heads, count, whole = q.shape[0], q.shape[1], regions.count, (torch.int32, torch.int64)
    axes = axes_of("routed_attention", "table", table)
    if axes == 3:
        check_tensor("routed_attention", "table", table, "BST", (batch, count, None), whole, q.device)
        lists = table.unsqueeze(1)
    else:
        own = 1 if axes == 4 and table.shape[1] == 1 else heads
        check_tensor("routed_attention", "table", table, "BHST", (batch, own, count, None), whole, q.device)
        lists = table
    if lists.shape[3] == 0:
        raise KernelInputError(f"routed_attention: table is {tuple(table.shape)}, expected at least one region each")
    if readable(lists) and int(lists.max()) >= count:
        raise KernelInputError(f"routed_attention: table names region {int(lists.max())}, expected 0 to {count - 1}")
    return lists

"""Routed attention by Triton kernels: no gathered copies of keys or values, and no sums by atomics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._triton import routed
from petground.kernels._triton.attention import Operands, strides
from petground.kernels._triton.attention_plans import Plan
from petground.kernels._triton.runtime import architecture, launch
from petground.kernels._triton.window_plans import routed_plan
from petground.kernels.routed_attention.regions import Regions, Triple

__all__ = ["backward_triton", "cases", "forward_triton"]


class _Call:
    """The operands of one call, and what every kernel takes of them."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, regions: Regions):
        self.a = Operands.of(q, k, v, mask, scale, "softmax", 0.0)
        self.regions = regions
        found = self.a.arguments()
        for name in ("batch_heads", "rows", "cols", "shift", "ACTIVATION"):
            del found[name]
        found |= {"regions": regions.count, "count_y": regions.counts[1], "count_x": regions.counts[2]}
        found |= _by_axis("size", regions.grid) | _by_axis("region", regions.region)
        self.arguments = found

    def go(self, name: str, kernel: Any, more: dict[str, Any]) -> None:
        """Launches a kernel over blocks of the queries, or for "keys" of the keys, of every region."""
        a = self.a
        p: Plan = routed_plan(name, a.q.element_size(), a.widest, architecture(a.q.device), self.regions.each)
        blocks = -(-self.regions.each // (p.cols if name == "keys" else p.rows))
        arguments = self.arguments | more | {"blocks": blocks, "ROWS": p.rows, "COLS": p.cols}
        programs = self.a.batch_heads * self.regions.count * blocks
        launch(kernel, programs, arguments, num_warps=p.num_warps, num_stages=p.num_stages)


def _by_axis(name: str, values: Triple) -> dict[str, int]:
    return {f"{name}_{axis}": value for axis, value in zip("zyx", values, strict=True)}


def _per_head(name: str, found: Tensor) -> dict[str, Any]:
    """A table [B, 1 or H, ...] and its strides; one table of all heads has a stride of 0 between them."""
    return {name: found, f"{name}_b": found.stride(0), f"{name}_h": found.stride(1) if found.shape[1] > 1 else 0}


def forward_triton(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor, regions: Regions
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, N, E] and log2-sum-exp [B H N]."""
    call = _Call(q, k, v, mask, scale, regions)
    out = empty_heads(q, v.shape[3])
    stat = q.new_empty(call.a.batch_heads * q.shape[2], dtype=torch.float32)
    lists = _per_head("table", table.int().contiguous()) | {"top": table.shape[3]}
    call.go("forward", routed.routed_attention_forward, lists | {"out": out, "stat": stat} | strides("out", out))
    return out, stat


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor,
    out: Tensor, stat: Tensor, regions: Regions,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v."""
    call = _Call(q, k, v, mask, scale, regions)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    dq, dk, dv = empty_heads(q, q.shape[3]), empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3])
    common = {"grad": grad, "stat": stat, "delta": torch.empty_like(stat)} | strides("grad", grad)
    lists = _per_head("table", table.int().contiguous()) | {"top": table.shape[3]}
    more = common | lists | {"out": out, "dq": dq} | strides("out", out) | strides("dq", dq)
    call.go("queries", routed.routed_attention_backward_queries, more)
    askers, starts = _askers(table, regions.count)
    more = common | _per_head("askers", askers) | _per_head("starts", starts)
    more |= {"dk": dk, "dv": dv} | strides("dk", dk) | strides("dv", dv)
    call.go("keys", routed.routed_attention_backward_keys, more)
    return dq, dk, dv


def _askers(table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The regions that list each region, one after the other [B, 1 or H, S T], and where each one's begin."""
    listed, order = table.flatten(2).long().sort(dim=-1, stable=True)
    wanted = torch.arange(count + 1, device=table.device).expand(*listed.shape[:2], -1).contiguous()
    return (order // table.shape[3]).int(), torch.searchsorted(listed, wanted).int()


def cases() -> Iterator[str]:
    """Runs forward and backward on meta tensors of every kind that has kernels of its own; yields what it was."""
    grid = (48, 48, 48)
    kinds = [(torch.bfloat16, width, (4, 4, 4)) for width in (32, 64, 128)]
    kinds += [(torch.bfloat16, 32, (3, 3, 3)), (torch.float16, 32, (4, 4, 4)), (torch.float32, 64, (4, 4, 4))]
    for dtype, width, region in kinds:
        regions = Regions(grid, region)
        q = torch.empty(2, math.prod(grid), 8, width, dtype=dtype, device="meta").transpose(1, 2)
        mask = torch.empty(2, math.prod(grid), dtype=torch.bool, device="meta")
        scale = torch.empty(8, device="meta")
        table = torch.empty(2, 1, regions.count, 4, dtype=torch.long, device="meta")
        out, stat = forward_triton(q, q, q, table, mask, scale, regions)
        backward_triton(out, q, q, q, table, mask, scale, out, stat, regions)
        yield f"routed_attention {str(dtype).removeprefix('torch.')} D={width} regions of {math.prod(region)}"

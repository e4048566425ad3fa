"""Attention over windows and neighbourhoods by Triton kernels: nothing of N x N, no gathered copies of keys or values.

For the gradient of the bias the pairs of one tile and its box are held for a few heads at a time (`PAIRS` numbers);
`window_attention.api` does not let through a pattern of which one head has more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._triton import window_backward, window_bias, window_forward
from petground.kernels._triton.attention import Operands, parts_of, strides
from petground.kernels._triton.attention_plans import Plan
from petground.kernels._triton.runtime import architecture, launch
from petground.kernels._triton.window_plans import PAIRS, window_plan
from petground.kernels.window_attention.fold import fold_pairs
from petground.kernels.window_attention.pattern import WINDOW, Pattern, Triple, key_tile, query_tile, relative_box

__all__ = ["backward_triton", "cases", "forward_triton"]


class _Call:
    """The operands of one call, and what every kernel takes of them."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor, pattern: Pattern
    ):
        self.a = Operands.of(q, k, v, mask, scale, "softmax", 0.0)
        self.pattern = pattern
        self.bias = None if bias is None else bias.contiguous()
        found = self.a.arguments()
        for name in ("batch_heads", "rows", "cols", "shift", "ACTIVATION"):
            del found[name]
        found |= {"bias": self.bias, "bias_h": 0 if self.bias is None else self.bias.stride(0)}
        found |= {"KIND": pattern.kind, "BIASED": bias is not None}
        for name in ("size", "window", "span", "back", "step", "origin"):
            found |= _by_axis(name, tuple(getattr(axis, name) for axis in pattern.axes))
        self.arguments = found | _by_axis("reach", pattern.reach)

    def plan(self, kernel: str, rows: int, cols: int, *, check: bool) -> Plan:
        size, arch = self.a.q.element_size(), architecture(self.a.q.device)
        return window_plan(kernel, size, self.a.widest, arch, rows, cols, pairwise=check or self.bias is not None)

    def queries(self, kernel: str) -> tuple[Plan, Triple, dict[str, Any]]:
        """For kernels over tiles of queries: the plan, the tile, and the arguments that follow from them."""
        check = self.pattern.kind != WINDOW
        tile = query_tile(self.pattern, self.plan(kernel, 64, 64, check=check).rows)
        p = self.plan(kernel, math.prod(tile), math.prod(self.pattern.box(tile)), check=check)
        return p, tile, self._tiled(p, tile) | {"CHECK": check}

    def keys(self) -> tuple[Plan, Triple, dict[str, Any]]:
        """For the kernel over tiles of keys."""
        check = self.pattern.kind != WINDOW or any(axis.back for axis in self.pattern.axes)
        tile = key_tile(self.pattern, self.plan("keys", 64, 64, check=check).cols)
        p = self.plan("keys", 64 if check else math.prod(tile), math.prod(tile), check=check)
        return p, tile, self._tiled(p, tile) | {"CHECK": check}

    def _tiled(self, p: Plan, tile: Triple) -> dict[str, Any]:
        found = self.arguments | _by_axis("tile", tile) | _by_axis("tiles", self.pattern.tiles(tile))
        return found | {"ROWS": p.rows, "COLS": p.cols}

    def programs(self, tile: Triple, block: int) -> tuple[int, int]:
        """(programs, blocks of a tile)."""
        blocks = -(-math.prod(tile) // block)
        return self.a.batch_heads * self.pattern.phases * math.prod(self.pattern.tiles(tile)) * blocks, blocks


def _by_axis(name: str, values: tuple[int, ...]) -> dict[str, int]:
    return {f"{name}_{axis}": value for axis, value in zip("zyx", values, strict=True)}


def _go(kernel: Any, programs: int, arguments: dict[str, Any], p: Plan) -> None:
    launch(kernel, programs, arguments, num_warps=p.num_warps, num_stages=p.num_stages)


def forward_triton(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor, pattern: Pattern
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, N, E] and log2-sum-exp [B H N]."""
    call = _Call(q, k, v, mask, bias, scale, pattern)
    out = empty_heads(q, v.shape[3])
    stat = q.new_empty(call.a.batch_heads * q.shape[2], dtype=torch.float32)
    p, tile, arguments = call.queries("forward")
    programs, blocks = call.programs(tile, p.rows)
    arguments |= {"out": out, "stat": stat, "blocks": blocks} | strides("out", out)
    _go(window_forward.window_attention_forward, programs, arguments, p)
    return out, stat


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor,
    out: Tensor, stat: Tensor, pattern: Pattern, *, bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v, and of the bias where asked for."""
    call = _Call(q, k, v, mask, bias, scale, pattern)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    dq, dk, dv = empty_heads(q, q.shape[3]), empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3])
    delta = torch.empty_like(stat)
    common = {"grad": grad, "stat": stat, "delta": delta} | strides("grad", grad)

    p, tile, arguments = call.queries("queries")
    programs, blocks = call.programs(tile, p.rows)
    arguments |= common | {"out": out, "dq": dq, "blocks": blocks} | strides("out", out) | strides("dq", dq)
    _go(window_backward.window_attention_backward_queries, programs, arguments, p)

    p, tile, arguments = call.keys()
    programs, blocks = call.programs(tile, p.cols)
    arguments |= common | {"dk": dk, "dv": dv, "blocks": blocks} | strides("dk", dk) | strides("dv", dv)
    _go(window_backward.window_attention_backward_keys, programs, arguments, p)
    return dq, dk, dv, _bias(call, common) if bias_grad else None


def _bias(call: _Call, common: dict[str, Any]) -> Tensor:
    """[H, offsets], by way of all pairs of places within a tile and its box."""
    pattern, q = call.pattern, call.a.q
    heads = q.shape[1]
    _, tile, arguments = call.queries("bias")
    before, box = relative_box(pattern, tile)
    rows, cols = math.prod(tile), math.prod(box)
    p = call.plan("bias", rows, cols, check=True)
    arguments |= common | _by_axis("box", box) | _by_axis("before", before) | {"ROWS": p.rows, "COLS": p.cols}
    if q.dtype == torch.float32:
        arguments["PRECISION"] = "ieee"  # three TF32 products take more registers than there are
    items = q.shape[0] * pattern.phases * math.prod(pattern.tiles(tile))
    blocks = -(-rows // p.rows) * -(-cols // p.cols)
    some = max(1, min(heads, PAIRS // (rows * cols)))  # not 0 where the operator is called past its api
    done = []
    for first in range(0, heads, some):
        count = min(some, heads - first)
        parts, each = parts_of(items, 1, count * blocks, q.device)
        parts = max(1, min(parts, PAIRS // (count * rows * cols)))
        each = -(-items // parts)
        dpairs = q.new_empty(-(-items // each), count, rows, cols, dtype=torch.float32)
        arguments |= {"dpairs": dpairs, "first_head": first, "some_heads": count, "items": items, "part_items": each}
        _go(window_bias.window_attention_backward_bias, dpairs.shape[0] * count * blocks, arguments, p)
        done.append(fold_pairs(dpairs.sum(0), tile, box, before, pattern.reach))
    return torch.cat(done)


def cases() -> Iterator[str]:
    """Runs forward and backward on meta tensors of every kind that has kernels of its own; yields what it was."""
    grid = (48, 48, 48)

    def windows(side: Triple, *, shift: int = 0, halo: int = 0) -> Pattern:
        return Pattern.windows(grid, side, (shift,) * 3, (halo,) * 3, (1, 1, 1))

    w4, halo = windows((4, 4, 4), shift=2), windows((4, 4, 4), halo=2)
    kernel7 = Pattern.neighbours(grid, (7, 7, 7), (1, 1, 1), slide=True)
    patterns = {"windows": w4, "halo": halo, "slide": kernel7, "small": windows((3, 3, 3))}
    half = torch.bfloat16
    kinds = [(half, width, name, True) for width in (32, 64, 128) for name in ("windows", "slide")]
    kinds += [(half, width, "windows", False) for width in (32, 64, 128)]
    kinds += [(half, 32, name, True) for name in ("halo", "small")] + [(half, 32, "slide", False)]
    kinds += [(torch.float16, 32, "slide", True), (torch.float32, 64, "windows", False)]
    kinds += [(torch.float32, 64, name, True) for name in ("windows", "slide")]
    for dtype, width, name, biased in kinds:
        pattern = patterns[name]
        q = torch.empty(2, math.prod(grid), 8, width, dtype=dtype, device="meta").transpose(1, 2)
        mask = torch.empty(2, math.prod(grid), dtype=torch.bool, device="meta")
        scale = torch.empty(8, device="meta")
        bias = torch.empty(8, math.prod(pattern.offsets), device="meta") if biased else None
        out, stat = forward_triton(q, q, q, mask, bias, scale, pattern)
        backward_triton(out, q, q, q, mask, bias, scale, out, stat, pattern, bias_grad=biased)
        yield f"window_attention {str(dtype).removeprefix('torch.')} D={width} {name}{' bias' if biased else ''}"

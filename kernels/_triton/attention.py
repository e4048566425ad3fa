"""Launching the attention kernels: strides, block sizes and parts from tensors. What the operators' backends call.

The kernels are not specialised for the numbers of entries and heads, so that one proof holds for batches of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from petground.kernels._triton import attention_backward, attention_forward, attention_resident
from petground.kernels._triton.attention_plans import Plan, block_width, plan, resident_plan
from petground.kernels._triton.runtime import interpreting, launch, multiprocessors

__all__ = [
    "Operands",
    "backward_keys",
    "backward_queries",
    "backward_resident",
    "forward",
    "parts_of",
    "side_by_side",
]


@dataclass(frozen=True)
class Operands:
    """q [B, H, N, D], k [B, H, P, D], v [B, H, P, E], mask [B, P] or None, scale [H] float32, bias [B, H, N, P]."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: Tensor
    activation: str
    shift: float
    bias: Tensor | None = None

    @classmethod
    def of(
        cls, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, activation: str, shift: float,
        bias: Tensor | None = None,
    ) -> Operands:  # fmt: skip
        """Copies what has no unit stride along its last axis; a bias may be broadcastable and lie in any order."""
        keep = None if mask is None else side_by_side(mask).view(torch.uint8)
        wide = None if bias is None else bias.expand(*q.shape[:3], k.shape[2])
        return cls(side_by_side(q), side_by_side(k), side_by_side(v), keep, scale, activation, shift, wide)

    def arguments(self) -> dict[str, Any]:
        """What every kernel takes."""
        batch, heads, rows, width = self.q.shape
        found: dict[str, Any] = {name: getattr(self, name) for name in ("q", "k", "v", "scale")}
        found |= {"keep": self.mask, "keep_b": 0 if self.mask is None else self.mask.stride(0)}
        for name in ("q", "k", "v"):
            found |= strides(name, getattr(self, name))
        found |= {"batch_heads": batch * heads, "heads": heads, "rows": rows, "cols": self.k.shape[2]}
        found |= {"width_qk": width, "width_v": self.v.shape[3], "shift": self.shift}
        full = self.q.dtype != torch.float32
        found |= {
            "ACTIVATION": self.activation,
            "MASKED": self.mask is not None,
            "UPCAST": self.q.dtype == torch.bfloat16 and interpreting() and self.q.device.type == "cpu",
            "PRECISION": "tf32" if full or torch.backends.cuda.matmul.allow_tf32 else "tf32x3",
            "WIDTH_QK": block_width(width),
            "WIDTH_V": block_width(self.v.shape[3]),
        }
        return found

    def biased(self) -> dict[str, Any]:
        """What those kernels take that read a bias."""
        return {"bias": self.bias, "BIASED": self.bias is not None} | strides("bias", self.bias, "bhnp")

    @property
    def widest(self) -> int:
        return max(block_width(self.q.shape[3]), block_width(self.v.shape[3]))

    @property
    def batch_heads(self) -> int:
        return self.q.shape[0] * self.q.shape[1]


def strides(name: str, tensor: Tensor | None, axes: str = "bhn") -> dict[str, int]:
    """{name_b: stride of the batch, ...}; zeros where there is no tensor."""
    return {f"{name}_{axis}": 0 if tensor is None else tensor.stride(place) for place, axis in enumerate(axes)}


def parts_of(length: int, block: int, programs: int, device: torch.device) -> tuple[int, int]:
    """(parts, length of a part in whole blocks) so that `programs` programs a part fill the GPU about four times."""
    blocks = -(-length // block)
    wanted = max(1, min(blocks, -(-4 * multiprocessors(device) // programs)))
    each = -(-blocks // wanted)
    return -(-blocks // each), each * block


def forward(
    a: Operands, gate: int, x: Tensor | None, out: Tensor, stat: Tensor, total: Tensor | None, parts: tuple[int, int],
    p: Plan | None = None,
) -> None:  # fmt: skip
    """Fills out and stat; `total` and parts of more than one where parts of the keys are kept apart. p: block sizes."""
    p = p or plan("forward", a.q, a.widest)
    arguments = a.arguments() | a.biased() | {"x": x, "out": out, "stat": stat, "total": total, "part_cols": parts[1]}
    arguments |= strides("x", x, "bhne") | strides("out", out if total is None else None, "bhne")
    arguments |= {"GATE": gate, "PARTS": total is not None, "ROWS": p.rows, "COLS": p.cols}
    programs = -(-a.q.shape[2] // p.rows) * a.batch_heads * parts[0]
    _go(attention_forward.attention_forward, programs, arguments, p)


def backward_queries(
    a: Operands, gate: int, stat: Tensor, delta: Tensor, grad: Tensor, dq: Tensor, parts: tuple[int, int] | None,
    x: Tensor | None = None, inner: Tensor | None = None, dx: Tensor | None = None, p: Plan | None = None,
) -> None:  # fmt: skip
    """Fills dq, and with a gate also dx, inner and delta; `parts` where parts of the keys are kept apart."""
    p = p or plan("queries", a.q, a.widest)
    arguments = a.arguments() | a.biased() | {"stat": stat, "delta": delta, "grad": grad, "dq": dq}
    arguments |= (
        {"x": x, "inner": inner, "dx": dx}
        | strides("grad", grad, "bhne")
        | strides("x", x, "bhne")
        | strides("dx", dx, "bhne")
    )
    arguments |= strides("dq", None if parts else dq)
    arguments |= {"part_cols": parts[1] if parts else a.k.shape[2]}
    arguments |= {"GATE": gate, "PARTS": parts is not None, "ROWS": p.rows, "COLS": p.cols}
    programs = -(-a.q.shape[2] // p.rows) * a.batch_heads * (parts[0] if parts else 1)
    _go(attention_backward.attention_backward_queries, programs, arguments, p)


def backward_keys(
    a: Operands, stat: Tensor, delta: Tensor, grad: Tensor, dk: Tensor, dv: Tensor, parts: tuple[int, int] | None,
    p: Plan | None = None,
) -> None:  # fmt: skip
    """Fills dk and dv; `parts` where parts of the queries are kept apart. grad with unit stride along E."""
    p = p or plan("keys", a.q, a.widest)
    arguments = a.arguments() | a.biased() | {"stat": stat, "delta": delta, "grad": grad, "dk": dk, "dv": dv}
    arguments |= strides("grad", grad) | strides("dk", None if parts else dk) | strides("dv", None if parts else dv)
    arguments |= {"part_rows": parts[1] if parts else a.q.shape[2], "PARTS": parts is not None}
    arguments |= {"ROWS": p.rows, "COLS": p.cols}
    programs = -(-a.k.shape[2] // p.cols) * a.batch_heads * (parts[0] if parts else 1)
    _go(attention_backward.attention_backward_keys, programs, arguments, p)


def backward_resident(
    a: Operands, stat: Tensor, grad: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, parts: tuple[int, int]
) -> None:
    """Fills dq, and parts of dk and dv, in one pass; `resident_plan` says whether it fits."""
    p = resident_plan(a.q, a.widest, a.k.shape[2])
    assert p is not None
    arguments = a.arguments() | {"stat": stat, "grad": grad, "dq": dq, "dk": dk, "dv": dv, "part_rows": parts[1]}
    arguments |= strides("grad", grad) | strides("dq", dq) | {"ROWS": p.rows, "COLS": p.cols}
    _go(attention_resident.attention_backward_resident, a.batch_heads * parts[0], arguments, p)


def _go(kernel: Any, programs: int, arguments: dict[str, Any], p: Plan) -> None:
    launch(kernel, programs, arguments, num_warps=p.num_warps, num_stages=p.num_stages)


def side_by_side(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()

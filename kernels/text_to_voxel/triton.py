"""Few queries to many keys by Triton kernels: parts of the keys at the same time, merged exactly, no atomics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._shared.partials import merge_softmax_parts
from petground.kernels._triton.attention import (
    Operands,
    backward_keys,
    backward_queries,
    forward,
    parts_of,
    side_by_side,
)
from petground.kernels._triton.attention_plans import plan

__all__ = ["backward_triton", "cases", "forward_triton"]


def _parts(a: Operands, kernel: str) -> tuple[int, int]:
    p = plan(kernel, a.q, a.widest)
    return parts_of(a.k.shape[2], p.cols, a.batch_heads * -(-a.q.shape[2] // p.rows), a.q.device)


def forward_triton(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, activation: str, shift: float
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, M, E] and log2-sum-exp [B H M] (of size 0 where the activation is not softmax)."""
    a = Operands.of(q, k, v, mask, scale, activation, shift)
    parts = _parts(a, "forward")
    values = q.new_empty(parts[0], *q.shape[:3], v.shape[3], dtype=torch.float32)
    shape = (parts[0], *q.shape[:3]) if activation == "softmax" else (0,)
    peak, total = q.new_empty(shape, dtype=torch.float32), q.new_empty(shape, dtype=torch.float32)
    forward(a, 0, None, values, peak, total, parts)
    if activation != "softmax":
        return values.sum(0).to(q.dtype), q.new_empty(0, dtype=torch.float32)
    out, stat = merge_softmax_parts(peak, total, values)
    return out.to(q.dtype), stat.flatten()


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, out: Tensor, stat: Tensor,
    activation: str, shift: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, scale. Each key's gradient is finished by one program; the queries' come in parts."""
    a = Operands.of(q, k, v, mask, scale, activation, shift)
    grad = side_by_side(grad)
    delta = (grad.float() * out.float()).sum(-1) if activation == "softmax" else stat
    parts = _parts(a, "queries")
    dq = q.new_empty(parts[0], *q.shape, dtype=torch.float32)
    backward_queries(a, 0, stat, delta, grad, dq, parts)
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    backward_keys(a, stat, delta, grad, dk, dv, None)
    whole = dq.sum(0)
    # scores are scale * q k: d loss / d scale = sum over queries of q * dq, dq still without its factor
    dscale = (whole * q.float()).sum((0, 2, 3))
    return (whole * scale[:, None, None]).to(q.dtype), dk, dv, dscale


def cases() -> Iterator[str]:
    """Runs forward and backward on meta tensors of every kind that has kernels of its own; yields what it was."""
    kinds = [
        (torch.bfloat16, 32, "softmax"), (torch.bfloat16, 32, "sigmoid"), (torch.bfloat16, 64, "softmax"),
        (torch.bfloat16, 64, "softplus"), (torch.bfloat16, 128, "softmax"), (torch.bfloat16, 256, "softmax"),
        (torch.float16, 32, "softmax"), (torch.float32, 32, "softmax"), (torch.float32, 64, "softplus"),
    ]  # fmt: skip
    for dtype, width, activation in kinds:
        q, k = (torch.empty(2, 8, n, width, dtype=dtype, device="meta") for n in (64, 110592))
        # without a mask it is another kernel; once in 16 bits will do
        mask = None if dtype == torch.float16 else torch.empty(2, 110592, dtype=torch.bool, device="meta")
        _case(q, k, mask, activation)
        yield f"text_to_voxel {str(dtype).removeprefix('torch.')} D={width} M=64 {activation}"
    # two tokens to all voxels: llmseg's and bench_llmseg's stages; the coarsest are of 11 x 6 x 6 and 6 x 2 x 3 voxels
    for width, voxels in ((3, 110592), (6, 110592), (12, 110592), (24, 396), (12, 36)):
        q, k = (torch.empty(2, n, 8, width, dtype=torch.bfloat16, device="meta").transpose(1, 2) for n in (2, voxels))
        _case(q, k, None, "softmax")
        yield f"text_to_voxel bfloat16 D={width} M=2 N={voxels} softmax"


def _case(q: Tensor, k: Tensor, mask: Tensor | None, activation: str) -> None:
    scale = torch.empty(q.shape[1], device="meta")
    out, stat = forward_triton(q, k, k, mask, scale, activation, 0.0)
    # the gradient comes as the queries lie: from the layer that puts the heads side by side
    backward_triton(q, q, k, k, mask, scale, out, stat, activation, 0.0)

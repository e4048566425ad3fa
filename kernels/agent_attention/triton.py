"""Softmax attention with a learned bias by Triton kernels; agent attention is two of these, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._shared.partials import merge_softmax_parts
from petground.kernels._triton.attention import (
    Operands,
    backward_keys,
    backward_queries,
    forward,
    parts_of,
    side_by_side,
    strides,
)
from petground.kernels._triton.runtime import launch
from petground.kernels.agent_attention.plans import plan
from petground.kernels.agent_attention.triton_kernels import biased_backward_bias

__all__ = ["backward_triton", "cases", "forward_triton"]


def forward_triton(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D) + bias) v [B, H, N, E] and log2-sum-exp [B H N]; few queries share the keys out."""
    a = _operands(q, k, v, mask, bias)
    p = plan("forward", q, v)
    parts = parts_of(k.shape[2], p.cols, a.batch_heads * -(-q.shape[2] // p.rows), q.device)
    out = empty_heads(q, v.shape[3])
    if parts[0] == 1:
        stat = q.new_empty(q.shape[:3].numel(), dtype=torch.float32)
        forward(a, 0, None, out, stat, None, parts, p)
        return out, stat
    values = q.new_empty((parts[0], *q.shape[:3], v.shape[3]), dtype=torch.float32)
    peak = q.new_empty((parts[0], *q.shape[:3]), dtype=torch.float32)
    total = torch.empty_like(peak)
    forward(a, 0, None, values, peak, total, parts, p)
    answer, level = merge_softmax_parts(peak, total, values)
    return out.copy_(answer), level.flatten()


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, out: Tensor, stat: Tensor,
    bias_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v and of the bias (of size 0 unless it learns)."""
    a, grad = _operands(q, k, v, mask, bias), side_by_side(grad)
    delta = (grad.float() * out.float()).sum(-1).contiguous()
    rows, cols, factor = q.shape[2], k.shape[2], q.shape[3] ** -0.5

    p = plan("queries", q, v)
    parts = parts_of(cols, p.cols, a.batch_heads * -(-rows // p.rows), q.device)
    dq = empty_heads(q, q.shape[3])
    if parts[0] == 1:
        backward_queries(a, 0, stat, delta, grad, dq, None, p=p)
    else:
        sums = q.new_empty((parts[0], *q.shape), dtype=torch.float32)
        backward_queries(a, 0, stat, delta, grad, sums, parts, p=p)
        dq.copy_(sums.sum(0).mul_(factor))

    p = plan("keys", q, v)
    parts = parts_of(rows, p.rows, a.batch_heads * -(-cols // p.cols), q.device)
    dk, dv = empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3])
    if parts[0] == 1:
        backward_keys(a, stat, delta, grad, dk, dv, None, p)
    else:
        sums, sums_v = (q.new_empty((parts[0], *one.shape), dtype=torch.float32) for one in (k, v))
        backward_keys(a, stat, delta, grad, sums, sums_v, parts, p)
        dk.copy_(sums.sum(0).mul_(factor))
        dv.copy_(sums_v.sum(0))
    if bias is None or not bias_learns:
        return dq, dk, dv, q.new_empty(0)
    return dq, dk, dv, _bias_gradient(a, bias, stat, delta, grad)


def _bias_gradient(a: Operands, bias: Tensor, stat: Tensor, delta: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the bias in its own shape; entries and heads that share it are added up inside the kernel."""
    p = plan("bias", a.q, a.v)
    batch, heads, rows, _ = a.q.shape
    cols = a.k.shape[2]
    # as the bias lies in memory, so that it is read and written alike
    turned = bias.stride(3) != 1 and bias.shape[3] > 1
    shape = (*bias.shape[:2], cols, rows) if turned else (*bias.shape[:2], rows, cols)
    narrow = bias.shape[2:] != (rows, cols)
    full = bias.new_empty(shape, dtype=torch.float32 if narrow else bias.dtype)
    full = full.transpose(2, 3) if turned else full
    skipped = ("batch_heads", "shift", "ACTIVATION")
    arguments = {name: value for name, value in a.arguments().items() if name not in skipped}
    arguments |= {"bias": a.bias, "stat": stat, "delta": delta, "grad": grad, "dbias": full}
    arguments |= strides("bias", a.bias, "bhnp") | strides("grad", grad) | strides("dbias", full, "bhnp")
    arguments |= {"bias_batch": bias.shape[0], "bias_heads": bias.shape[1], "ROWS": p.rows, "COLS": p.cols}
    arguments |= {"shared_batch": batch // bias.shape[0], "shared_heads": heads // bias.shape[1]}
    programs = bias.shape[0] * bias.shape[1] * -(-rows // p.rows) * -(-cols // p.cols)
    launch(biased_backward_bias, programs, arguments, num_warps=p.num_warps, num_stages=p.num_stages)
    return full.sum_to_size(bias.shape).to(bias.dtype) if narrow else full


def _operands(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Operands:
    scale = q.new_full((q.shape[1],), q.shape[3] ** -0.5, dtype=torch.float32)
    return Operands.of(q, k, v, mask, scale, "softmax", 0.0, bias)


def cases() -> Iterator[str]:
    """Runs forward and backward on meta tensors of every kind that has kernels of its own; yields what it was."""
    kinds = [
        (torch.bfloat16, 32, True), (torch.bfloat16, 64, True), (torch.bfloat16, 64, False),
        (torch.bfloat16, 128, True), (torch.float16, 64, True), (torch.float32, 32, True), (torch.float32, 64, True),
    ]  # fmt: skip
    for dtype, width, biased in kinds:
        many, few = (torch.empty(2, n, 8, width, dtype=dtype, device="meta").transpose(1, 2) for n in (32768, 64))
        for q, k in ((few, many), (many, few)):
            mask = torch.empty(2, k.shape[2], dtype=torch.bool, device="meta")
            # both biases lie with the voxels along memory, as they come from interpolation
            bias = torch.empty(1, 8, 64, 32768, dtype=dtype, device="meta") if biased else None
            bias = bias.transpose(2, 3) if bias is not None and q is many else bias
            out, stat = forward_triton(q, k, k, mask, bias)
            backward_triton(out, q, k, k, mask, bias, out, stat, biased)
        yield f"agent_attention {str(dtype).removeprefix('torch.')} D={width} bias={biased}"

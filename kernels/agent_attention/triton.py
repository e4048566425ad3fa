"""Softmax attention with a learned bias by Triton kernels; agent attention is two of these, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._shared.partials import merge_softmax_parts
from petground.kernels._triton.attention import parts_of, side_by_side, strides
from petground.kernels._triton.attention_plans import Plan, block_width
from petground.kernels._triton.runtime import interpreting, launch
from petground.kernels.agent_attention.plans import plan
from petground.kernels.agent_attention.triton_kernels import (
    biased_backward_bias,
    biased_backward_keys,
    biased_backward_queries,
    biased_forward,
)

__all__ = ["backward_triton", "cases", "forward_triton"]


def forward_triton(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D) + bias) v [B, H, N, E] and log2-sum-exp [B H N]; few queries share the keys out."""
    q, k, v = side_by_side(q), side_by_side(k), side_by_side(v)
    p = plan("forward", q, v)
    rows, cols = q.shape[2], k.shape[2]
    programs = q.shape[0] * q.shape[1] * -(-rows // p.rows)
    parts, length = parts_of(cols, p.cols, programs, q.device)
    arguments = _arguments(q, k, v, mask, bias, p) | {"part_cols": length, "PARTS": parts > 1}
    stat = q.new_empty((parts, *q.shape[:3]) if parts > 1 else (q.shape[:3].numel(),), dtype=torch.float32)
    if parts == 1:
        out = empty_heads(q, v.shape[3])
        _go(biased_forward, programs, arguments | {"out": out, "stat": stat, "total": None} | strides("out", out), p)
        return out, stat
    values = q.new_empty((parts, *q.shape[:3], v.shape[3]), dtype=torch.float32)
    total = stat.new_empty(stat.shape)
    arguments |= {"out": values, "stat": stat, "total": total} | strides("out", None)
    _go(biased_forward, programs * parts, arguments, p)
    answer, level = merge_softmax_parts(stat, total, values)
    out = empty_heads(q, v.shape[3])
    out.copy_(answer)
    return out, level.flatten()


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, out: Tensor, stat: Tensor,
    bias_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v and of the bias (of size 0 unless it learns)."""
    q, k, v, grad = side_by_side(q), side_by_side(k), side_by_side(v), side_by_side(grad)
    delta = (grad.float() * out.float()).sum(-1).contiguous()
    batch_heads, rows, cols = q.shape[0] * q.shape[1], q.shape[2], k.shape[2]
    seen = {"stat": stat, "delta": delta, "grad": grad} | strides("grad", grad)

    p = plan("queries", q, v)
    programs = batch_heads * -(-rows // p.rows)
    parts, length = parts_of(cols, p.cols, programs, q.device)
    dq = empty_heads(q, q.shape[3]) if parts == 1 else q.new_empty((parts, *q.shape), dtype=torch.float32)
    arguments = _arguments(q, k, v, mask, bias, p) | seen | {"part_cols": length, "PARTS": parts > 1, "dq": dq}
    arguments |= strides("dq", dq if parts == 1 else None)
    _go(biased_backward_queries, programs * parts, arguments, p)
    if parts > 1:
        dq = empty_heads(q, q.shape[3]).copy_(dq.sum(0))

    p = plan("keys", q, v)
    programs = batch_heads * -(-cols // p.cols)
    parts, length = parts_of(rows, p.rows, programs, q.device)
    if parts == 1:
        dk, dv = empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3])
    else:
        dk, dv = (q.new_empty((parts, *one.shape), dtype=torch.float32) for one in (k, v))
    arguments = _arguments(q, k, v, mask, bias, p) | seen | {"part_rows": length, "PARTS": parts > 1}
    arguments |= {"dk": dk, "dv": dv} | strides("dk", dk if parts == 1 else None)
    _go(biased_backward_keys, programs * parts, arguments | strides("dv", dv if parts == 1 else None), p)
    if parts > 1:
        dk, dv = (empty_heads(one, one.shape[3]).copy_(sums.sum(0)) for one, sums in ((k, dk), (v, dv)))
    if bias is None or not bias_learns:
        return dq, dk, dv, q.new_empty(0)
    return dq, dk, dv, _bias_gradient(q, k, v, mask, bias, seen)


def _bias_gradient(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor, seen: dict[str, Any]) -> Tensor:
    """The gradient of the bias in its own shape; entries and heads that share it are added up inside the kernel."""
    p = plan("bias", q, v)
    batch, heads, rows, _ = q.shape
    cols = k.shape[2]
    # as the bias lies in memory, so that it is read and written alike
    turned = bias.stride(3) != 1 and bias.shape[3] > 1
    shape = (*bias.shape[:2], cols, rows) if turned else (*bias.shape[:2], rows, cols)
    narrow = bias.shape[2:] != (rows, cols)
    full = bias.new_empty(shape, dtype=torch.float32 if narrow else bias.dtype)
    full = full.transpose(2, 3) if turned else full
    arguments = _arguments(q, k, v, mask, bias, p) | seen | {"dbias": full}
    arguments |= {"bias_batch": bias.shape[0], "bias_heads": bias.shape[1]}
    arguments |= {"shared_batch": batch // bias.shape[0], "shared_heads": heads // bias.shape[1]}
    arguments |= strides("dbias", full, "bhnp")
    programs = bias.shape[0] * bias.shape[1] * -(-rows // p.rows) * -(-cols // p.cols)
    _go(biased_backward_bias, programs, arguments, p)
    return full.sum_to_size(bias.shape).to(bias.dtype) if narrow else full


def _arguments(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, p: Plan) -> dict[str, Any]:
    batch, heads, rows, width = q.shape
    cols = k.shape[2]
    keep = None if mask is None else side_by_side(mask).view(torch.uint8)
    plain = q.dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32
    found: dict[str, Any] = {
        "q": q, "k": k, "v": v, "keep": keep, "bias": bias, "keep_b": 0 if keep is None else keep.stride(0),
        "batch_heads": batch * heads, "heads": heads, "rows": rows, "cols": cols, "width_qk": width,
        "width_v": v.shape[3], "factor": width**-0.5, "MASKED": keep is not None, "BIASED": bias is not None,
        "UPCAST": q.dtype == torch.bfloat16 and interpreting() and q.device.type == "cpu",
        "PRECISION": "tf32" if plain else "tf32x3",
        "ROWS": p.rows, "COLS": p.cols, "WIDTH_QK": block_width(width), "WIDTH_V": block_width(v.shape[3]),
    }  # fmt: skip
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        found |= strides(name, tensor)
    wide = None if bias is None else bias.expand(batch, heads, rows, cols)
    return found | strides("bias", wide, "bhnp")


def _go(kernel: Any, programs: int, arguments: dict[str, Any], p: Plan) -> None:
    launch(kernel, programs, arguments, num_warps=p.num_warps, num_stages=p.num_stages)


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

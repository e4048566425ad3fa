"""Cross-attention by Triton kernels: [N, P] scores are never held, the gate is applied before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._triton.attention import (
    Operands,
    backward_keys,
    backward_queries,
    backward_resident,
    forward,
    parts_of,
    side_by_side,
)
from petground.kernels._triton.attention_plans import plan, resident_plan
from petground.kernels._triton.runtime import architecture
from petground.kernels.cross_attention.layout import empty_answer, empty_features, empty_queries

__all__ = ["GATES", "backward_triton", "cases", "forward_triton"]

GATES = {"none": 0, "tanh": 1, "residual_tanh": 2}


def forward_triton(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The answer [B, H, N, E] and log2-sum-exp [B H N] (of size 0 where the activation is not softmax)."""
    a = Operands.of(q, k, v, mask, scale, activation, shift)
    out = empty_answer(q, v, x)
    stat = q.new_empty(a.batch_heads * q.shape[2] if activation == "softmax" else 0, dtype=torch.float32)
    forward(a, GATES[gate], x, out, stat, None, (1, k.shape[2]))
    return out, stat


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    out: Tensor | None, stat: Tensor, activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v, scale, x; `out`, the ungated answer, is read where the keys do not fit at once."""
    a = Operands.of(q, k, v, mask, scale, activation, shift)
    dq = empty_queries(q)
    few = resident_plan(q.element_size(), a.widest, k.shape[2], architecture(q.device))
    block = few.rows if few and gate == "none" else plan("keys", q.element_size(), a.widest).rows
    blocks = 1 if few and gate == "none" else -(-k.shape[2] // plan("keys", q.element_size(), a.widest).cols)
    parts = parts_of(q.shape[2], block, a.batch_heads * blocks, q.device)
    dk = q.new_empty(parts[0], *k.shape, dtype=torch.float32)
    dv = q.new_empty(parts[0], *v.shape, dtype=torch.float32)
    dx: Tensor | None = None
    if gate == "none":
        grad = side_by_side(grad)
        if few is not None:
            backward_resident(a, stat, grad, dq, dk, dv, parts)
        else:
            delta = (grad.float() * out.float()).sum(-1) if activation == "softmax" and out is not None else stat
            backward_queries(a, 0, stat, delta, grad, dq, None)
            backward_keys(a, stat, delta, grad, dk, dv, parts)
    else:
        assert x is not None
        inner = q.new_empty(*q.shape[:3], v.shape[3])
        delta = stat.new_empty(stat.shape)
        dx = empty_features(x)
        backward_queries(a, GATES[gate], stat, delta, grad, dq, None, x, inner, dx)
        backward_keys(a, stat, delta, inner, dk, dv, parts)
    whole = dk.sum(0)
    # scores are scale * q k: d loss / d scale = sum over keys of k * dk, dk still without its factor; keys are few
    dscale = (whole * k.float()).sum((0, 2, 3))
    return dq, (whole * scale[:, None, None]).to(k.dtype), dv.sum(0).to(v.dtype), dscale, dx


def cases() -> Iterator[str]:
    """Runs forward and backward on meta tensors of every kind that has kernels of its own; yields what it was."""
    kinds = [
        (torch.bfloat16, 32, 64, "softmax", "none"), (torch.bfloat16, 32, 64, "softmax", "tanh"),
        (torch.bfloat16, 32, 64, "sigmoid", "none"), (torch.bfloat16, 32, 64, "softplus", "residual_tanh"),
        (torch.bfloat16, 16, 128, "softplus", "none"), (torch.bfloat16, 32, 128, "softmax", "none"),
        (torch.bfloat16, 64, 64, "softmax", "none"), (torch.bfloat16, 64, 64, "softplus", "none"),
        (torch.bfloat16, 64, 256, "softmax", "tanh"), (torch.bfloat16, 64, 256, "softmax", "none"),
        (torch.bfloat16, 128, 64, "softmax", "residual_tanh"), (torch.bfloat16, 128, 64, "softplus", "none"),
        (torch.bfloat16, 256, 64, "softmax", "residual_tanh"), (torch.bfloat16, 256, 64, "softplus", "none"),
        (torch.float16, 32, 64, "softmax", "none"), (torch.float16, 32, 64, "softmax", "tanh"),
        (torch.float16, 128, 64, "softmax", "none"),
        (torch.float32, 32, 64, "softmax", "none"), (torch.float32, 32, 64, "softplus", "residual_tanh"),
        (torch.float32, 64, 256, "softmax", "tanh"), (torch.float32, 64, 256, "softmax", "none"),
    ]  # fmt: skip
    for dtype, width, keys, activation, gate in kinds:
        q, k = (torch.empty(2, n, 8, width, dtype=dtype, device="meta").transpose(1, 2) for n in (4096, keys))
        # without a mask it is another kernel; once in 16 bits will do
        mask = None if dtype == torch.float16 else torch.empty(2, keys, dtype=torch.bool, device="meta")
        scale = torch.empty(8, device="meta")
        x = None if gate == "none" else torch.empty(2, 8, width, 4096, dtype=dtype, device="meta").transpose(-1, -2)
        out, stat = forward_triton(q, k, k, mask, scale, x, activation, gate, 0.0)
        backward_triton(out, q, k, k, mask, scale, x, out, stat, activation, gate, 0.0)
        yield f"cross_attention {str(dtype).removeprefix('torch.')} D={width} P={keys} {activation} gate={gate}"

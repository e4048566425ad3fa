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
from petground.kernels.cross_attention.layout import empty_answer, empty_features, empty_queries

__all__ = ["GATES", "backward_triton", "cases", "forward_triton"]

GATES = {"none": 0, "tanh": 1, "residual_tanh": 2}


def forward_triton(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The answer [B, H, N, E] and log2-sum-exp [B H N] (of size 0 where the activation is not softmax)."""
    a = Operands.of(q, k, v, mask, scale, activation, shift)
    out = empty_answer(q, v, x, "triton")
    stat = q.new_empty(a.batch_heads * q.shape[2] if activation == "softmax" else 0, dtype=torch.float32)
    forward(a, GATES[gate], x, out, stat, None, (1, k.shape[2]))
    return out, stat


def backward_triton(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    out: Tensor | None, stat: Tensor, activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v, scale, x; `out`, the ungated answer, is read where the keys do not fit at once."""
    a = Operands.of(q, k, v, mask, scale, activation, shift)
    dq = empty_queries(q, "triton")
    few = resident_plan(q, a.widest, k.shape[2])
    block = few.rows if few and gate == "none" else plan("keys", q, a.widest).rows
    blocks = 1 if few and gate == "none" else -(-k.shape[2] // plan("keys", q, a.widest).cols)
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
        (torch.float16, 128, 64, "softmax", "none"), (torch.float16, 200, 37, "softmax", "none"),
        (torch.float32, 32, 64, "softmax", "none"), (torch.float32, 32, 64, "softplus", "residual_tanh"),
        (torch.float32, 64, 256, "softmax", "tanh"), (torch.float32, 64, 256, "softmax", "none"),
    ]  # fmt: skip
    for dtype, width, keys, activation, gate in kinds:
        # without a mask it is another kernel; once in 16 bits will do
        masked = dtype != torch.float16
        yield _case((2, 8, 4096, width), keys, dtype, activation, gate, masked)
    for heads, rows, width, words, gate in _SHIPPED:
        for keys in words:
            yield _case((1, heads, rows, width), keys, torch.bfloat16, "softmax", gate, True)


# What configs/train launches in bf16: (heads, voxels, channels per head, words of the longest sentence, gate). Of the
# voxels counts only whether 16 divides them; of the words that, whether they are odd, and which plan they take.
# tests/kernels/test_aot_configs.py runs every configuration's network and finds what is lacking here.
_ANY, _ODD_WIDTH = (128, 64, 37), (64, 40, 37)
_SHIPPED = (
    # contextual_net_3d, projections, bench_projections (whose coarsest view has 12 x 6 pixels)
    (1, 4096, 96, _ANY, "tanh"), (1, 4096, 128, _ANY, "tanh"), (1, 4096, 192, _ANY, "tanh"), (1, 72, 192, _ANY, "tanh"),
    # bench_faithful
    (1, 4096, 18, _ODD_WIDTH, "tanh"), (1, 4096, 24, _ODD_WIDTH, "tanh"), (1, 4096, 36, _ODD_WIDTH, "tanh"),
    # demo, bench_ours, ours; with four heads of 24 were a coarser stage fused, too
    (4, 4096, 8, _ANY[1:], "none"), (4, 4096, 16, _ANY[1:], "none"), (8, 4096, 8, _ANY[1:], "none"),
    (8, 4096, 16, _ANY[1:], "none"), (8, 4096, 32, _ANY[1:], "none"), (8, 4096, 40, _ANY[1:], "none"),
    (4, 4096, 24, _ANY[1:], "none"),
    # llmseg, bench_llmseg: voxels to two tokens, two tokens among themselves
    (8, 4096, 3, (2,), "none"), (8, 4096, 6, (2,), "none"), (8, 4096, 12, (2,), "none"), (8, 4096, 24, (2,), "none"),
    (8, 36, 12, (2,), "none"),
    (8, 2, 6, (2,), "none"), (8, 2, 12, (2,), "none"), (8, 2, 24, (2,), "none"), (8, 2, 48, (2,), "none"),
)  # fmt: skip


def _case(
    size: tuple[int, int, int, int], keys: int, dtype: torch.dtype, activation: str, gate: str, masked: bool
) -> str:
    """Forward and backward for q of [B, H, N, D] and so many keys, as the contextual gate lays them in memory."""
    batch, heads, rows, width = size
    q, k = (torch.empty(batch, n, heads, width, dtype=dtype, device="meta").transpose(1, 2) for n in (rows, keys))
    mask = torch.empty(batch, keys, dtype=torch.bool, device="meta") if masked else None
    scale = torch.empty(heads, device="meta")
    v, x = k, None
    if gate != "none" and heads == 1:
        v = torch.empty(batch, 1, keys, width, dtype=dtype, device="meta")  # from `fold_output`
        x = torch.empty(batch, width, rows, dtype=dtype, device="meta").transpose(1, 2)[:, None]
    elif gate != "none":
        x = torch.empty(batch, heads, width, rows, dtype=dtype, device="meta").transpose(-1, -2)
    out, stat = forward_triton(q, k, v, mask, scale, x, activation, gate, 0.0)
    grad = x if x is not None and heads == 1 else out
    backward_triton(grad, q, k, v, mask, scale, x, out, stat, activation, gate, 0.0)
    told = f"H={heads} N={rows} " if rows != 4096 or heads != 8 else ""
    return f"cross_attention {str(dtype).removeprefix('torch.')} {told}D={width} P={keys} {activation} gate={gate}"

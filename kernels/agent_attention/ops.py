"""torch.ops.petground.biased_attention and its backward, by Triton: both halves of agent attention."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._shared.precision import operator

__all__ = ["biased_attention_op"]


def _triton() -> Any:
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    return importlib.import_module("petground.kernels.agent_attention.triton")


@operator("biased_attention")
def biased_attention_op(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(softmax(q k^T / sqrt(D) + bias) v [B, H, N, E], log2-sum-exp [B H N]); bias broadcastable to [B, H, N, P]."""
    found: tuple[Tensor, Tensor] = _triton().forward_triton(q, k, v, mask, bias)
    return found


@biased_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return empty_heads(q, v.shape[3]), q.new_empty(q.shape[0] * q.shape[1] * q.shape[2], dtype=torch.float32)


@operator("biased_attention_backward")
def _backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    stat: Tensor,
    bias_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dbias = _triton().backward_triton(grad, q, k, v, mask, bias, out, stat, bias_learns)
    return dq, dk, dv, dbias.contiguous()


@_backward_op.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, out: Tensor, stat: Tensor,
    bias_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dbias = bias.new_empty(bias.shape) if bias is not None and bias_learns else q.new_empty(0)
    return empty_heads(q, q.shape[3]), empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3]), dbias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    out, stat = output
    ctx.mark_non_differentiable(stat)
    ctx.save_for_backward(*inputs, out, stat)
    ctx.bias_learns = inputs[4] is not None and ctx.needs_input_grad[4]


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    dq, dk, dv, dbias = _backward_op(grad, *ctx.saved_tensors, ctx.bias_learns)
    return dq, dk, dv, None, dbias if ctx.bias_learns else None


biased_attention_op.register_autograd(_differentiate, setup_context=_setup)

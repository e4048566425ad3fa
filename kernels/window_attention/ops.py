"""torch.ops.petground.window_attention and its backward: one pair for the backends that write their own backward."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._shared.precision import operator
from petground.kernels.window_attention.chunked import backward_chunked, forward_chunked
from petground.kernels.window_attention.pattern import Pattern

__all__ = ["window_attention_op"]


def _backend(name: str) -> tuple[Any, Any]:
    if name == "chunked":
        return forward_chunked, backward_chunked
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    module = importlib.import_module("petground.kernels.window_attention.triton")
    return module.forward_triton, module.backward_triton


@operator("window_attention")
def window_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: Tensor,
    pattern: Sequence[int],
    backend: str,
) -> tuple[Tensor, Tensor]:
    """(answer [B, H, N, E], log-sum-exp of the scores [B H N]); pattern is Pattern.numbers()."""
    found: tuple[Tensor, Tensor] = _backend(backend)[0](q, k, v, mask, bias, scale, Pattern.of(pattern))
    return found


@window_attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor,
    pattern: Sequence[int], backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    return empty_heads(q, v.shape[3]), q.new_empty(q.shape[0] * q.shape[1] * q.shape[2], dtype=kind)


@operator("window_attention_backward")
def _backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: Tensor,
    out: Tensor,
    stat: Tensor,
    pattern: Sequence[int],
    backend: str,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dbias = _backend(backend)[1](
        grad, q, k, v, mask, bias, scale, out, stat, Pattern.of(pattern), bias_grad=bias_grad
    )
    if dbias is None or bias is None:
        return dq, dk, dv, scale.new_empty(0)
    return dq, dk, dv, dbias.to(bias.dtype)


@_backward_op.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, scale: Tensor,
    out: Tensor, stat: Tensor, pattern: Sequence[int], backend: str, bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dbias = bias.new_empty(bias.shape) if bias is not None and bias_grad else scale.new_empty(0)
    if backend == "chunked":
        return empty_heads(q, q.shape[3]), torch.empty_like(k), torch.empty_like(v), dbias
    return empty_heads(q, q.shape[3]), empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3]), dbias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, bias, scale, *options = inputs
    out, stat = output
    ctx.mark_non_differentiable(stat)
    ctx.save_for_backward(q, k, v, mask, bias, scale, out, stat)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once: gradient checkpointing gives them away
    q, _, _, _, bias, scale, *_ = saved
    bias_grad = bias is not None and ctx.needs_input_grad[4]
    dq, dk, dv, dbias = _backward_op(grad, *saved, *ctx.options, bias_grad)
    dscale = None
    if ctx.needs_input_grad[5]:  # scores are scale q k: what q gets holds one factor of the scale
        dscale = (dq.to(scale.dtype) * q.to(scale.dtype)).sum((0, 2, 3)) / scale
    return dq, dk, dv, None, dbias if bias_grad else None, dscale, None, None


window_attention_op.register_autograd(_differentiate, setup_context=_setup)

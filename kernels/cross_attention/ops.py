"""torch.ops.petground.cross_attention and its backward: one pair for the backends that write their own backward."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.precision import operator
from petground.kernels.cross_attention.chunked import backward_chunked, forward_chunked
from petground.kernels.cross_attention.layout import empty_answer, empty_features, empty_queries

__all__ = ["cross_attention_op"]


def _backend(name: str) -> tuple[Any, Any]:
    if name == "chunked":
        return forward_chunked, backward_chunked
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    module = importlib.import_module("petground.kernels.cross_attention.triton")
    return module.forward_triton, module.backward_triton


@operator("cross_attention")
def cross_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    x: Tensor | None,
    activation: str,
    gate: str,
    shift: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """(answer [B, H, N, E], what the backward needs of the scores); arguments as in api.cross_attention."""
    found: tuple[Tensor, Tensor] = _backend(backend)[0](q, k, v, mask, scale, x, activation, gate, shift)
    return found


@cross_attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    activation: str, gate: str, shift: float, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    entries = q.shape[0] * q.shape[1] * q.shape[2] if activation == "softmax" else 0
    return empty_answer(q, v, x, backend), q.new_empty(entries, dtype=kind)


@operator("cross_attention_backward")
def _backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    stat: Tensor,
    activation: str,
    gate: str,
    shift: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = _backend(backend)[1](grad, q, k, v, mask, scale, x, out, stat, activation, gate, shift)
    return (*found[:4], q.new_empty(0) if found[4] is None else found[4])


@_backward_op.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    out: Tensor | None, stat: Tensor, activation: str, gate: str, shift: float, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dx = q.new_empty(0) if x is None else empty_features(x)
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    return empty_queries(q, backend), dk, dv, scale.new_empty(scale.shape), dx


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, scale, x, *options = inputs
    out, stat = output
    ctx.mark_non_differentiable(stat)
    # a gated answer is no help: the ungated one is computed again, from what is read anyway
    ctx.save_for_backward(q, k, v, mask, scale, x, out if x is None else None, stat)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    q, k, v, mask, scale, x, out, stat = ctx.saved_tensors
    dq, dk, dv, dscale, dx = _backward_op(grad, q, k, v, mask, scale, x, out, stat, *ctx.options)
    return dq, dk, dv, None, dscale, None if x is None else dx, None, None, None, None


cross_attention_op.register_autograd(_differentiate, setup_context=_setup)

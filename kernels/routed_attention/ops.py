"""torch.ops.petground.routed_attention and its backward: one pair for the backends that write their own backward."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._shared.precision import operator
from petground.kernels.routed_attention.chunked import backward_chunked, forward_chunked
from petground.kernels.routed_attention.regions import Regions

__all__ = ["routed_attention_op"]


def _backend(name: str) -> tuple[Any, Any]:
    if name == "chunked":
        return forward_chunked, backward_chunked
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    module = importlib.import_module("petground.kernels.routed_attention.triton")
    return module.forward_triton, module.backward_triton


@operator("routed_attention")
def routed_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    regions: Sequence[int],
    backend: str,
) -> tuple[Tensor, Tensor]:
    """(answer [B, H, N, E], log-sum-exp of the scores [B H N]); regions is Regions.numbers()."""
    found: tuple[Tensor, Tensor] = _backend(backend)[0](q, k, v, table, mask, scale, Regions.of(regions))
    return found


@routed_attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor,
    regions: Sequence[int], backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    return empty_heads(q, v.shape[3]), q.new_empty(q.shape[0] * q.shape[1] * q.shape[2], dtype=kind)


@operator("routed_attention_backward")
def _backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    out: Tensor,
    stat: Tensor,
    regions: Sequence[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _backend(backend)[1](
        grad, q, k, v, table, mask, scale, out, stat, Regions.of(regions)
    )
    return found


@_backward_op.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, mask: Tensor | None, scale: Tensor,
    out: Tensor, stat: Tensor, regions: Sequence[int], backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return empty_heads(q, q.shape[3]), empty_heads(k, k.shape[3]), empty_heads(v, v.shape[3])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, table, mask, scale, *options = inputs
    out, stat = output
    ctx.mark_non_differentiable(stat)
    ctx.save_for_backward(q, k, v, table, mask, scale, out, stat)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once: gradient checkpointing gives them away
    q, _, _, _, _, scale, *_ = saved
    dq, dk, dv = _backward_op(grad, *saved, *ctx.options)
    dscale = None
    if ctx.needs_input_grad[5]:  # scores are scale q k: what q gets holds one factor of the scale
        dscale = (dq.to(scale.dtype) * q.to(scale.dtype)).sum((0, 2, 3)) / scale
    return dq, dk, dv, None, None, dscale, None, None


routed_attention_op.register_autograd(_differentiate, setup_context=_setup)

"""torch.ops.petground.linear_attention and its backward, for the backend that writes its own backward: Triton."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._shared.precision import operator

__all__ = ["linear_attention_op"]


def _triton() -> Any:
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    return importlib.import_module("petground.kernels.linear_attention.triton")


@operator("linear_attention")
def linear_attention_op(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None, causal: bool, ones: bool
) -> tuple[Tensor, Tensor]:
    """(sums [B, H, N, E], with `ones` in float32; sums of weights [B, H, N], of size 0 without)."""
    found: tuple[Tensor, Tensor] = _triton().forward_triton(q, k, v, mask, log_decay, causal, ones)
    return found


@linear_attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None, causal: bool, ones: bool
) -> tuple[Tensor, Tensor]:
    kind = torch.float32 if ones else v.dtype
    return empty_heads(q, v.shape[3], kind), q.new_empty(q.shape[:3] if ones else (0,), dtype=torch.float32)


@operator("linear_attention_backward")
def _backward_op(
    grad: Tensor,
    grad_total: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    log_decay: Tensor | None,
    causal: bool,
    ones: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _triton().backward_triton(
        grad, grad_total, q, k, v, mask, log_decay, causal, ones
    )
    return found


@_backward_op.register_fake
def _(
    grad: Tensor, grad_total: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None,
    causal: bool, ones: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    found = [empty_heads(tensor, tensor.shape[3], tensor.dtype) for tensor in (q, k, v)]
    return found[0], found[1], found[2]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, log_decay, causal, ones = inputs
    if not ones:
        ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, mask, log_decay)
    ctx.options = causal, ones


def _differentiate(ctx: Any, grad: Tensor, grad_total: Tensor | None) -> tuple[Any, ...]:
    given = grad.new_empty(0) if grad_total is None else grad_total
    return (*_backward_op(grad, given, *ctx.saved_tensors, *ctx.options), None, None, None, None)


linear_attention_op.register_autograd(_differentiate, setup_context=_setup)

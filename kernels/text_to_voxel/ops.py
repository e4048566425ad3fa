"""torch.ops.petground.text_to_voxel and its backward: one pair for the backends that write their own backward."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.precision import operator
from petground.kernels.text_to_voxel.chunked import backward_chunked, forward_chunked

__all__ = ["text_to_voxel_op"]


def _backend(name: str) -> tuple[Any, Any]:
    if name == "chunked":
        return forward_chunked, backward_chunked
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    module = importlib.import_module("petground.kernels.text_to_voxel.triton")
    return module.forward_triton, module.backward_triton


@operator("text_to_voxel")
def text_to_voxel_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    activation: str,
    shift: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """(answer [B, H, M, E], what the backward needs of the scores); arguments as in api.text_to_voxel."""
    found: tuple[Tensor, Tensor] = _backend(backend)[0](q, k, v, mask, scale, activation, shift)
    return found


@text_to_voxel_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, activation: str, shift: float, backend: str
) -> tuple[Tensor, Tensor]:
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    entries = q.shape[0] * q.shape[1] * q.shape[2] if activation == "softmax" else 0
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(entries, dtype=kind)


@operator("text_to_voxel_backward")
def _backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    out: Tensor,
    stat: Tensor,
    activation: str,
    shift: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _backend(backend)[1](
        grad, q, k, v, mask, scale, out, stat, activation, shift
    )
    return found


@_backward_op.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, out: Tensor, stat: Tensor,
    activation: str, shift: float, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), scale.new_empty(scale.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, scale, *options = inputs
    out, stat = output
    ctx.mark_non_differentiable(stat)
    ctx.save_for_backward(q, k, v, mask, scale, out, stat)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    found = _backward_op(grad, *ctx.saved_tensors, *ctx.options)
    return (*found[:3], None, found[3], None, None, None)


text_to_voxel_op.register_autograd(_differentiate, setup_context=_setup)

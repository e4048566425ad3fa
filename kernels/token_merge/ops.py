"""torch.ops.petground.gather_tokens, scatter_tokens, merge_tokens and their backward, by Triton."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.precision import operator
from petground.kernels._triton.runtime import why_not

__all__ = ["cannot_serve", "gather_op", "merge_op", "scatter_op"]


def cannot_serve(tokens: Tensor, device: torch.device) -> str | None:
    """Why the kernels cannot take these tokens, or None."""
    if tokens.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"does not take {tokens.dtype}"
    return why_not(device)


def _triton() -> Any:
    # imported when it is used: Triton is optional, and it reads TRITON_INTERPRET on import
    return importlib.import_module("petground.kernels.token_merge.triton")


@operator("gather_tokens")
def gather_op(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens [B, N, C], places [B, K] -> [B, K, C]."""
    found: Tensor = _triton().gather_triton(tokens, places)
    return found


@gather_op.register_fake
def _(tokens: Tensor, places: Tensor) -> Tensor:
    return tokens.new_empty((*places.shape, tokens.shape[2]))


@operator("sum_tokens")
def _sum_op(tokens: Tensor, places: Tensor, count: int) -> Tensor:
    found: Tensor = _triton().sum_triton(tokens, places, count)
    return found


@_sum_op.register_fake
def _(tokens: Tensor, places: Tensor, count: int) -> Tensor:
    return tokens.new_empty((tokens.shape[0], count, tokens.shape[2]))


def _keep_gather(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, places = inputs
    ctx.save_for_backward(places)
    ctx.count = tokens.shape[1]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (places,) = ctx.saved_tensors
    return _sum_op(grad, places, ctx.count), None


gather_op.register_autograd(_gather_backward, setup_context=_keep_gather)


@operator("scatter_tokens")
def scatter_op(values: Tensor, places: Tensor, count: int, fill: Tensor | None) -> Tensor:
    """Values [B, K, E] at places [B, K] of [B, count, E], elsewhere `fill` or zeros."""
    found: Tensor = _triton().scatter_triton(values, places, count, fill, values)
    return found


@scatter_op.register_fake
def _(values: Tensor, places: Tensor, count: int, fill: Tensor | None) -> Tensor:
    return values.new_empty((values.shape[0], count, values.shape[2]))


@operator("clear_tokens")
def _clear_op(tokens: Tensor, places: Tensor) -> Tensor:
    """A copy with zeros at the places."""
    found: Tensor = _triton().scatter_triton(None, places, tokens.shape[1], tokens, tokens)
    return found


@_clear_op.register_fake
def _(tokens: Tensor, places: Tensor) -> Tensor:
    return tokens.new_empty(tokens.shape)


def _keep_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.filled = inputs[3] is not None and ctx.needs_input_grad[3]


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (places,) = ctx.saved_tensors
    return gather_op(grad, places), None, None, _clear_op(grad, places) if ctx.filled else None


scatter_op.register_autograd(_scatter_backward, setup_context=_keep_scatter)


@operator("merge_tokens")
def merge_op(tokens: Tensor, assignment: Tensor, weights: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
    """(means [B, groups, C], sizes [B, groups] float32) of tokens [B, N, C] by assignment [B, N] and weights [B, N]."""
    found: tuple[Tensor, Tensor] = _triton().merge_triton(tokens, assignment, weights, groups)
    return found


@merge_op.register_fake
def _(tokens: Tensor, assignment: Tensor, weights: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
    batch, _, width = tokens.shape
    return tokens.new_empty((batch, groups, width)), tokens.new_empty((batch, groups), dtype=torch.float32)


@operator("merge_tokens_backward")
def _merge_backward_op(
    grad: Tensor,
    grad_sizes: Tensor,
    tokens: Tensor,
    assignment: Tensor,
    weights: Tensor | None,
    means: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _triton().merge_backward_triton(
        grad, grad_sizes, tokens, assignment, weights, means, sizes
    )
    return found


@_merge_backward_op.register_fake
def _(
    grad: Tensor, grad_sizes: Tensor, tokens: Tensor, assignment: Tensor, weights: Tensor | None, means: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return tokens.new_empty(tokens.shape), sizes.new_empty((0,) if weights is None else weights.shape)


def _keep_merge(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tokens, assignment, weights, _ = inputs
    ctx.save_for_backward(tokens, assignment, weights, *output)


def _merge_backward(ctx: Any, grad: Tensor, grad_sizes: Tensor) -> tuple[Any, ...]:
    tokens, assignment, weights, means, sizes = ctx.saved_tensors
    dtokens, dweights = _merge_backward_op(grad, grad_sizes, tokens, assignment, weights, means, sizes)
    return dtokens, None, None if weights is None else dweights.to(weights.dtype), None


merge_op.register_autograd(_merge_backward, setup_context=_keep_merge)

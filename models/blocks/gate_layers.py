"""Layers of the contextual gate whose order in memory and whose passes over it are chosen here, for CPUs.

Each is what PyTorch's own layers give, up to rounding, and is that within torch.compile. Values and gradients are held
to the plain forms in `tests/models/test_gate_layers.py`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

__all__ = ["linear_laid_out", "residual_gate"]


def linear_laid_out(x: Tensor, weight: Tensor, bias: Tensor, *, channels_first: bool) -> Tensor:
    """X [B, N, C], weight [D, C], bias [D], of one type -> [B, N, D], channels first in memory ([B, D, N]) or last.

    The gradient of x lies as x does. Matrix products turn what they read and write for nothing, copies do not. No
    second derivative.
    """
    if torch.compiler.is_compiling():
        return linear(x, weight, bias)
    return cast(Tensor, _LaidOut.apply(x, weight, bias, channels_first))  # type: ignore[no-untyped-call]


def residual_gate(x: Tensor, answer: Tensor) -> Tensor:
    """X (1 + tanh A) + A for x and A of one shape; in 16 bits on CPUs in fewer passes, without a second derivative."""
    if torch.compiler.is_compiling() or not x.is_cpu or x.element_size() > 2 or x.dtype != answer.dtype:
        half = x * torch.sigmoid(2.0 * answer)  # 1 + tanh A = 2 sigmoid(2 A), which keeps less for the backward
        return half.mul_(2.0).add_(answer)
    return cast(Tensor, _ResidualGate.apply(x, answer))  # type: ignore[no-untyped-call]


class _LaidOut(torch.autograd.Function):
    """An entry at a time: PyTorch's batched products in 16 bits copy what is turned, its plain ones do not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, channels_first: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        batch, rows, _ = x.shape
        if channels_first:
            out = x.new_empty(batch, len(weight), rows)
            for entry, answer in zip(x, out, strict=True):
                torch.addmm(bias[:, None], weight, entry.mT, out=answer)
            return out.mT
        out = x.new_empty(batch, rows, len(weight))
        for entry, answer in zip(x, out, strict=True):
            torch.addmm(bias, entry, weight.mT, out=answer)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted_x, wanted_weight, wanted_bias, _ = ctx.needs_input_grad
        first = x.stride(1) == 1
        for_x = x.mT.new_empty(x.mT.shape) if first else x.new_empty(x.shape)
        for_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for entry, above, found in zip(x, grad, for_x, strict=True):
            if wanted_x and first:
                torch.mm(weight.mT, above.mT, out=found)
            elif wanted_x:
                torch.mm(above, weight, out=found)
            if wanted_weight:
                for_weight += torch.mm(above.mT, entry)
        return (
            (for_x.mT if first else for_x) if wanted_x else None,
            for_weight.to(weight.dtype) if wanted_weight else None,
            grad.sum((0, 1)) if wanted_bias else None,
            None,
        )


class _ResidualGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, answer: Tensor) -> Tensor:
        half = torch.mul(answer, 2.0).sigmoid_()
        ctx.save_for_backward(x, half)
        return torch.addcmul(answer, x, half, value=2.0, out=torch.empty_like(x))  # in the order of x, not of A

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, half = ctx.saved_tensors
        steep = torch.ops.aten.sigmoid_backward(grad, half)  # d (2 sigmoid(2 A)) / dA is 4 times this slope
        return torch.mul(grad, half).mul_(2.0), torch.addcmul(grad, steep, x, value=4.0)

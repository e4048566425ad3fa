"""Instance normalisation that leaves channels-last features channels last on CPUs.

PyTorch's brings them into channels-first order, and every convolution after it back. Its batch normalisation of one
entry is the same function and keeps the order, but adds up a channel's voxels one by one in float32, and loses digits
where there are many, far from zero (`tests/kernels/test_instance_norm.py`). So each column or place of a slice is a
channel of its own here, and their means and variances are put together afterwards.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import instance_norm as plain_instance_norm

__all__ = ["instance_norm"]

_ADDED = 1024  # so many numbers are added up one by one at the most, as long as there are fewer slices


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) weight + bias over the voxels of each entry and channel; biased variance.

    x [B, C, Z, Y, X], weight and bias [C] -> [B, C, Z, Y, X], in the memory order of x on CPUs. `torch.nn.functional`'s
    everywhere else: on other devices, channels first, within torch.compile; its errors hold. No second derivative.
    """
    if not _lies_channels_last(x):
        normed = plain_instance_norm(x, weight=weight, bias=bias, eps=eps)
        if normed.requires_grad and x.is_cpu and not torch.compiler.is_compiling():
            # of one entry, PyTorch (2.13) reads a gradient that lies channels last as if it lay channels first
            normed.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        return normed
    return cast(Tensor, _ChannelsLast.apply(x, weight, bias, eps))  # type: ignore[no-untyped-call]


def _lies_channels_last(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.ndim == 5
        and x.shape[2] * x.shape[3] > 1
        and x.dtype in (torch.float32, torch.bfloat16, torch.float64)
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and not x.is_contiguous()
        and not torch.compiler.is_compiling()
    )


def _like(x: Tensor) -> Tensor:
    """Room for [B, C, Z, Y, X], channels last. By name, not as x: of one entry x may have any first stride, and a
    whole step took longer on features that copied it."""
    return torch.empty_like(x, memory_format=torch.channels_last_3d)


def _rows(entry: Tensor) -> Tensor:
    """[1, C, Z, Y, X] channels last -> [1, X C, Z Y, 1, 1] of the same memory, [1, Y X C, Z, 1, 1] of large slices."""
    z, y = entry.shape[2:4]
    added = z if z > 1 and z * y > _ADDED else z * y
    return entry.permute(0, 2, 3, 4, 1).reshape(1, added, 1, 1, -1).permute(0, 4, 1, 2, 3)


def _statistics(entry: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of an entry [1, C, Z, Y, X]."""
    rows, channels = _rows(entry), entry.shape[1]
    unused = [entry.new_zeros(rows.shape[1], dtype=kind) for _ in range(2)]  # they tell in which type to add up
    means, variances = torch.ops.aten.batch_norm_update_stats(rows, *unused, 0.0)
    var_of_means, mean = torch.var_mean(means.view(-1, channels), 0, correction=0)
    return mean, variances.view(-1, channels).mean(0) + var_of_means


def _slope(
    entry: Tensor, above: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, turned: Tensor, added: Tensor
) -> Tensor:
    """W s (g - mean(g) - n mean(g n)), the entry's gradient; s = 1 / deviation, n normed, g from above.

    turned, added: mean(g n) and mean(g), [C]. In the weight's type until the end: the terms may cancel.
    """

    def each(of_channels: Tensor) -> Tensor:
        return of_channels.view(1, -1, 1, 1, 1)

    steep = weight * invstd
    along = steep * invstd * turned
    found = torch.mul(entry.to(weight.dtype), each(-along)).add_(each(along * mean - steep * added))
    return found.addcmul_(above, each(steep))


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        kind = torch.promote_types(x.dtype, torch.float32)
        weight, bias = weight.to(kind), bias.to(kind)
        found, normed, unused = [], _like(x), x.new_empty(0, dtype=kind)
        for entry, answer in zip(torch.split(x, 1), torch.split(normed, 1), strict=True):
            mean, var = _statistics(entry, kind)
            torch.ops.aten.native_batch_norm.out(
                entry, weight, bias, mean, var, False, 0.0, eps, out=answer, save_mean=unused, save_invstd=unused
            )
            found += [mean, (var + eps).rsqrt()]
        ctx.save_for_backward(x, weight, *found)
        ctx.eps = eps
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, *found = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        voxels = x.shape[2:].numel()
        zero, one = torch.zeros_like(weight), torch.ones_like(weight)
        for_weight, for_bias, for_x = zero.clone(), zero.clone(), _like(x)
        for entry, above, into, mean, invstd in zip(
            *(torch.split(one, 1) for one in (x, grad, for_x)), found[::2], found[1::2], strict=True
        ):
            rows = _rows(entry)
            apart = rows.shape[1] // len(weight)
            _, turned, added = torch.ops.aten.native_batch_norm_backward(
                _rows(above), rows, one.repeat(apart), None, None, mean.repeat(apart), invstd.repeat(apart),
                True, ctx.eps, [False, True, True],
            )  # fmt: skip
            turned, added = (part.view(apart, -1).sum(0) for part in (turned, added))
            slope = _slope(entry, above, mean, invstd, weight, turned / voxels, added / voxels)
            if len(x) == 1:
                for_x = slope.to(x.dtype)
            else:
                into.copy_(slope)
            for_weight += turned
            for_bias += added
        return for_x, for_weight, for_bias, None

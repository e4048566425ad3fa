"""nnU-Net's layers in the forms that CPUs work quickest: the same weights and, up to rounding, the same answers."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, conv3d, conv_transpose3d, interpolate

from petground.kernels.instance_norm import instance_norm

__all__ = ["ConvTranspose3d", "InstanceNorm3d", "PooledConv3d", "join_pooling", "upsampled"]

_MANY = 32**3  # voxels from which on pooling costs more than the products that it saves


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` with affine and no running statistics, by `kernels.instance_norm`; same weights."""

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, Z, Y, X] -> the same shape."""
        if self.weight is None or self.track_running_stats or x.ndim != 5:
            return super().forward(x)
        return instance_norm(x, self.weight, self.bias, self.eps)


class PooledConv3d(nn.Conv3d):
    """The mean over blocks of voxels and a 1x1x1 convolution of it; on CPUs one convolution with that stride where
    voxels are many.

    Average pooling on CPUs has no 16 bits and leaves its answer channels first: that costs more there than eight times
    the products do (`benchmarks/cpu_layers.py`). Its weights are those of `conv`, themselves.
    """

    def __init__(self, conv: nn.Conv3d, block_zyx: tuple[int, int, int]):
        super().__init__(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None, device="meta")
        self.weight, self.bias, self.block_zyx = conv.weight, conv.bias, block_zyx

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, Z, Y, X] -> [B, D, z, y, x]; what is left over of a block at the end is not read."""
        if x.is_cpu and x.shape[2:].numel() >= _MANY and not torch.compiler.is_compiling():
            return self.joined(x)
        wide = x.float() if x.is_cpu and x.element_size() == 2 else x
        return conv3d(avg_pool3d(wide, self.block_zyx).to(x.dtype), self.weight, self.bias)

    def joined(self, x: Tensor) -> Tensor:
        """As forward, in one convolution whatever the device and the number of voxels."""
        weight = (self.weight / math.prod(self.block_zyx)).expand(-1, -1, *self.block_zyx)
        return conv3d(x, weight, self.bias, self.block_zyx)


class ConvTranspose3d(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` that sums up its bias's gradient by itself: oneDNN takes longer for it than for all
    else of the backward (`benchmarks/cpu_layers.py`)."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """X [B, C, z, y, x] -> [B, D, Z, Y, X]."""
        if self.bias is None or output_size is not None or x.ndim != 5 or not x.is_cpu or torch.compiler.is_compiling():
            return super().forward(x, output_size)
        padding = cast("tuple[int, int, int]", self.padding)
        out = conv_transpose3d(
            x, self.weight, self.bias.detach(), self.stride, padding, self.output_padding, self.groups, self.dilation
        )
        return cast(Tensor, _BiasGradient.apply(out, self.bias))  # type: ignore[no-untyped-call]


class _BiasGradient(torch.autograd.Function):
    """What has the bias [D] in it already, [B, D, Z, Y, X], as it is; the gradient goes to both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(x)  # not changed, but no view either: what follows may work in place
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        return grad, grad.sum((0, 2, 3, 4)) if ctx.needs_input_grad[1] else None


def join_pooling(encoder: nn.Module) -> None:
    """Makes one convolution of the pooling and the projection in the shortcuts of nnU-Net's residual blocks."""
    for block in encoder.modules():
        if not (isinstance(block, BasicBlockD) and isinstance(block.skip, nn.Sequential) and len(block.skip) == 2):
            continue
        pool, projection = cast("tuple[nn.Module, Any]", tuple(block.skip))
        if isinstance(pool, nn.AvgPool3d):
            block_zyx = cast("tuple[int, int, int]", tuple(cast("list[int]", pool.stride)))
            projection.conv = projection.all_modules[0] = PooledConv3d(projection.conv, block_zyx)
            block.skip[0] = nn.Identity()


def upsampled(x: Tensor, grid_zyx: tuple[int, int, int]) -> Tensor:
    """X [B, C, z, y, x] of few channels -> [B, C, *grid_zyx], trilinear, voxels' centres kept (`align_corners=False`).

    PyTorch's on CPUs works on channels in parallel, so on one thread where there is one. Here each axis is a product
    with a matrix of its weights (`benchmarks/cpu_layers.py`).
    """
    if not x.is_cpu or torch.compiler.is_compiling():
        return interpolate(x, grid_zyx, mode="trilinear", align_corners=False)
    kind = torch.promote_types(x.dtype, torch.float32)
    along_z, along_y, along_x = (_weights(n, wanted, kind) for n, wanted in zip(x.shape[2:], grid_zyx, strict=True))
    with torch.autocast("cpu", enabled=False):
        planes = along_y @ (x.to(kind).contiguous() @ along_x.mT)
        return torch.unflatten(along_z @ planes.flatten(3), 3, planes.shape[3:]).to(x.dtype)


def _weights(voxels: int, wanted: int, dtype: torch.dtype) -> Tensor:
    """[wanted, voxels]: what each voxel of a line weighs in those of the finer line."""
    return interpolate(torch.eye(voxels, dtype=dtype)[:, None], wanted, mode="linear", align_corners=False)[:, 0].mT

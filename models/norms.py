"""nnU-Net's normalisation, in the memory order that its convolutions work in."""

from __future__ import annotations

from torch import Tensor, nn

from petground.kernels.instance_norm import instance_norm

__all__ = ["InstanceNorm3d"]


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` with affine and no running statistics, by `kernels.instance_norm`; same weights."""

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, Z, Y, X] -> the same shape."""
        if self.weight is None or self.track_running_stats or x.ndim != 5:
            return super().forward(x)
        return instance_norm(x, self.weight, self.bias, self.eps)

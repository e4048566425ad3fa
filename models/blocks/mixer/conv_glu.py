"""TransNeXt's convolutional gated linear unit: a feed-forward layer whose gate sees the neighbouring voxels."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import gelu

from petground.models.blocks.contract import check_features

__all__ = ["ConvGLU"]


class ConvGLU(nn.Module):
    """x + out(GELU(DWConv3(a)) * b), [a, b] = in(LayerNorm(x)) (arXiv 2311.17132, section 3.4).

    a and b are 2/3 ratio C wide, so that there are as many weights as in a feed-forward layer of ratio C. `out` starts
    at zero, so that the block starts as the identity; the paper's does not.

    Args:
        channels: C.
        ratio: of the hidden width, 4 or 8 in the paper.
    """

    def __init__(self, channels: int, ratio: float = 4.0):
        super().__init__()
        if ratio <= 0:
            raise ValueError(f"ratio={ratio} must be above 0")
        hidden = max(1, round(channels * ratio * 2 / 3))
        self.channels = channels
        self.norm = nn.LayerNorm(channels)
        self.inward = nn.Conv3d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.outward = nn.Conv3d(hidden, channels, 1)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(cast(Tensor, self.outward.bias))

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, Z, Y, X] -> the same shape."""
        check_features("conv_glu", x, self.channels)
        states = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return x + self.operator(states).to(x.dtype)

    def operator(self, x: Tensor) -> Tensor:
        """Without norm and residual, [B, C, Z, Y, X] -> the same shape."""
        gate, value = self.inward(x).chunk(2, dim=1)
        return cast(Tensor, self.outward(gelu(self.depthwise(gate)) * value))

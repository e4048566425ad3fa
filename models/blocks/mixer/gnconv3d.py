"""HorNet's recursive gated convolution, in 3D: high-order interaction of voxels at the cost of a convolution."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from petground.models.blocks.contract import check_features

__all__ = ["GnConv3d"]


class GnConv3d(nn.Module):
    """g^n Conv, n the order (arXiv 2207.14284, section 3.1).

        [p_0, q_0 .. q_{n-1}] = proj_in(x),   C_k = C / 2^{n-1-k} channels each, p_0 has C_0
        q = scale * DWConv(q)
        p_1 = p_0 q_0,   p_{k+1} = g_k(p_k) q_k      g_k: C_{k-1} -> C_k, 1x1x1
        out = proj_out(p_n)

    With residual, x + gamma out(LayerNorm(x)), the first half of HorNet's block, gamma 1e-6 at the start, so that it
    starts next to the identity; its feed-forward is left to the stage's convolutions. Without, the operator alone.

    Args:
        channels: must be a multiple of 2^(order - 1).
        order: n; 5 in the paper's later stages, 1 is a gated convolution.
        kernel: of the depth-wise convolution, odd.
        scale: s; 1/3 in the published configurations.
        bias: of all convolutions; without, scaling the operator's x by c scales its output by c^(n+1).
        residual: see above.
    """

    def __init__(
        self,
        channels: int,
        order: int = 5,
        kernel: int = 7,
        scale: float = 1 / 3,
        bias: bool = True,
        residual: bool = True,
    ):
        super().__init__()
        if order < 1 or channels % 2 ** (order - 1):
            raise ValueError(f"order={order}: channels={channels} must be a multiple of {2 ** max(0, order - 1)}")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd")
        self.channels, self.scale = channels, scale
        self.widths = [channels // 2 ** (order - 1 - k) for k in range(order)]
        total = sum(self.widths)
        self.inward = nn.Conv3d(channels, 2 * channels, 1, bias=bias)
        self.depthwise = nn.Conv3d(total, total, kernel, padding=kernel // 2, groups=total, bias=bias)
        pairs = zip(self.widths, self.widths[1:], strict=False)
        self.rise = nn.ModuleList(nn.Conv3d(low, high, 1, bias=bias) for low, high in pairs)
        self.outward = nn.Conv3d(channels, channels, 1, bias=bias)
        self.norm = nn.LayerNorm(channels) if residual else None
        self.gamma = nn.Parameter(torch.full((channels, 1, 1, 1), 1e-6)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, Z, Y, X] -> the same shape."""
        check_features("gnconv3d", x, self.channels)
        if self.norm is None or self.gamma is None:
            return self.operator(x)
        states = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return x + (self.gamma * self.operator(states)).to(x.dtype)

    def operator(self, x: Tensor) -> Tensor:
        """The recursive gated convolution alone, [B, C, Z, Y, X] -> the same shape."""
        p, q = self.inward(x).split([self.widths[0], sum(self.widths)], dim=1)
        parts = (self.depthwise(q) * self.scale).split(self.widths, dim=1)
        p = p * parts[0]
        for rise, part in zip(self.rise, parts[1:], strict=True):
            p = rise(p) * part
        return cast(Tensor, self.outward(p))

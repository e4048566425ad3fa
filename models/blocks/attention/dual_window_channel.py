"""DaViT's pair in one operator: attention among the voxels of a window, then among the channels of the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.window_attention import WindowAttention
from petground.models.blocks.contract import BlockInputError, Grid

__all__ = ["DualWindowChannel", "channel_attention"]


class DualWindowChannel(nn.Module):
    """o = C(q, k, P(W(q, k, v))) (DaViT, arXiv 2204.03645, section 3).

    W: softmax(q k^T / sqrt(D)) v within windows, without a bias. P(x) = x + depthwise 3 x 3 x 3 convolution of x: the
    paper's positional encoding between the two. C: channels are the tokens; per group of C_g channels
    C(q, k, x) = (softmax(q^T k / sqrt(C_g)) x^T)^T, a map of C_g x C_g however large the grid.

    The paper's two attentions are layers of their own, each with its projections; here both ask with the same q and k.

    Args:
        channels: of all heads together.
        num_heads: heads of the windows.
        window: voxels [z, y, x].
        groups: of channels; 0: one for each head, as in the paper.
        scale: "channels", the paper's C_g ** -0.5; "positions", number of real voxels ** -0.5 (as in the authors' later
            version), which keeps the softmax soft on large grids.
        position: the convolution between.
        backend: of the windows' kernel.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        window: Sequence[int] = (4, 4, 4),
        groups: int = 0,
        scale: Literal["channels", "positions"] = "channels",
        position: bool = True,
        backend: Literal["auto", "chunked", "reference", "triton"] = "auto",
    ):
        super().__init__()
        self.groups = groups or num_heads
        if groups < 0 or channels % self.groups:
            raise ValueError(f"groups={groups} does not divide channels={channels}")
        self.channels, self.scale = channels, scale
        self.windows = WindowAttention(
            channels,
            num_heads,
            "dual_window_channel",
            position="none",
            window=window,
            shift="plain",
            distance="short",
            halo=(0, 0, 0),
            backend=backend,
        )
        self.position = nn.Conv3d(channels, channels, 3, padding=1, groups=channels) if position else None

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        grid: Grid | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q, k, v [B, H, N, D] of a grid, mask [B, N] bool True = real -> [B, H, N, D] and None: it has no map."""
        local, _ = self.windows(q, k, v, mask=mask, bias=bias, grid=grid, causal=causal)
        assert grid is not None
        if v.shape[3] != q.shape[3]:
            raise BlockInputError("dual_window_channel", "v", f"is {v.shape[3]} wide", f"as wide as q: {q.shape[3]}")
        check_heads("dual_window_channel", q, q.shape[1], self.channels // q.shape[1])
        heads = q.shape[1]
        queries, keys, x = (one.transpose(1, 2).flatten(2) for one in (q, k, local))
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        if self.position is not None:
            x = x + grid.flat(self.position(grid.dense(x)))
        out = channel_attention(queries, keys, x, groups=self.groups, mask=mask, by_positions=self.scale == "positions")
        return torch.unflatten(out, -1, (heads, -1)).transpose(1, 2), None


def channel_attention(
    q: Tensor, k: Tensor, v: Tensor, *, groups: int, mask: Tensor | None = None, by_positions: bool = False
) -> Tensor:
    """(softmax(q^T k scale) v^T)^T in each group of channels: q, k, v [B, N, C], mask [B, N] -> [B, N, C].

    Masked positions add nothing to the map; they get a result like any other.
    """
    wide = torch.promote_types(q.dtype, torch.float32)  # sums over positions leave 16 bits
    q, k = q.to(wide), k.to(wide)
    if mask is not None:
        q, k = (one.masked_fill(~mask[:, :, None], 0.0) for one in (q, k))
    q, k, v = (torch.unflatten(one, -1, (groups, -1)).transpose(1, 2) for one in (q, k, v))  # [B, G, N, C_g]
    scale: Tensor | float = q.shape[-1] ** -0.5
    if by_positions:
        real = q.new_tensor(float(q.shape[2])) if mask is None else mask.sum(1).clamp(min=1).to(wide)
        scale = torch.rsqrt(real).reshape(-1, 1, 1, 1)
    weights = ((q * scale).transpose(-1, -2) @ k).softmax(dim=-1).to(v.dtype)
    return (v @ weights.transpose(-1, -2)).transpose(1, 2).flatten(2)

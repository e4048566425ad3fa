"""Shifted window attention that starts by adding nothing: what links windows without disturbing a trained trunk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from petground.kernels.cross_attention import cross_attention
from petground.models.blocks.backend import Backend
from petground.models.blocks.contract import BlockInputError, Grid
from petground.models.blocks.token_reduction.maps import split_heads

__all__ = ["WindowLink"]


class WindowLink(nn.Module):
    """W_o softmax(q k^T / sqrt(d)) v within windows shifted by half their size; W_o starts at zero.

    Windows that the grid's end cuts hold padding, which nobody reads; nothing wraps round (TextMonkey, arXiv
    2403.04473, section 3.2, in three dimensions; no relative bias).

    Args:
        key: the block's name, for messages.
        channels: of the tokens.
        heads: must divide channels.
        window_zyx: voxels of a window.

    `backend` of its kernel is "auto"; `served_by` sets it.
    """

    backend: Backend = "auto"

    def __init__(self, key: str, channels: int, heads: int, window_zyx: Sequence[int]):
        super().__init__()
        split_heads(key, channels, heads)
        if len(window_zyx) != 3 or min(window_zyx) < 1:
            raise ValueError(f"window_zyx={list(window_zyx)}: three numbers of one or more")
        self.key = key
        self.heads = heads
        self.window = tuple(window_zyx)
        self.norm = nn.LayerNorm(channels)
        self.inward = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, real: Tensor, grid: Grid | None) -> Tensor:
        """Tokens [B, N, C], mask [B, N] bool -> what is to be added. Raises BlockInputError without a grid."""
        if grid is None:
            raise BlockInputError(self.key, "grid", "is missing", "give it, or leave links out")
        qkv = self._windows(self.inward(self.norm(tokens)), grid)  # [windows, V, 3 C]
        mask = self._windows(real[..., None].to(tokens.dtype), grid)[..., 0] > 0
        q, k, v = (torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        mixed = cross_attention(q, k, v, mask=mask, backend=self.backend).transpose(1, 2).flatten(2)
        added: Tensor = self.out(self._grid(mixed, grid, tokens.shape[0]))
        return added

    def _pads(self, grid: Grid) -> list[tuple[int, int]]:
        """Voxels before (the shift) and after each axis, up to whole windows."""
        before = [w // 2 for w in self.window]
        return [(b, -(n + b) % w) for n, w, b in zip(grid.shape_zyx, self.window, before, strict=True)]

    def _windows(self, tokens: Tensor, grid: Grid) -> Tensor:
        (z, y, x), (a, b, c) = self._pads(grid), self.window
        dense = pad(torch.unflatten(tokens, 1, grid.shape_zyx), (0, 0, *x, *y, *z))
        z_cells, y_cells, x_cells = (n // w for n, w in zip(dense.shape[1:4], self.window, strict=True))
        cells = dense.reshape(dense.shape[0], z_cells, a, y_cells, b, x_cells, c, dense.shape[4])
        return cells.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(0, 3).flatten(1, 3)

    def _grid(self, windows: Tensor, grid: Grid, batch: int) -> Tensor:
        pads, (a, b, c) = self._pads(grid), self.window
        number = [(n + sum(p)) // w for n, p, w in zip(grid.shape_zyx, pads, self.window, strict=True)]
        cells = windows.reshape(batch, *number, a, b, c, windows.shape[2]).permute(0, 1, 4, 2, 5, 3, 6, 7)
        dense = cells.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        for axis, (n, p) in enumerate(zip(grid.shape_zyx, pads, strict=True), start=1):
            dense = dense.narrow(axis, p[0], n)
        return dense.flatten(1, 3)

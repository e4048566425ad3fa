"""Anchors, their neighbours and registers: a hierarchy of two layers decides what stays."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse
from petground.models.blocks.token_reduction.choose import budget, check_keep, keep_hierarchy, most, real_voxels
from petground.models.blocks.token_reduction.maps import (
    check_layers,
    check_sample,
    coarse_layers,
    on_voxels,
    received_attention,
    split_heads,
)
from petground.models.blocks.token_reduction.rest import keep_and_drop

__all__ = ["HiPrune"]


class HiPrune(nn.Module):
    """anchors = top by a_middle; buffers = their neighbours in the grid; registers = top by a_deep among the others.

        M = ceil(keep * N);  anchors: min(round(M * alpha / 7), M // 7);  registers: until M voxels are kept
        a = mean_h mean_m softmax_n(x_m^h . x_n^h / sqrt(D)), the attention that a voxel receives

    HiPrune, arXiv 2508.00553, section 4, in 3D: six neighbours in place of four, so seven voxels to an anchor in place
    of five; the public 2D code adds +-1 to the index and so wraps at the ends of rows, here nothing does. `scores`
    [B, L, N] give the received attention of layers: the first is the middle one, the last the deep one ([B, N]: both).
    Without them the voxels themselves are the middle layer, the means of 2 x 2 x 2 voxels the deep one. Needs the grid.
    The dropped get zeros back. No parameters.

    Args:
        channels: of the tokens.
        keep: share of the real voxels that stays, above 0, at most 1.
        alpha: of these, the share of anchors with their buffers, 0..1. 0: the registers alone.
        heads: of the attention; must divide channels.
        sample: ask only about so many voxels, evenly apart, for the received attention; 0: all, as in the paper.
        backend: of the kernels that choose and gather tokens.
    """

    key = "hiprune"
    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        keep: float = 1 / 3,
        alpha: float = 0.1,
        heads: int = 1,
        sample: int = 0,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(self.key, channels, heads)
        if not 0 <= alpha <= 1:
            raise ValueError(f"{self.key}: alpha={alpha} not in 0..1")
        self.keep = check_keep(self.key, keep)
        self.alpha = alpha
        self.heads = heads
        self.sample = check_sample(self.key, sample)
        self.backend = backend

    @tells_backend()
    def forward(
        self,
        tokens: Tensor,
        *,
        scores: Tensor | None = None,
        mask: Tensor | None = None,
        grid: Grid | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Reduced:
        """Tokens [B, N, C], scores [B, N] or [B, L, N], mask [B, N] bool -> Reduced with K = ceil(keep * N)."""
        layers = check_layers(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        if grid is None:
            raise BlockInputError(self.key, "grid", "is missing", "an anchor's neighbours need the 3D grid")
        real = real_voxels(tokens, mask)
        with torch.no_grad():
            if layers is None:
                levels = coarse_layers(tokens, mask, grid, 2, self.backend)
                middle, deep = (
                    received_attention(level[0], level[1], self.heads, sample=self.sample) for level in levels
                )
                layers = torch.stack([middle, on_voxels(deep, levels[1][2], mask, self.backend)], dim=1)
            wanted = budget(self.keep, real)
            chosen = keep_hierarchy(layers[:, 0], layers[:, -1], real, grid, wanted, self.alpha, self.backend)
        return keep_and_drop(tokens, chosen, most(self.keep, tokens.shape[1]), self.backend)

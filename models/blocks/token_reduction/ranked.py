"""The voxels that a map ranks highest stay; the rest goes, or becomes one token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels.topk import topk_mask
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse
from petground.models.blocks.token_reduction.choose import budget, check_keep, keep_planes, most, real_voxels
from petground.models.blocks.token_reduction.maps import (
    check_layers,
    check_sample,
    class_attention,
    coarse_layers,
    global_query,
    on_voxels,
    received_attention,
    split_heads,
)
from petground.models.blocks.token_reduction.rest import keep_and_drop, keep_and_merge, width_of

__all__ = ["RankedReduction"]


class RankedReduction(nn.Module):
    """keep = top-k of a score a [B, N]; a is the class query's attention, or the attention that a voxel receives.

        class:    a_n = mean_h softmax_n(q^h . x_n^h / sqrt(D)), q the sentence's pooled state or the mean voxel;
                  with several layers their maps are added up
        received: a_n = mean_h mean_m softmax_n(x_m^h . x_n^h / sqrt(D))
        k = ceil(keep * N) of the real voxels, in the order of their places

    Presets: `evit_fuse` (class, text; the dropped become the token sum_n a_n x_n: EViT, section 3.2), `cls_topk`
    (class, mean voxel: FasterVLM), `cls_topk_ensemble` (class, mean voxel, layers: VTC-CLS), `fopru` (received; the
    best voxels, rows or slices: FoPru). Given `scores` [B, N] or [B, L, N] (a layer's attention each) take the place of
    the map. No parameters.

    Args:
        channels: of the tokens.
        key: name in errors.
        score: "class" or "received".
        rest: "drop": the others get zeros back; "fuse": one token, whose value they get back.
        paper_keep: share kept where `keep` is not given.
        paper_query: whose attention counts where `query` is not given.
        paper_levels: levels where `levels` is not given.
        keep: share of the real voxels that stays, above 0, at most 1; null: the paper's (evit_fuse 0.7, the others
            0.25).
        query: "text" or "mean" voxel, of the class attention; null: the paper's (evit_fuse text, the others mean).
        heads: of the attention; must divide channels.
        levels: of the ensemble: cubes of 1, 2, 4 ... voxels stand for an encoder's layers; null: `paper_levels`.
        strategy: "rank": the best voxels anywhere; "row": whole rows along x; "slice": whole axial slices.
        sample: ask only about so many voxels, evenly apart, for the received attention; 0: all, as in the paper.
        backend: of the kernels that choose and gather tokens.
    """

    def __init__(
        self,
        channels: int,
        key: str,
        score: Literal["class", "received"],
        rest: Literal["drop", "fuse"],
        paper_keep: float,
        paper_query: Literal["text", "mean"],
        paper_levels: int = 1,
        keep: float | None = None,
        query: Literal["text", "mean"] | None = None,
        heads: int = 1,
        levels: int | None = None,
        strategy: Literal["rank", "row", "slice"] = "rank",
        sample: int = 0,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(key, channels, heads)
        if query not in (None, "text", "mean") or (levels is not None and levels < 1):
            raise ValueError(f"{key}: query={query!r}, levels={levels}: text or mean, at least one level")
        self.key = key
        self.score = score
        self.rest = rest
        self.keep = check_keep(key, paper_keep if keep is None else keep)
        self.query = query or paper_query
        self.text_use: TextUse = "needs" if score == "class" and self.query == "text" else "ignores"
        self.heads = heads
        self.levels = paper_levels if levels is None else levels
        self.strategy = strategy
        self.sample = check_sample(key, sample)
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
        """Tokens [B, N, C], scores [B, N] or [B, L, N], mask [B, N] bool, text [B, P, C] -> Reduced."""
        layers = check_layers(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        if self.strategy != "rank" and grid is None:
            raise BlockInputError(self.key, "grid", "is missing", f"strategy {self.strategy} needs the 3D grid")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.rest == "fuse"):
            if layers is None:
                layers = self._layers(tokens, mask, grid, global_query(tokens, mask, text, text_mask, self.query))
            rank = layers.sum(dim=1)
        real = real_voxels(tokens, mask)
        if self.strategy == "rank" or grid is None:
            chosen = topk_mask(rank.detach(), budget(self.keep, real), mask, backend=self.backend)
            size = most(self.keep, tokens.shape[1])
        else:
            chosen = keep_planes(rank.detach(), real, grid, self.keep, self.strategy, self.backend)
            size = width_of(chosen)
        if self.rest == "drop" or self.keep == 1.0:
            return keep_and_drop(tokens, chosen, size, self.backend)
        group = torch.where(real & ~chosen, 0, -1)
        weights = rank.clamp(min=0)
        return keep_and_merge(tokens, chosen, size, group, 1, weights, total=True, backend=self.backend)

    def _layers(self, tokens: Tensor, mask: Tensor | None, grid: Grid | None, query: Tensor) -> Tensor:
        """Maps [B, L, N] of the tokens."""
        if self.score == "received":
            return received_attention(tokens, mask, self.heads, sample=self.sample)[:, None]
        maps = []
        coarse = coarse_layers(tokens, mask, grid, self.levels, self.backend)
        for level, (means, real, cells) in enumerate(coarse):
            found = class_attention(query, means, real, self.heads)
            maps.append(found if level == 0 else on_voxels(found, cells, mask, self.backend))
        return torch.stack(maps, dim=1)

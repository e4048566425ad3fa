"""What flows through a token, layer after layer; a focused map prunes fast, a diffuse one slowly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels._shared.precision import autocast_off, widened
from petground.kernels.topk import topk_mask
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse
from petground.models.blocks.token_reduction.choose import budget, check_keep, real_voxels
from petground.models.blocks.token_reduction.maps import (
    check_layers,
    class_attention,
    coarse_layers,
    global_query,
    normalised,
    on_voxels,
    split_heads,
)
from petground.models.blocks.token_reduction.rest import keep_and_drop, width_of

__all__ = ["FlowCut", "flow_chain"]


def flow_chain(
    layers: Tensor,
    semantic: Tensor,
    values: Tensor,
    real: Tensor,
    target: Tensor,
    every: int = 2,
    backend: TokenBackend = "auto",
) -> list[Tensor]:
    """The kept sets after each pruning step, each within the one before: bool [B, N] each.

    layers: [B, L, N] class attention. semantic: [B, N] softmax(v_cls . v_n). values: [B, N, C]. target: [B] long.
    At every `every`-th layer r = round((n - target) / sqrt(left) (1 - (H / log n)^2)) of the n voxels left go, `left`
    the pruning steps to come with this one, H the entropy of the layer's attention over them, the least accumulated
    score first; never below the target.
    """
    kept = real
    chain: list[Tensor] = []
    flow = torch.zeros_like(semantic)
    strength = values.abs().sum(dim=-1)
    steps = [layer for layer in range(layers.shape[1]) if (layer + 1) % every == 0]
    for layer in range(layers.shape[1]):
        attention = normalised(layers[:, layer], kept)
        flow = 0.5 * flow + 0.5 * (attention + normalised(semantic, kept)) * strength
        if layer not in steps:
            continue
        wide = attention.to(torch.promote_types(attention.dtype, torch.float32))
        n = kept.sum(dim=1)
        spread = torch.special.entr(wide).sum(dim=1) / n.clamp(min=2).to(wide.dtype).log()
        spread = torch.where(attention.sum(dim=1) > 0, spread.clamp(0, 1), 1.0)  # an empty map says nothing
        left = len(steps) - len(chain)
        cut = ((n - target).to(wide.dtype) * left**-0.5 * (1 - spread.square())).round().long()
        stay = torch.maximum(n - cut.clamp(min=0), torch.minimum(target, n))
        kept = topk_mask(flow, stay, kept, backend=backend)
        chain.append(kept)
    return chain


class FlowCut(nn.Module):
    """C_l = C_(l-1) / 2 + s_l / 2,  s_l = (a_l / sum a_l + softmax(v_cls . v)) |v|_1; every second layer prunes.

        r = round((n - target) / sqrt(steps left) (1 - (H(a_l) / log n)^2));  target = ceil(keep * N)

    FlowCut, arXiv 2505.19536, section 4; score and ratio as in its public code. `scores` [B, L, N] are the class
    attention of layers ([B, N]: one layer, which prunes). Without them the mean voxel's (or the pooled sentence's)
    attention over cubes of 1, 2, 4, 8 voxels stands for the layers. Values are the tokens, v_cls is the query. A
    uniform map prunes nothing, so more than the target may stay. The dropped get zeros back. No parameters.

    Args:
        channels: of the tokens.
        keep: share of the real voxels below which nothing goes, above 0, at most 1 (paper: 64 of 576).
        query: the class query, "mean" voxel or "text".
        levels: cubes of 1, 2, 4 ... voxels.
        every: a pruning step at every so many layers.
        heads: of the attention; must divide channels.
        backend: of the kernels that choose and gather tokens.
    """

    key = "flowcut"

    def __init__(
        self,
        channels: int,
        keep: float = 1 / 9,
        query: Literal["mean", "text"] = "mean",
        levels: int = 4,
        every: int = 2,
        heads: int = 1,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(self.key, channels, heads)
        if levels < 1 or every < 1:
            raise ValueError(f"{self.key}: levels={levels}, every={every}: at least one")
        self.keep = check_keep(self.key, keep)
        self.query = query
        self.text_use: TextUse = "needs" if query == "text" else "ignores"
        self.levels = levels
        self.every = every
        self.heads = heads
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
        """Tokens [B, N, C], scores [B, N] or [B, L, N], mask [B, N] bool -> Reduced, as long as it needs."""
        layers = check_layers(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        real = real_voxels(tokens, mask)
        with torch.no_grad(), autocast_off(tokens):
            wide = widened(tokens)
            query = global_query(wide, mask, text, text_mask, self.query)
            if layers is None:
                maps = [
                    on_voxels(class_attention(query, means, there, self.heads), cells, mask, self.backend)
                    for means, there, cells in coarse_layers(wide, mask, grid, self.levels, self.backend)
                ]
                layers = torch.stack(maps, dim=1)
            semantic = masked_softmax((wide @ query[..., None])[..., 0], mask)
            every = min(self.every, layers.shape[1])
            chain = flow_chain(layers, semantic, wide, real, budget(self.keep, real), every, self.backend)
        return keep_and_drop(tokens, chain[-1], width_of(chain[-1]), self.backend)

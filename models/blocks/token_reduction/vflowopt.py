"""What global voxels look at, and where much goes on; what is pruned is recycled into a few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from petground.kernels.topk import topk_mask
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse
from petground.models.blocks.token_reduction.choose import budget, check_keep, most, real_voxels
from petground.models.blocks.token_reduction.entropy import neighbourhood_entropy
from petground.models.blocks.token_reduction.maps import (
    check_layers,
    check_sample,
    masked_mean,
    received_attention,
    split_heads,
)
from petground.models.blocks.token_reduction.rest import keep_and_drop, keep_and_merge

__all__ = ["VFlowOpt", "agreement", "global_attention", "stage_ratios"]


def stage_ratios(keep: float, stages: int) -> list[float]:
    """The same ratio for each stage; their product is `keep`."""
    return [keep ** (1 / stages)] * stages


def agreement(with_pruning: Tensor, without: Tensor) -> Tensor:
    """The optimiser's objective: cosine similarity of an exam's mask logits [B, ...] with and without pruning -> [B].

    The paper compares the language model's last token; a segmentation has its logits in that place. 1 at best.
    """
    return cosine_similarity(with_pruning.flatten(1), without.flatten(1), dim=1)


def global_attention(tokens: Tensor, mask: Tensor | None, heads: int, threshold: float, sample: int = 0) -> Tensor:
    """Mean attention sent by the global voxels, those that receive more than `threshold` times the mean -> [B, N]."""
    received = received_attention(tokens, mask, heads, sample=sample)
    if threshold == 0:
        return received  # every real voxel receives something
    real = real_voxels(tokens, mask)
    mean = masked_mean(received[..., None], real)
    return received_attention(tokens, mask, heads, senders=(received > threshold * mean) & real, sample=sample)


class VFlowOpt(nn.Module):
    """importance = mean attention of global voxels + alpha softmax(entropy around); the pruned are recycled.

        global: received_n > t mean(received);  entropy: of the grey levels of 3 x 3 x 3 voxels
        stage s of S keeps keep^(s/S) N voxels; those that it prunes become m tokens, sum_n w_n x_n / sum_n w_n, w their
        importance, and get their token's value back

    VFlowOpt, arXiv 2508.05211, section 3; the importance as in its public code. Grey levels: a token's length takes the
    place of the patch's pixels. How the paper's pruned tokens are dealt out is not verified: here in the order of their
    places, in m equal runs. `scores` [B, N] ([B, L, N]: their sum) take the place of the global attention. The paper's
    search for (ratios, t, m, alpha), with `agreement` as objective, is run from Python only:
    `petground.models.blocks.token_reduction.search.bayesian_search`. No parameters.

    Args:
        channels: of the tokens.
        keep: share of the real voxels that stays as it is, above 0, at most 1.
        stages: of pruning, each with its own recycled tokens.
        recycled: tokens made of what a stage prunes.
        threshold: t, times the mean.
        alpha: weight of the entropy.
        bins: grey levels.
        heads: of the attention; must divide channels.
        sample: ask only about so many voxels, evenly apart, for the received attention; 0: all, as in the paper.
        backend: of the kernels that choose and gather tokens.
    """

    key = "vflowopt"
    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        keep: float = 0.1,
        stages: int = 2,
        recycled: int = 4,
        threshold: float = 1.0,
        alpha: float = 1.0,
        bins: int = 16,
        heads: int = 1,
        sample: int = 0,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(self.key, channels, heads)
        if stages < 1 or recycled < 1 or bins < 2 or threshold < 0 or alpha < 0:
            raise ValueError(f"{self.key}: stages and recycled from 1, bins from 2, threshold and alpha from 0")
        self.keep = check_keep(self.key, keep)
        self.ratios = stage_ratios(self.keep, stages)
        self.recycled = recycled
        self.threshold = threshold
        self.alpha = alpha
        self.bins = bins
        self.heads = heads
        self.sample = check_sample(self.key, sample)
        self.backend = backend

    def importance(self, tokens: Tensor, mask: Tensor | None, grid: Grid | None, layers: Tensor | None) -> Tensor:
        """[B, N], not negative."""
        seen = (
            global_attention(tokens, mask, self.heads, self.threshold, self.sample)
            if layers is None
            else layers.sum(dim=1)
        )
        if self.alpha == 0:
            return seen
        entropy = neighbourhood_entropy(tokens, mask, grid, self.bins)
        return seen + self.alpha * masked_softmax(entropy, mask)

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
        """Tokens [B, N, C], scores [B, N] or [B, L, N], mask [B, N] bool -> Reduced, the recycled tokens last."""
        layers = check_layers(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        real = real_voxels(tokens, mask)
        with torch.no_grad():
            weight = self.importance(tokens, mask, grid, layers)
            kept, share, groups, size = real, 1.0, 0, tokens.shape[1]
            group = torch.full_like(real, -1, dtype=torch.long)
            for ratio in self.ratios:
                share *= ratio
                chosen = topk_mask(weight, budget(share, real), kept, backend=self.backend)
                gone = kept & ~chosen
                before, size = size, most(share, tokens.shape[1])
                # an exam with padding may prune where a full one would not
                runs = max(min(self.recycled, before - size), int(mask is not None and ratio < 1))
                run = (gone.cumsum(dim=1) - 1) * runs // gone.sum(dim=1, keepdim=True).clamp(min=1)
                group = torch.where(gone, groups + run, group) if runs else group
                groups, kept = groups + runs, chosen
        if groups == 0:
            return keep_and_drop(tokens, kept, size, self.backend)
        weight = weight.clamp(min=0)
        return keep_and_merge(tokens, kept, size, group, groups, weight, total=False, backend=self.backend)

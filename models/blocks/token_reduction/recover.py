"""Recoverable compression: salient voxels stay, those like the sentence come back, the rest becomes cluster means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from petground.kernels._shared.precision import unrounded, widened
from petground.kernels.token_merge import gather_tokens
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.bipartite import places_of
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.latents import sentence
from petground.models.blocks.token_reduction.maps import masked_mean
from petground.models.blocks.token_reduction.outliers import assign_nearest, density_peaks, high_outliers
from petground.models.blocks.token_reduction.rest import keep_and_merge, width_of

__all__ = ["RecoverableCompression"]

KEY = "recoverable_compression"


class RecoverableCompression(nn.Module):
    """Recoverable Compression (arXiv 2409.01179, section 3); nothing is learnt.

    1. Visual filter: voxels whose score is a high outlier by the local outlier factor stay: LOF_i > factor, with
       LOF_i = mean over its k neighbours j of lrd_j / lrd_i, lrd_i = 1 / mean_j max(k-distance_j, |s_i - s_j|).
    2. Text recovery: of the others, those whose cosine to the sentence (its mean token) is a high outlier, or at least
       `certain`, stay, too.
    3. The remainder falls into `clusters` by density peaks (DPC-KNN); each is one token, its mean. Centres have the
       largest rho_i delta_i: rho_i = exp(-mean squared distance to its neighbours), delta_i = distance to a denser one.
    Kept, recovered and merged voxels are a partition of the real ones. The un-merge gives kept voxels their own value
    and merged ones their cluster's.

    The paper scores by the similarity to the vision encoder's class token. Here that is `scores` (SUV, say) where
    given; else 1 - cosine to the mean voxel, since the mean of a volume is its background, not its subject.

    Args:
        channels: of the tokens.
        clusters: tokens for the remainder.
        factor: LOF above which a score is an outlier.
        neighbours: k of the outlier factor.
        density_neighbours: k of the clustering.
        certain: cosine to the sentence from which a voxel is recovered whatever the other voxels' are.
        sample: centres are sought among at most so many voxels, evenly taken (the paper's images have 576); every
            voxel then joins the nearest.
        backend: of the kernels that choose and gather tokens.
    """

    text_use: TextUse = "reads"

    def __init__(
        self,
        channels: int,
        clusters: int = 16,
        factor: float = 1.5,
        neighbours: int = 20,
        density_neighbours: int = 5,
        certain: float = 0.999,
        sample: int = 2048,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        if min(clusters, neighbours, density_neighbours, sample) < 1:
            raise ValueError("clusters, neighbours, density_neighbours and sample must be 1 or more")
        self.clusters = clusters
        self.factor = factor
        self.neighbours = neighbours
        self.density_neighbours = density_neighbours
        self.certain = certain
        self.sample = sample
        self.backend = backend

    @tells_backend(KEY)
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
        """Tokens [B, N, C], scores [B, N], mask [B, N] bool, text [B, P, C] -> Reduced; a mean's `kept` is -1."""
        check_tokens(KEY, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        words = sentence(KEY, tokens, text, text_mask)
        real = real_voxels(tokens, mask)
        clear = tokens.masked_fill(~real[..., None], 0.0)
        kept, recovered = self.choose(clear, real, scores, words)
        stays = kept | recovered
        rest = real & ~stays
        group, number = self._cluster(clear, rest)
        one = torch.ones_like(tokens[..., 0])
        group, size = group.masked_fill(~rest, -1), width_of(stays)
        return keep_and_merge(clear, stays, size, group, number, one, total=False, backend=self.backend)

    @torch.no_grad()
    @unrounded
    def choose(
        self, tokens: Tensor, real: Tensor, scores: Tensor | None, words: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Kept for their score, recovered for the sentence: two masks [B, N] that do not overlap."""
        if scores is None:
            scores = 1.0 - cosine_similarity(tokens, masked_mean(tokens, real)[:, None], dim=-1)
        kept = high_outliers(scores.masked_fill(~real, 0.0), real, self.neighbours, self.factor)
        if words is None:
            return kept, torch.zeros_like(kept)
        alike = cosine_similarity(tokens, masked_mean(widened(words[0]), words[1]).to(tokens)[:, None], dim=-1)
        rest = real & ~kept
        recovered = high_outliers(alike, rest, self.neighbours, self.factor) | (rest & (alike >= self.certain))
        return kept, recovered & words[1].any(1, keepdim=True)

    @torch.no_grad()
    @unrounded
    def _cluster(self, tokens: Tensor, rest: Tensor) -> tuple[Tensor, int]:
        """Cluster of each voxel of the remainder [B, N], and how many there can be."""
        places = places_of(rest, backend=self.backend)
        step = -(-places.shape[1] // self.sample)
        sampled = places[:, ::step]
        points = gather_tokens(tokens, sampled, backend=self.backend)
        centres = density_peaks(points, sampled >= 0, self.clusters, self.density_neighbours)
        group = assign_nearest(tokens, gather_tokens(points, centres, backend=self.backend), centres >= 0)
        return group, centres.shape[1]

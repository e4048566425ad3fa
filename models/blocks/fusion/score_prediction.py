"""MixFormer's score prediction: how far a found region can be relied on, from its voxels and the sentence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.contract import BlockInputError
from petground.models.blocks.fusion.parts import Attend, flat

__all__ = ["ScorePrediction", "region_means"]


def region_means(x: Tensor, region: Tensor, bins: int) -> Tensor:
    """X [B, C, Z, Y, X], region [B, 2, 3] (lower and upper corner, z y x in -1..1 of x's grid) -> [B, C, bins^3 grid].

    Each bin is the mean over the part of every voxel that lies in it: a voxel outside the region has no weight, and a
    bin smaller than a voxel has that voxel's value. The region has an extent, and some of it lies on the grid.
    """
    region = region.double()  # edges of small bins would fall together
    for axis in range(3):
        n = x.shape[axis + 2]
        low, high = (((region[:, end, axis] + 1.0) * 0.5 * n).clamp(0, n)[:, None] for end in (0, 1))
        steps = torch.arange(bins + 1, device=x.device).to(low.dtype) / bins
        edges = low + (high - low) * steps
        voxel = torch.arange(n, device=x.device).to(low.dtype)
        covered = torch.minimum(edges[:, 1:, None], voxel + 1.0) - torch.maximum(edges[:, :-1, None], voxel)
        covered = covered.clamp(min=0.0)
        weight = covered / covered.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(covered.dtype).tiny)
        x = torch.einsum("bc...n,bkn->bc...k", x.movedim(axis + 2, -1), weight.to(x.dtype)).movedim(-1, axis + 2)
    return x


class ScorePrediction(nn.Module):
    """score = sigmoid(MLP(Attn(Attn(token; region); tokens))) (MixFormer, arXiv 2203.11082, section 3.2).

    A learnt token reads the region's 4x4x4 means, then the sentence; no residual, as in the released code. The paper
    trains it afterwards, by binary cross-entropy on the frozen network, and so it is no part of the fusion's forward.

    Args:
        channels: of voxels and words.
        num_heads: must divide channels.
        bins: of the region, per axis.
    """

    def __init__(self, channels: int, num_heads: int = 1, bins: int = 4):
        super().__init__()
        self.bins = bins
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.seen = Attend(channels, num_heads)
        self.said = Attend(channels, num_heads)
        self.judge = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 1)
        )

    def forward(self, x: Tensor, words: Tensor, mask: Tensor, region: Tensor) -> Tensor:
        """X [B, C, Z, Y, X], words [B, P, C], mask [B, P] bool, region [B, 2, 3] -> scores in (0, 1), [B].

        Raises BlockInputError for a region that is not one box per entry, is empty, or lies outside the grid.
        """
        if tuple(region.shape) != (len(x), 2, 3) or not region.is_floating_point():
            what = f"is {region.dtype} {tuple(region.shape)}"
            raise BlockInputError("mixed_attention", "region", what, f"give corners {(len(x), 2, 3)}, z y x in -1..1")
        low, high = region.unbind(1)
        if not torch.compiler.is_compiling() and not bool(((low < high) & (low < 1.0) & (high > -1.0)).all()):
            remedy = "give lower < upper along z, y and x, some of it within -1..1"
            raise BlockInputError("mixed_attention", "region", "is empty or lies outside the grid", remedy)
        means = self.norms[0](flat(region_means(x, region, self.bins)))
        token = self.token.to(x.dtype).expand(len(x), -1, -1)
        token = self.said(self.seen(token, means), self.norms[1](words), mask)
        scores: Tensor = self.judge(token)[:, 0, 0].sigmoid()
        return scores

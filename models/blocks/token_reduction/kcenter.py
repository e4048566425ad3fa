"""A diverse few: each next voxel is the one farthest from those already chosen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels._shared.precision import autocast_off, widened
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.choose import budget, check_keep, most, real_voxels
from petground.models.blocks.token_reduction.maps import masked_mean
from petground.models.blocks.token_reduction.rest import keep_and_drop

__all__ = ["KCenterDiversity", "farthest_first"]


def farthest_first(
    tokens: Tensor, real: Tensor, count: int, start: Tensor, criterion: str = "radius"
) -> tuple[Tensor, Tensor]:
    """Places [B, count] in the order of choice, and the covering radius [B, count] once each was chosen.

    tokens: [B, N, C]; distances are chords between unit vectors, |x/|x| - y/|y||. start: [B, N], the greatest is first.
    radius: next is the voxel whose nearest chosen one is farthest (Gonzalez 1985); sum: the one with the greatest sum
    of distances to the chosen. Ties go to the lower place. When an exam has no voxel left the place is -1. In float32
    at least.
    """
    tokens = widened(tokens)
    length = tokens.norm(dim=-1, keepdim=True)
    unit = tokens / torch.where(length > 0, length, 1.0)
    square = unit.square().sum(dim=-1)
    nearest = torch.full_like(square, torch.inf)
    total = torch.zeros_like(square)
    free, following = real, start
    places, radii = [], []
    for _ in range(count):
        place = following.masked_fill(~free, -torch.inf).argmax(dim=1, keepdim=True)  # the first of equals
        places.append(torch.where(free.any(dim=1, keepdim=True), place, -1))
        free = free.scatter(1, place, False)
        chosen = unit.gather(1, place[..., None].expand(-1, -1, unit.shape[2]))
        with autocast_off(unit):
            dot = (unit @ chosen.transpose(1, 2))[..., 0]
        distance = (square + square.gather(1, place) - 2 * dot).clamp(min=0).sqrt()
        nearest, total = torch.minimum(nearest, distance), total + distance
        following = nearest if criterion == "radius" else total
        radii.append(nearest.masked_fill(~free, 0.0).amax(dim=1, keepdim=True))
    return torch.cat(places, dim=1), torch.cat(radii, dim=1)


class KCenterDiversity(nn.Module):
    """s_1 = the start; s_(t+1) = argmax_n min_(i <= t) |u_n - u_(s_i)|, u = x / |x|, k = ceil(keep * N) of them.

    ToDRE, arXiv 2505.18757 v1, section 3 (greedy k-center on cosine distance); with criterion "sum" v2's greedy max-sum
    diversification, sum in place of min. The covering radius is at most twice the best possible. The paper's start is
    not verified: here the voxel of the highest `scores`, without them the one farthest from the mean voxel. Its second
    stage (all voxels leave once the text has read them) is a stop of the cross-attention, not part of this block.
    k steps of O(N d), nothing else of a pair is held. The dropped get zeros back. No parameters.

    Args:
        channels: of the tokens.
        keep: share of the real voxels that stays, above 0, at most 1.
        criterion: "radius" (v1) or "sum" (v2).
        backend: of the kernels that choose and gather tokens.
    """

    key = "kcenter_diversity"
    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        keep: float = 0.1,
        criterion: Literal["radius", "sum"] = "radius",
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        self.keep = check_keep(self.key, keep)
        self.criterion = criterion
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
        """Tokens [B, N, C], scores [B, N] (where to start), mask [B, N] bool -> Reduced with K = ceil(keep * N)."""
        check_tokens(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        batch, count = tokens.shape[:2]
        real = real_voxels(tokens, mask)
        size = most(self.keep, count)
        with torch.no_grad():
            start = scores
            if start is None:
                wide = widened(tokens)
                start = (wide - masked_mean(wide, mask)[:, None]).norm(dim=-1)
            places, _ = farthest_first(tokens, real, size, start, self.criterion)
            beyond = torch.arange(size, device=tokens.device) >= budget(self.keep, real)[:, None]
            column = places.masked_fill(beyond, -1) + 1  # column 0 takes what is not chosen
            kept = torch.zeros(batch, count + 1, dtype=torch.bool, device=tokens.device).scatter(1, column, True)[:, 1:]
        return keep_and_drop(tokens, kept, size, self.backend)

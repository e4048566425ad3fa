"""AIM: tokens merged in halves by similarity, then pruned by their rank in the attention graph with the sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels.token_merge import gather_tokens, merge_tokens, unmerge_tokens
from petground.kernels.topk import topk_mask
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.bipartite import grid_targets, match, page_rank, places_of, softmax_rows
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.latents import sentence
from petground.models.blocks.token_reduction.maps import split_heads

__all__ = ["MergePrune", "retain_rate"]

KEY = "aim_merge_prune"


def retain_rate(layer: int, first: int, slope: float) -> float:
    """1 up to layer `first`, then falling by `slope` a layer, not below 0."""
    return min(1.0, max(0.0, 1.0 - slope * (layer - first)))


class MergePrune(nn.Module):
    """AIM (arXiv 2412.03248, sections 3.2 and 3.3); nothing is learnt.

    1. `merges` times: even places are sources, odd ones targets; the `ratio` of tokens (half of them at most) whose
       source is most like a target by cosine join it: x_t <- (n_t x_t + n_s x_s) / (n_t + n_s), n the voxels that
       each stands for.
    2. Attention graph of what is left and the sentence's tokens, A = softmax(q k^T / (sqrt(d) temperature)) with the
       normalised tokens as q and k and no link to itself, which would be nearly all. Importance s <- A^T s,
       `iterations` times from uniform (PageRank), heads combined by root mean square. The share
       max(0, 1 - slope (layer - first)) of highest importance stays. Text is in the graph and is never pruned.

    The un-merge copies a token's value to every voxel in it; pruned voxels get zeros. O(N^2) time; at once 1024 N
    numbers, or a whole graph of up to 2^24.

    Args:
        channels: of the tokens.
        merges: halvings (1: 50 %, 2: 25 %, 3: 12 %).
        ratio: share of the tokens that leaves in each, up to 0.5.
        split: "parity" as published, or "grid": in the first merge the targets are the first corners of cells of
            stride_zyx, as in token merging for diffusion (arXiv 2303.17604).
        stride_zyx: of those cells.
        sizes: weigh means by the voxels behind each token; the released code does not.
        layer, layers: place in the network.
        first: the layer from which pruning starts, the middle one when negative.
        slope: what the retain rate loses per layer.
        temperature, iterations: of the graph.
        heads: of the graph; must divide channels.
        backend: of the kernels that choose and gather tokens.
    """

    def __init__(
        self,
        channels: int,
        merges: int = 1,
        ratio: float = 0.5,
        split: Literal["parity", "grid"] = "parity",
        stride_zyx: Sequence[int] = (2, 2, 2),
        sizes: bool = True,
        layer: int = 3,
        layers: int = 4,
        first: int = -1,
        slope: float = 0.125,
        temperature: float = 0.1,
        iterations: int = 5,
        heads: int = 1,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(KEY, channels, heads)
        if not 0.0 <= ratio <= 1.0 or merges < 0 or (ratio > 0.5 and split == "parity"):
            raise ValueError(f"ratio={ratio} and merges={merges}: at most 0.5 of the tokens leave in a merge by parity")
        if len(stride_zyx) != 3 or min(stride_zyx) < 1:
            raise ValueError(f"stride_zyx={list(stride_zyx)}: three numbers of one or more")
        if not 0 <= layer < layers:
            raise ValueError(f"layer={layer} is none of layers={layers}, which count from 0")
        if temperature <= 0.0 or min(slope, iterations) < 0:
            raise ValueError(
                f"temperature={temperature} not positive, or slope={slope}, iterations={iterations} negative"
            )
        self.merges = merges
        self.ratio = ratio
        self.stride_zyx = tuple(stride_zyx) if split == "grid" else None
        self.sizes = sizes
        self.retain = retain_rate(layer, layers // 2 if first < 0 else first, slope)
        self.text_use: TextUse = "reads" if self.retain < 1.0 else "ignores"
        self.temperature = temperature
        self.iterations = iterations
        self.heads = heads
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
        """Tokens [B, N, C], mask [B, N] bool, text [B, P, C] -> Reduced; a merged token's `kept` is -1."""
        check_tokens(KEY, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        if self.stride_zyx is not None and grid is None:
            raise BlockInputError(KEY, "grid", "is missing", "give it, or use split: parity")
        words = sentence(KEY, tokens, text, text_mask)
        real = real_voxels(tokens, mask)
        own = places_of(real, tokens.shape[1] if mask is None else None, self.backend)
        assignment = (real.cumsum(1) - 1).masked_fill(~real, -1)
        sizes, short = (own >= 0).to(tokens.dtype), gather_tokens(tokens, own, backend=self.backend)
        for step in range(self.merges):
            there, count = sizes > 0, sizes.shape[1]
            most = ((count + 1) // 2, max(1, count // 2)) if self.stride_zyx is None else None
            targets = self._targets(step, own, there, grid)
            place = match(short, there, targets, self._leaving(there), most, self.backend)
            weights = sizes if self.sizes else None
            short, sizes = merge_tokens(short, place, weights, self._length(place), backend=self.backend)
            assignment = _follow(assignment, place)
        kept = _single(assignment, sizes.shape[1], tokens.shape[1])
        stay = self._prune(short, sizes > 0, words)
        places = places_of(stay, max(1, math.floor(self.retain * stay.shape[1] + 1e-6)), self.backend)
        slot = (stay.cumsum(1) - 1).masked_fill(~stay, -1)
        back = _follow(assignment, slot)
        here = places >= 0
        voxel = kept.gather(1, places.clamp(min=0)).masked_fill(~here, -1)
        short = gather_tokens(short, places, backend=self.backend)
        return Reduced(short, here, voxel, lambda values: unmerge_tokens(values, back, backend=self.backend))

    def _leaving(self, real: Tensor) -> Tensor:
        there = real.sum(1)
        wanted = (self.ratio * there.double() + 1e-6).floor().long()
        return wanted if self.stride_zyx is not None else torch.minimum(wanted, there // 2)

    def _length(self, place: Tensor) -> int:
        """Of the list that these new places make. By parity it is known beforehand; a compiled graph cannot look."""
        count = place.shape[1]
        if self.stride_zyx is None:
            return count - min(math.floor(self.ratio * count + 1e-6), count // 2)
        return count if torch.compiler.is_compiling() else max(1, int(place.max()) + 1)

    def _targets(self, step: int, own: Tensor, real: Tensor, grid: Grid | None) -> Tensor:
        if step == 0 and self.stride_zyx is not None and grid is not None:
            corners = grid_targets(grid, self.stride_zyx, own.device)
            return corners[own.clamp(min=0)] & real
        return (torch.arange(real.shape[1], device=real.device) % 2 == 1).expand_as(real) & real

    @torch.no_grad()
    def _prune(self, tokens: Tensor, real: Tensor, words: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, K] bool, True where a token stays."""
        if self.retain >= 1.0:
            return real
        every, there = tokens, real
        if words is not None:
            every, there = torch.cat([tokens, words[0].to(tokens)], 1), torch.cat([real, words[1]], 1)
        rows = softmax_rows(every, there, self.heads, self.temperature)
        rank = page_rank(rows, there, self.heads, self.iterations)[:, : real.shape[1]]
        count = (self.retain * real.sum(1).double() + 1e-6).floor().long()
        return topk_mask(rank, count, real, backend=self.backend)


def _follow(assignment: Tensor, place: Tensor) -> Tensor:
    """Each voxel's group after its group [B, N] has moved to `place` [B, K]; -1 stays -1."""
    moved = place.gather(1, assignment.clamp(min=0))
    return moved.masked_fill(assignment < 0, -1)


def _single(assignment: Tensor, groups: int, count: int) -> Tensor:
    """The voxel of each group that has one only [B, groups], -1 for every other group."""
    inside = assignment >= 0
    slot = assignment + 1
    members = torch.zeros(len(slot), groups + 1, dtype=torch.long, device=slot.device).scatter_add(
        1, slot, inside.long()
    )
    voxels = torch.arange(count, device=slot.device).expand_as(slot)
    total = torch.zeros_like(members).scatter_add(1, slot, voxels.masked_fill(~inside, 0))
    return torch.where(members == 1, total, -1)[:, 1:]

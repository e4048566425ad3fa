"""Bipartite soft matching and PageRank over tokens: who merges with whom, and who matters. Nothing N x N is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from petground.kernels._shared.precision import autocast_off, widened
from petground.kernels.token_merge import gather_tokens
from petground.kernels.topk import topk_indices, topk_mask
from petground.models.blocks.backend import TokenBackend
from petground.models.blocks.contract import Grid
from petground.models.blocks.token_reduction.rest import width_of

__all__ = ["best_partner", "grid_targets", "match", "page_rank", "places_of", "softmax_rows"]

CHUNK = 1024  # rows of similarities at a time
WHOLE = 2**24  # numbers of a graph that is held as a whole; a larger one is worked out again in each iteration


def places_of(mask: Tensor, size: int | None = None, backend: TokenBackend = "auto") -> Tensor:
    """Where a mask [B, N] is True, ascending: [B, size], -1 at the end. size: at least the most of any row, which is
    looked up where it is not known beforehand."""
    size = width_of(mask) if size is None else size
    flat = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return topk_indices(flat, size, mask, size=size, backend=backend)


def grid_targets(grid: Grid, stride_zyx: Sequence[int], device: torch.device) -> Tensor:
    """[N] bool: the first corner of each whole stride x stride x stride cell (Token Merging for Stable Diffusion,
    arXiv 2303.17604, section 4.1, without its randomness); voxels past the last whole cell are no targets."""
    axes = [
        (torch.arange(n, device=device) % s == 0) & (torch.arange(n, device=device) < n // s * s)
        for n, s in zip(grid.shape_zyx, stride_zyx, strict=True)
    ]
    return (axes[0][:, None, None] & axes[1][None, :, None] & axes[2][None, None, :]).flatten()


def best_partner(sources: Tensor, targets: Tensor, target_mask: Tensor) -> tuple[Tensor, Tensor]:
    """For unit vectors [B, S, C] the most similar of [B, T, C] with mask [B, T]: cosine [B, S], index [B, S].

    -inf where a row has no target. S T C time, S + T memory. Autocast would round likeness, so that places choose.
    """
    best, index = sources.new_empty(sources.shape[:2]), sources.new_empty(sources.shape[:2], dtype=torch.long)
    closed = torch.where(target_mask, 0.0, float("-inf")).to(sources.dtype)[:, None]
    for first in range(0, sources.shape[1], CHUNK):
        rows = slice(first, first + CHUNK)
        with autocast_off(sources):
            best[:, rows], index[:, rows] = torch.baddbmm(closed, sources[:, rows], targets.transpose(1, 2)).max(-1)
    return best, index


@torch.no_grad()
def match(
    metric: Tensor,
    real: Tensor,
    target: Tensor,
    count: Tensor,
    most: tuple[int, int] | None = None,
    backend: TokenBackend = "auto",
) -> Tensor:
    """One step of bipartite soft matching (ToMe, arXiv 2210.09461, section 3.2).

    The `count` sources (real, not target) that are most like some target join it; the others stay. Equal similarity:
    the lower place joins first.

    Args:
        metric: [B, K, C], compared by cosine, in float32 at least.
        real: [B, K] bool.
        target: [B, K] bool, which tokens may be joined.
        count: [B], how many sources leave; at most all of them.
        most: sources and targets that a row can have, where that is known beforehand.
        backend: of the kernels.

    Returns the new place of each token in the shorter list, which keeps the old order: [B, K] long, -1 for padding.
    """
    unit = normalize(widened(metric), dim=-1)
    sizes = most or (None, None)
    sources, targets = places_of(real & ~target, sizes[0], backend), places_of(real & target, sizes[1], backend)
    short = [gather_tokens(unit, places, backend=backend) for places in (sources, targets)]
    best, where = best_partner(short[0], short[1], targets >= 0)
    possible = (sources >= 0) & (targets[:, :1] >= 0)
    leaves = topk_mask(best, count, possible, backend=backend)
    left = torch.zeros(real.shape[0], real.shape[1] + 1, dtype=torch.bool, device=real.device)
    left = left.scatter(1, sources.masked_fill(~leaves, -1) + 1, True)[:, 1:]
    place = ((real & ~left).cumsum(1) - 1).masked_fill(~real, -1)
    joined = place.gather(1, targets.gather(1, where).clamp(min=0))  # [B, S]
    scratch = torch.cat([place[:, :1], place], 1)
    return scratch.scatter(1, sources.masked_fill(~leaves, -1) + 1, joined)[:, 1:]


@torch.no_grad()
def softmax_rows(tokens: Tensor, mask: Tensor, heads: int, temperature: float) -> Callable[[int, int], Tensor]:
    """Rows of the attention graph of tokens [B, K, C] on the others: (start, stop) -> [B, H, stop - start, K].

    softmax over j != i of (cos(x_i, x_j) sqrt(d) / temperature) in each head, a group of d channels. In float32 at
    least.
    """
    split = normalize(torch.unflatten(widened(tokens), -1, (heads, -1)).transpose(1, 2), dim=-1).flatten(0, 1)
    scale = split.shape[-1] ** 0.5 / temperature
    closed = torch.zeros_like(mask, dtype=split.dtype).masked_fill(~mask, float("-inf"))
    closed = closed.repeat_interleave(heads, 0)[:, None]
    alone = (mask.sum(1) < 2)[:, None, None, None]  # nobody to look at: 0 / 0

    def rows(start: int, stop: int) -> Tensor:
        with autocast_off(split):
            logits = torch.baddbmm(closed, split[:, start:stop], split.transpose(1, 2), alpha=scale)
        torch.diagonal(logits, start, 1, 2).fill_(float("-inf"))
        return torch.unflatten(logits.softmax(-1), 0, (-1, heads)).masked_fill(alone, 0.0)

    return rows


@torch.no_grad()
def page_rank(rows: Callable[[int, int], Tensor], mask: Tensor, heads: int, iterations: int) -> Tensor:
    """Importance of tokens: s <- A^T s from s = 1/K in each head, heads combined by their root mean square.

    A row-stochastic, so that a head's sum stays 1 (AIM, arXiv 2412.03248, section 3.3; no damping).

    Args:
        rows: (start, stop) -> rows of A [B, H, stop - start, K].
        mask: [B, K] bool; padding gives and gets nothing.
        heads: H.
        iterations: steps of the power method.
    """
    count = mask.shape[1]
    score = mask.to(rows(0, 1).dtype)[:, None].expand(-1, heads, -1)
    score = score / score.sum(-1, keepdim=True).clamp(min=1.0)
    if heads * count * count <= WHOLE:
        whole = rows(0, count)

        def rows(start: int, stop: int) -> Tensor:
            return whole[:, :, start:stop]

    for _ in range(iterations):
        passed = torch.zeros_like(score)
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            with autocast_off(score):
                passed = passed + (score[:, :, None, start:stop] @ rows(start, stop))[:, :, 0]
        score = passed
    return score.square().mean(1).sqrt()

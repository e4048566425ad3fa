"""What the order of tokens, and their places in the grid, mean to each block: nothing, or what stands here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from petground.models.blocks.contract import Block, Grid
from tests.models.conformance import attention_cases, reduction_cases

# Blocks that read order or grid, and the options with which they do not; None: they always do.
ATTENTION: dict[str, dict[str, Any] | None] = {
    "agent": None,  # agents are means over boxes
    "lightning_attention": {"decay_scale": 0.0},
    "lightning2": {"decay_scale": 0.0},
    "based": {"window": 0},
    "swin_window_3d": None,
    "swin_v2_cosine_3d": None,
    "halo": None,
    "lsda": None,
    "dual_window_channel": None,
    "bilevel_routing": None,  # regions
    "aggregated_attention": None,  # a neighbourhood, and pooled cells
    "duo": {"full_heads": [0, 1]},
    "moa_spans": None,
    "combiner": None,  # blocks and their summaries
    "core_context": None,
    "landmark": None,
    "routing": {"local_heads": 0},
    "sparsifiner": None,  # a basis over the grid
}
TOKEN_REDUCTION: dict[str, dict[str, Any] | None] = {
    "fopru": {"strategy": "rank"},  # else whole rows or slices
    "hiprune": {"alpha": 0.0},  # else neighbours
    "vflowopt": None,  # entropy of a neighbourhood
    "aim_merge_prune": {"merges": 0},  # else pairs of even and odd places
    "recoverable_compression": {"sample": 105},  # all; else some voxels stand for all, evenly apart
    "lookup": None,  # a resized grid
    "perturbed_topk_tubes": None,
    "similarity_resampler": {"links": False},  # else windows
    "sparseformer_roi": None,
}
GRID = Grid((3, 5, 7), (4.0, 2.0, 2.0))
ORDER = torch.randperm(GRID.tokens, generator=torch.Generator().manual_seed(0))


def among(cases: list[Any], reading: dict[str, Any], reads: bool) -> list[Any]:
    return [case for case in cases if (case.values[0].key in reading) == reads]


def self_attention(block: Block, grid: Grid | None, order: Tensor, **options: Any) -> Tensor:
    """Of tokens in this order; the parameters do not move."""
    module = attention_cases.made(block, **options)
    with torch.no_grad():
        out: Tensor = module(*(attention_cases.tokens(105, seed=seed)[:, :, order] for seed in (1, 2, 3)), grid=grid)[0]
    return out


def reduction(block: Block, grid: Grid | None, order: Tensor, scored: bool, **options: Any) -> tuple[Tensor, Tensor]:
    """What comes back, [B, N, C], and which voxels have kept their place, [B, N]."""
    tokens, given = reduction_cases.asked(GRID.shape_zyx)
    scores = given["scores"][:, order] if scored else None
    with torch.no_grad():
        reduced = reduction_cases.made(block, **options)(tokens[:, order], **{**given, "grid": grid, "scores": scores})
        kept = torch.zeros(2, GRID.tokens + 1, dtype=torch.bool)  # the last: what has no place
        kept.scatter_(1, torch.where(reduced.mask & (reduced.kept >= 0), reduced.kept, GRID.tokens), True)
        return reduction_cases.back(reduced), kept[:, :-1]


def test_the_lists_name_blocks() -> None:
    for cases, reading in ((attention_cases.SELF, ATTENTION), (reduction_cases.ALL, TOKEN_REDUCTION)):
        assert set(reading) <= {case.id for case in cases}


@pytest.mark.parametrize("grid", [None, GRID], ids=["a row", "a grid"])
@pytest.mark.parametrize("block", among(attention_cases.SELF, ATTENTION, False))
def test_self_attention_follows_its_tokens(block: Block, grid: Grid | None) -> None:
    """Without an order of its own it is a map of sets: tokens in another order give the same, in that order."""
    plain = self_attention(block, grid, torch.arange(105))
    assert torch.allclose(self_attention(block, grid, ORDER), plain[:, :, ORDER], atol=1e-9)


@pytest.mark.parametrize("block", among(attention_cases.SELF, ATTENTION, True))
def test_self_attention_that_reads_places(block: Block) -> None:
    """It does; and with what reads them switched off, where that is an option, it follows its tokens."""
    plain = self_attention(block, GRID, torch.arange(105))
    assert (self_attention(block, GRID, ORDER) - plain[:, :, ORDER]).norm() > 0.03 * plain.norm()
    without = ATTENTION[block.key]
    if without is not None:
        plain = self_attention(block, GRID, torch.arange(105), **without)
        assert torch.allclose(self_attention(block, GRID, ORDER, **without), plain[:, :, ORDER], atol=1e-9)


@pytest.mark.parametrize("scored", [True, False], ids=["scores", "its own"])
@pytest.mark.parametrize("block", among(reduction_cases.ALL, TOKEN_REDUCTION, False))
def test_a_token_reduction_follows_its_tokens(block: Block, scored: bool) -> None:
    plain, kept = reduction(block, None, torch.arange(105), scored)
    turned, turned_kept = reduction(block, None, ORDER, scored)
    assert torch.equal(turned_kept, kept[:, ORDER])
    assert torch.allclose(turned, plain[:, ORDER], atol=1e-9)


@pytest.mark.parametrize("block", among(reduction_cases.ALL, TOKEN_REDUCTION, True))
def test_a_token_reduction_that_reads_places(block: Block) -> None:
    def moved(**options: Any) -> tuple[float, bool]:
        plain, kept = reduction(block, GRID, torch.arange(105), True, **options)
        turned, turned_kept = reduction(block, GRID, ORDER, True, **options)
        away = (turned - plain[:, ORDER]).norm() / plain.norm()
        return float(away), torch.equal(turned_kept, kept[:, ORDER])

    away, _ = moved()
    assert away > 0.03
    without = TOKEN_REDUCTION[block.key]
    if without is not None:
        away, same = moved(**without)
        assert away < 1e-9
        assert same

"""How spans of heads are chosen: exact changes of the map, and the best choice within a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from petground.models import build
from petground.models.blocks.attention.span_profile import (
    SpanCandidate,
    change_without,
    choose_spans,
    influence,
    kept_share,
    loss_of_span,
    span_keeps,
)
from petground.models.blocks.contract import Grid


def a_map(count: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.randn(2, 3, count, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return scores, scores.softmax(-1)


@pytest.mark.parametrize("key", [0, 4, 8])
def test_the_change_is_that_of_the_map_with_the_key_masked(key: int) -> None:
    scores, weights = a_map()
    change = change_without(weights, key)
    assert torch.allclose(change.sum(-1), torch.zeros(2, 3, 9).double(), atol=1e-12)
    scores[..., key] = float("-inf")
    assert torch.allclose(weights + change, scores.softmax(-1), atol=1e-12)


def test_influence_is_the_sum_over_the_changes() -> None:
    _, weights = a_map()
    gradient = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.stack([(gradient * change_without(weights, j)).sum(-1) for j in range(9)], dim=-1)
    assert torch.allclose(influence(weights, gradient), wanted, atol=1e-12)
    lone = torch.eye(3).double()  # a key with all of a row's weight
    assert torch.isfinite(influence(lone, torch.ones_like(lone))).all()


def test_influence_tells_the_change_of_a_loss_that_is_linear_in_the_map() -> None:
    scores, weights = a_map()
    values = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradient = values.expand_as(weights)
    told = influence(weights, gradient)[..., 5].sum()
    scores[..., 5] = float("-inf")
    assert torch.allclose(told, (scores.softmax(-1) @ values - weights @ values).sum(), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_kept_keys_are_those_that_the_block_sees(causal: bool) -> None:
    shape = (1, 1, 24) if causal else (3, 4, 5)
    candidates = [SpanCandidate(1, 0.0), SpanCandidate(1, 0.25)]
    options = {"base": [c.base for c in candidates], "growth": [c.growth for c in candidates]}
    module = build(
        "attention",
        "moa_spans",
        channels=8,
        num_heads=2,
        sinks=2,
        span=options["base"],
        radius=options["base"],
        growth=options["growth"],
    )
    grid = Grid(shape)
    q = torch.randn(1, 2, grid.tokens, 4)
    _, weights = module(q, q, q, grid=grid, causal=causal, need_weights=True)
    for head, candidate in enumerate(candidates):
        keep = span_keeps(candidate, shape, 2, causal=causal)
        assert torch.equal(weights[0, head] > 0, keep)
        most = grid.tokens * (grid.tokens + 1) / 2 if causal else grid.tokens**2
        assert kept_share(candidate, shape, 2, causal=causal) == pytest.approx(int(keep.sum()) / most)


def test_the_choice_is_the_best_of_all_within_the_budget() -> None:
    chance = np.random.default_rng(0)
    heads, candidates = 4, 3
    shares = {(4, 4, 4): [0.1, 0.4, 1.0], (8, 8, 8): [0.05, 0.3, 1.0]}
    losses = {size: np.sort(chance.random((heads, candidates)), axis=1)[:, ::-1].copy() for size in shares}
    total = sum(one / one.max() for one in losses.values())
    for budget in (0.12, 0.3, 0.45, 0.8, 1.0):
        chosen = choose_spans(losses, shares, budget)
        for size in shares:
            assert np.mean([shares[size][c] for c in chosen]) <= budget + 1e-9
        allowed = (
            choice
            for choice in itertools.product(range(candidates), repeat=heads)
            if all(np.mean([shares[size][c] for c in choice]) <= budget + 1e-9 for size in shares)
        )
        best = min(sum(total[h, c] for h, c in enumerate(choice)) for choice in allowed)
        assert sum(total[h, c] for h, c in enumerate(chosen)) == pytest.approx(best)
    assert choose_spans(losses, shares, 1.0) == [2] * heads
    with pytest.raises(ValueError, match=r"budget=0\.01"):
        choose_spans(losses, shares, 0.01)


def test_loss_of_a_span_counts_what_it_leaves_out() -> None:
    influences = torch.arange(16.0).reshape(1, 4, 4)
    keep = torch.eye(4, dtype=torch.bool)
    assert loss_of_span(influences, keep).tolist() == [120.0 - 30.0]

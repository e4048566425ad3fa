"""Reductions with a structure of their own: what HiPrune, FlowCut, VFlowOpt and TransPrune promise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from petground.models import build
from petground.models.blocks.contract import BlockInputError, Grid, Reduced
from petground.models.blocks.token_reduction.choose import keep_hierarchy, neighbours
from petground.models.blocks.token_reduction.entropy import neighbourhood_entropy
from petground.models.blocks.token_reduction.flowcut import flow_chain
from petground.models.blocks.token_reduction.search import bayesian_search
from petground.models.blocks.token_reduction.token_transition import transition_variation
from petground.models.blocks.token_reduction.vflowopt import VFlowOpt, agreement, global_attention, stage_ratios

GRID = Grid((3, 4, 5))
N, C = GRID.tokens, 8


def inputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, N, C, generator=generator, dtype=torch.float64),
        torch.randn(2, 4, C, generator=generator, dtype=torch.float64),
    )


def reduce(key: str, tokens: Tensor, options: dict[str, Any] | None = None, **given: Any) -> Reduced:
    return build("token_reduction", key, channels=C, **(options or {}))(tokens, grid=GRID, **given)


def kept(reduced: Reduced, row: int = 0) -> list[int]:
    own = reduced.kept[row][reduced.mask[row]]
    return own[own >= 0].tolist()


def around(n: int) -> set[int]:
    z, y, x = n // 20, n // 5 % 4, n % 5
    steps = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    places = [(z + a, y + b, x + c) for a, b, c in steps]
    return {p * 20 + q * 5 + r for p, q, r in places if 0 <= p < 3 and 0 <= q < 4 and 0 <= r < 5}


def test_neighbours_are_in_3d_and_never_wrap() -> None:
    for n in range(N):
        chosen = torch.zeros(1, N, dtype=torch.bool)
        chosen[0, n] = True
        assert set(neighbours(chosen, GRID)[0].nonzero()[:, 0].tolist()) == around(n)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("wanted", [1, 6, 7, 20, 59, 60])
def test_hiprune_keeps_exactly_m_with_every_neighbour(wanted: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(wanted)
    middle, deep = (torch.rand(1, N, generator=generator) for _ in range(2))
    real = torch.ones(1, N, dtype=torch.bool)
    chosen = keep_hierarchy(middle, deep, real, GRID, torch.tensor([wanted]), alpha)[0]
    assert int(chosen.sum()) == wanted
    anchors = middle[0].topk(min(round(wanted * alpha / 7), wanted // 7)).indices.tolist()
    assert all(around(n) <= set(chosen.nonzero()[:, 0].tolist()) for n in anchors)
    if alpha == 0:
        assert sorted(deep[0].topk(wanted).indices.tolist()) == chosen.nonzero()[:, 0].tolist()


def test_hiprune_at_the_end_of_a_row() -> None:
    """Voxel 4 ends a row; index + 1 is the start of the next one and no neighbour."""
    middle, deep = torch.zeros(2, N), torch.zeros(2, N)
    middle[:, 4] = 1.0
    deep[:, 30:] = 1.0
    scores = torch.stack([middle, deep], dim=1).double()
    reduced = reduce("hiprune", inputs()[0], {"keep": 10 / N, "alpha": 0.7}, scores=scores)
    own = kept(reduced)
    assert around(4) == {3, 4, 9, 24} <= set(own)
    assert 5 not in own
    assert sorted(set(own) - around(4)) == list(range(30, 36))


def test_hiprune_needs_the_grid() -> None:
    with pytest.raises(BlockInputError, match=r"^hiprune: grid is missing; .*neighbours"):
        build("token_reduction", "hiprune", channels=C)(inputs()[0])


def chain(layers: Tensor, target: int, values: Tensor | None = None, every: int = 2) -> list[Tensor]:
    batch, _, count = layers.shape
    real = torch.ones(batch, count, dtype=torch.bool)
    values = torch.ones(batch, count, 2, dtype=layers.dtype) if values is None else values
    semantic = torch.full((batch, count), 1 / count, dtype=layers.dtype)
    return flow_chain(layers, semantic, values, real, torch.full((batch,), target), every)


def test_flowcut_prunes_nothing_on_a_uniform_map() -> None:
    sets = chain(torch.full((1, 6, 50), 1 / 50), 5)
    assert [int(one.sum()) for one in sets] == [50, 50, 50]


def test_flowcut_prunes_its_share_on_a_focused_map() -> None:
    layers = torch.zeros(1, 6, 100, dtype=torch.float64)
    layers[..., 17] = 1.0
    sets = chain(layers, 10)
    n, expected = 100, []
    for left in (3, 2, 1):
        n -= round((n - 10) / math.sqrt(left))
        expected.append(n)
    assert [int(one.sum()) for one in sets] == expected
    assert expected[-1] == 10
    assert all(one[0, 17] for one in sets)


def test_flowcut_falls_along_a_chain_never_below_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = torch.rand(3, 8, 60, generator=generator, dtype=torch.float64).pow(12)
    sets = chain(layers, 9, torch.randn(3, 60, 2, generator=generator, dtype=torch.float64))
    assert len(sets) == 4
    assert all(bool((after <= before).all()) for before, after in pairwise(sets))
    assert all(int(one.sum(1).min()) >= 9 for one in sets)
    assert int(sets[-1].sum()) < int(sets[0].sum())


def test_flowcut_gives_an_empty_value_no_score() -> None:
    layers = torch.rand(1, 1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(20)
    values = torch.ones(1, 40, 2, dtype=torch.float64)
    best = int(layers[0, 0].argmax())
    assert chain(layers, 5, values, every=1)[0][0, best]
    values[0, best] = 0.0
    assert not chain(layers, 5, values, every=1)[0][0, best]


def test_flowcut_in_a_batch_keeps_what_each_exam_needs() -> None:
    tokens, _ = inputs()
    scores = torch.full((2, N), 1 / N, dtype=torch.float64)
    scores[1] = 0.0
    scores[1, 33] = 1.0
    reduced = reduce("flowcut", tokens, {"keep": 0.1}, scores=scores)
    assert [len(kept(reduced, row)) for row in range(2)] == [N, 6]
    assert 33 in kept(reduced, 1)


def test_entropy_is_zero_where_all_is_equal_and_by_hand_where_not() -> None:
    tokens = torch.ones(1, N, C, dtype=torch.float64)
    assert neighbourhood_entropy(tokens, None, GRID).abs().max() == 0
    tokens[0, 0] = 5.0  # a corner: its neighbourhood holds 8 voxels, one of them bright
    entropy = neighbourhood_entropy(tokens, None, GRID)[0]
    assert entropy[0].item() == pytest.approx(-(1 / 8) * math.log(1 / 8) - (7 / 8) * math.log(7 / 8))
    assert entropy[1 + 5 + 20].item() == pytest.approx(-(1 / 27) * math.log(1 / 27) - (26 / 27) * math.log(26 / 27))
    assert entropy[59] == 0
    assert neighbourhood_entropy(tokens, None, None).abs().max() == 0


def test_vflowopt_without_entropy_and_threshold_is_mean_received_attention() -> None:
    tokens, _ = inputs()
    plain = build("token_reduction", "vflowopt", channels=C, alpha=0.0, threshold=0.0)
    received = (tokens @ tokens.transpose(1, 2) / C**0.5).softmax(-1).mean(1)
    assert isinstance(plain, VFlowOpt)
    assert torch.allclose(plain.importance(tokens, None, GRID, None), received)


def test_global_voxels_alone_speak() -> None:
    tokens, _ = inputs()
    attention = (tokens @ tokens.transpose(1, 2) / C**0.5).softmax(-1)
    received = attention.mean(1)
    for row in range(2):
        speakers = received[row] > 1.2 * received[row].mean()
        assert 0 < int(speakers.sum()) < N
        expected = attention[row, speakers].mean(0)
        assert torch.allclose(global_attention(tokens, None, 1, 1.2)[row], expected)


@pytest.mark.parametrize("stages", [1, 3])
def test_vflowopt_recycles_weighted_means_of_all_it_prunes(stages: int) -> None:
    tokens, _ = inputs()
    block = build("token_reduction", "vflowopt", channels=C, keep=0.2, stages=stages, recycled=3)
    assert isinstance(block, VFlowOpt)
    weight = block.importance(tokens, None, GRID, None)
    reduced = block(tokens, grid=GRID)
    assert len(kept(reduced)) == 12
    assert reduced.tokens.shape[1] == 12 + 3 * stages
    assert math.prod(stage_ratios(0.2, stages)) == pytest.approx(0.2)
    back = reduced.unmerge(reduced.tokens)
    total = (weight[..., None] * tokens).sum(1)
    assert torch.allclose((weight[..., None] * back).sum(1), total)  # each group gives back what it took
    recycled = reduced.tokens[0, 12:]
    rest = [n for n in range(N) if n not in kept(reduced)]
    assert {tuple(row.tolist()) for row in back[0, rest]} == {tuple(row.tolist()) for row in recycled}
    means, sizes = [], []
    for one in recycled:
        members = (back[0] == one).all(-1).nonzero()[:, 0]
        means.append((weight[0, members, None] * tokens[0, members]).sum(0) / weight[0, members].sum())
        sizes.append(len(members))
    assert torch.allclose(torch.stack(means), recycled)
    assert sum(sizes) == N - 12


def test_the_objective_is_best_without_pruning_and_the_search_finds_its_top() -> None:
    logits = torch.randn(2, 3, 4, 5)
    assert torch.allclose(agreement(logits, logits), torch.ones(2))
    assert (agreement(logits + torch.randn_like(logits), logits) < 0.999).all()
    peak = [0.3, -1.2]
    best, value = bayesian_search(
        lambda p: -((p[0] - peak[0]) ** 2) - (p[1] - peak[1]) ** 2, [(0.0, 1.0), (-3.0, 0.0)], trials=25
    )
    assert value > -0.02
    assert best == pytest.approx(peak, abs=0.15)
    again, _ = bayesian_search(
        lambda p: -((p[0] - peak[0]) ** 2) - (p[1] - peak[1]) ** 2, [(0.0, 1.0), (-3.0, 0.0)], trials=25
    )
    assert again == best
    assert bayesian_search(lambda _: 1.0, [(0.0, 1.0)], trials=10)[1] == 1.0


def test_a_search_over_the_block_prefers_to_keep() -> None:
    tokens, _ = inputs()

    def objective(point: list[float]) -> float:
        reduced = reduce("vflowopt", tokens, {"keep": point[0], "alpha": point[1]})
        return float(agreement(reduced.unmerge(reduced.tokens), tokens).mean())

    best, value = bayesian_search(objective, [(0.1, 1.0), (0.0, 2.0)], trials=10, first=5)
    assert value > objective([0.1, 1.0])
    assert objective([1.0, 1.0]) == pytest.approx(1.0)
    assert best[0] > 0.7


def test_a_block_that_does_nothing_gives_equal_transitions() -> None:
    tokens, _ = inputs()
    assert torch.allclose(transition_variation(tokens, tokens), torch.full((2, N), 1 / N, dtype=torch.float64))
    mask = torch.arange(N).expand(2, -1) < 10
    assert torch.allclose(transition_variation(tokens, tokens, mask), mask.double() / 10)


def test_transition_by_hand_and_in_proportion_to_length() -> None:
    tokens, _ = inputs()
    after = torch.randn(2, N, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = transition_variation(tokens, after)
    cosine = (tokens * after).sum(-1) / tokens.norm(dim=-1) / after.norm(dim=-1)
    turned = (1 - cosine).exp()
    assert torch.allclose(found, after.norm(dim=-1) / tokens.norm(dim=-1) * turned / turned.sum(1, keepdim=True))
    louder = after.clone()
    louder[:, 7] *= 3.5
    ratio = transition_variation(tokens, louder) / found
    assert torch.allclose(ratio[:, 7], torch.full((2,), 3.5, dtype=torch.float64))
    assert torch.allclose(ratio[:, 8:], torch.ones(2, N - 8, dtype=torch.float64))


def test_token_transition_scores_sum_to_one_and_may_ignore_the_text() -> None:
    tokens, text = inputs()
    block = build("token_reduction", "token_transition", channels=C)
    assert torch.allclose(block.score(tokens, None, None, text, None).sum(1), torch.ones(2, dtype=torch.float64))
    deaf = {"text_weight": 0.0, "keep": 0.3}
    assert torch.equal(
        reduce("token_transition", tokens, deaf, text=text).kept, reduce("token_transition", tokens, deaf).kept
    )
    only = reduce("token_transition", tokens, {"text_weight": 1.0, "keep": 0.3}, text=text)
    words = (text @ tokens.transpose(1, 2) / C**0.5).softmax(-1).mean(1)
    assert kept(only) == sorted(words[0].topk(18).indices.tolist())


def test_token_transition_adds_up_given_modules() -> None:
    tokens, _ = inputs()
    layers = torch.rand(2, 4, N, dtype=torch.float64)
    reduced = reduce("token_transition", tokens, {"keep": 0.25}, scores=layers)
    assert kept(reduced) == sorted(layers[0].sum(0).topk(15).indices.tolist())
    with pytest.raises(BlockInputError, match=r"^token_transition: scores"):
        reduce("token_transition", tokens, scores=layers[:, :0])

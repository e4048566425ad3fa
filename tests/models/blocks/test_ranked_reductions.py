"""Reductions that rank by a map: what EViT, FasterVLM, VTC-CLS, FoPru and the schedules promise."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from petground.models import build
from petground.models.blocks.contract import BlockError, BlockInputError, Grid, Reduced
from petground.models.blocks.token_reduction import maps
from petground.models.blocks.token_reduction.maps import class_attention, received_attention
from petground.models.blocks.token_reduction.schedules import fit_p_sigmoid, g_search, p_sigmoid, warm_up_keep
from tests.models.conformance.memory import largest_tensor

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


KEYS = ["evit_fuse", "cls_topk", "cls_topk_ensemble", "fopru", "hiprune", "vflowopt", "kcenter_diversity"]


@pytest.mark.parametrize("key", [*KEYS, "token_transition", "gsearch_psigmoid"])
def test_a_keep_rate_of_one_is_the_identity(key: str) -> None:
    tokens, text = inputs()
    reduced = reduce(key, tokens, {"keep": 1.0}, text=text)
    assert torch.equal(reduced.tokens, tokens)
    assert reduced.mask.all()
    assert kept(reduced) == list(range(N))
    values = torch.randn(2, N, 3, dtype=torch.float64)
    assert torch.equal(reduced.unmerge(values), values)


@pytest.mark.parametrize("key", ["evit_fuse", "cls_topk", "cls_topk_ensemble", "fopru", "token_transition", "vflowopt"])
def test_kept_sets_are_nested_and_in_order(key: str) -> None:
    tokens, text = inputs()
    options = {"stages": 1} if key == "vflowopt" else {}
    sets = [kept(reduce(key, tokens, {"keep": k / N, **options}, text=text)) for k in range(1, N + 1)]
    assert [len(one) for one in sets] == list(range(1, N + 1))
    assert all(one == sorted(one) for one in sets)
    assert all(set(small) < set(large) for small, large in pairwise(sets))


def test_evit_fuses_exactly_the_dropped() -> None:
    tokens, text = inputs()
    reduced = reduce("evit_fuse", tokens, {"keep": 0.3}, text=text)
    k = math.ceil(0.3 * N)
    assert reduced.tokens.shape == (2, k + 1, C)
    weight = (text.mean(1, keepdim=True) @ tokens.transpose(1, 2) / C**0.5).softmax(-1)[:, 0]
    values = torch.randn(2, k + 1, 2, dtype=torch.float64)
    back = reduced.unmerge(values)
    for row in range(2):
        own = kept(reduced, row)
        assert own == sorted(weight[row].topk(k).indices.tolist())
        rest = [n for n in range(N) if n not in own]
        fused = (weight[row, rest, None] * tokens[row, rest]).sum(0)
        assert torch.allclose(reduced.tokens[row, -1], fused, atol=1e-12)
        assert reduced.kept[row, -1] == -1
        assert torch.equal(back[row, rest], values[row, -1:].expand(len(rest), -1))
        assert torch.equal(back[row, own], values[row, :k])


def test_evit_passes_gradients_through_the_fusing_weights() -> None:
    tokens, text = inputs()
    text.requires_grad_()
    reduced = reduce("evit_fuse", tokens, {"keep": 0.3}, text=text)
    reduced.tokens[:, -1].square().sum().backward()
    assert text.grad is not None
    assert text.grad.abs().sum() > 0


def test_evit_warms_up_from_everything() -> None:
    rates = [warm_up_keep(step / 10, 0.7) for step in range(11)]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.7)
    assert all(a > b for a, b in pairwise(rates))


def test_cls_topk_does_not_ask_the_sentence_unless_told() -> None:
    tokens, text = inputs()
    first = reduce("cls_topk", tokens, text=text)
    assert torch.equal(first.kept, reduce("cls_topk", tokens, text=-3 * text).kept)
    assert torch.equal(first.kept, reduce("cls_topk", tokens).kept)
    asked = [reduce("cls_topk", tokens, {"query": "text"}, text=sign * text).kept for sign in (1, -1)]
    assert not torch.equal(*asked)


def test_class_attention_by_hand() -> None:
    tokens, _ = inputs()
    query, heads = torch.randn(2, C, dtype=torch.float64), 2
    maps = [
        (tokens[..., part] @ query[:, part, None] / (C // heads) ** 0.5).softmax(1)[..., 0]
        for part in (slice(0, 4), slice(4, 8))
    ]
    assert torch.allclose(class_attention(query, tokens, None, heads), sum(maps) / heads)


def test_an_ensemble_of_one_is_cls_topk_and_order_of_layers_does_not_matter() -> None:
    tokens, _ = inputs()
    assert torch.equal(reduce("cls_topk_ensemble", tokens, {"levels": 1}).kept, reduce("cls_topk", tokens).kept)
    layers = torch.rand(2, 3, N, dtype=torch.float64)
    one = reduce("cls_topk_ensemble", tokens, scores=layers[:, 1:2])
    assert torch.equal(one.kept, reduce("cls_topk", tokens, scores=layers[:, 1]).kept)
    whole = reduce("cls_topk_ensemble", tokens, scores=layers)
    assert torch.equal(whole.kept, reduce("cls_topk_ensemble", tokens, scores=layers[:, [2, 0, 1]]).kept)
    silent = layers * torch.tensor([1.0, 0.0, 1.0])[:, None]
    without = reduce("cls_topk_ensemble", tokens, scores=layers[:, [0, 2]])
    assert torch.equal(reduce("cls_topk_ensemble", tokens, scores=silent).kept, without.kept)
    assert not torch.equal(whole.kept, without.kept)


def test_resolutions_of_the_ensemble_differ() -> None:
    tokens, _ = inputs()
    whole = reduce("cls_topk_ensemble", tokens)
    assert torch.equal(whole.kept, reduce("cls_topk_ensemble", tokens, {"levels": 3}).kept)
    assert not torch.equal(
        reduce("cls_topk_ensemble", tokens, {"levels": 1}).kept, reduce("cls_topk_ensemble", tokens, {"levels": 3}).kept
    )


def test_fopru_ranks_by_received_attention() -> None:
    tokens, _ = inputs()
    received = (tokens @ tokens.transpose(1, 2) / C**0.5).softmax(-1).mean(1)
    assert torch.allclose(received_attention(tokens, None), received)
    reduced = reduce("fopru", tokens, {"keep": 0.2})
    assert kept(reduced) == sorted(received[0].topk(12).indices.tolist())
    order = torch.randperm(N, generator=torch.Generator().manual_seed(5))
    turned = reduce("fopru", tokens[:, order], {"keep": 0.2})
    assert sorted(order[turned.kept[0]].tolist()) == kept(reduced)


@pytest.mark.parametrize(("strategy", "length", "planes"), [("row", 5, 12), ("slice", 20, 3)])
def test_fopru_keeps_whole_rows_and_slices(strategy: str, length: int, planes: int) -> None:
    tokens, _ = inputs()
    scores = torch.rand(2, N, dtype=torch.float64)
    reduced = reduce("fopru", tokens, {"strategy": strategy, "keep": 0.34}, scores=scores)
    best = scores[0].reshape(planes, length).sum(1).topk(math.ceil(0.34 * planes)).indices
    assert kept(reduced) == sorted(p * length + i for p in best.tolist() for i in range(length))


def test_fopru_without_a_grid_has_no_slices() -> None:
    tokens, _ = inputs()
    block = build("token_reduction", "fopru", channels=C, strategy="slice")
    with pytest.raises(BlockInputError, match=r"^fopru: grid is missing"):
        block(tokens)


@pytest.mark.parametrize("key", ["fopru", "hiprune", "vflowopt", "flowcut", "kcenter_diversity", "token_transition"])
def test_nothing_of_the_size_of_all_pairs_is_held(key: str) -> None:
    grid = Grid((16, 16, 16))
    tokens, text = torch.randn(1, grid.tokens, C), torch.randn(1, 4, C)
    block = build("token_reduction", key, channels=C)
    with torch.no_grad(), largest_tensor() as made:
        block(tokens, grid=grid, text=text)
    assert made.numbers <= grid.tokens**2 / 8


def test_a_received_map_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, _ = inputs()
    whole = received_attention(tokens, None, 2)
    monkeypatch.setattr(maps, "_CHUNK", 7 * 2 * 2 * N)
    assert torch.allclose(received_attention(tokens, None, 2), whole)


def test_a_sample_of_voxels_asks() -> None:
    tokens, _ = inputs()
    some = (tokens[:, ::5] @ tokens.transpose(1, 2) / C**0.5).softmax(-1).mean(1)
    assert torch.allclose(received_attention(tokens, None, sample=12), some)
    assert kept(reduce("fopru", tokens, {"keep": 0.2, "sample": 12})) == sorted(some[0].topk(12).indices.tolist())
    assert torch.equal(received_attention(tokens, None, sample=10**6), received_attention(tokens, None))
    for key in ("hiprune", "vflowopt"):
        reduce(key, tokens, {"sample": 7})
        with pytest.raises(BlockError, match=f"{key}: sample=-1"):
            build("token_reduction", key, channels=C, sample=-1)


def test_padding_does_not_count_in_the_budget() -> None:
    tokens, text = inputs()
    mask = torch.ones(2, N, dtype=torch.bool)
    mask[0, 20:] = False
    reduced = reduce("evit_fuse", tokens, {"keep": 0.5}, text=text, mask=mask)
    assert len(kept(reduced, 0)) == 10
    assert len(kept(reduced, 1)) == 30


@pytest.mark.parametrize("steepness", [0.5, 8.0, 60.0])
@pytest.mark.parametrize("mean", [0.1, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("layers", [1, 3, 28])
def test_p_sigmoid_falls_within_bounds_and_meets_the_budget(layers: int, mean: float, steepness: float) -> None:
    rates = fit_p_sigmoid(layers, mean, steepness, minimum=0.05)
    assert len(rates) == layers
    assert all(a >= b for a, b in pairwise(rates))
    assert min(rates) >= 0.05
    assert max(rates) <= 1
    assert sum(rates) / layers == pytest.approx(mean, abs=1e-6)
    counts = [math.ceil(rate * 1000) for rate in rates]
    assert abs(sum(counts) / layers - 1000 * mean) <= 1 + 1e-3


def test_p_sigmoid_by_hand() -> None:
    assert p_sigmoid(3, 0.5, 4.0) == pytest.approx([1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(2))])
    with pytest.raises(ValueError, match="minimum <= mean"):
        fit_p_sigmoid(3, 0.1, 8.0, minimum=0.2)


@pytest.mark.parametrize("needed", [[50, 20, 20, 3], [64, 64, 1, 1], [1, 1, 1, 1]])
def test_g_search_finds_the_analytic_optimum(needed: list[int]) -> None:
    calls = 0

    def metric(counts: Any) -> float:
        nonlocal calls
        calls += 1
        return -float(sum(max(0, n - c) for n, c in zip(needed, counts, strict=True)))

    assert g_search(metric, 4, 64) == needed
    assert calls <= 1 + 4 * 7


def test_g_search_with_no_tolerance_keeps_all_that_matters() -> None:
    assert g_search(lambda counts: float(sum(counts)), 3, 40) == [40, 40, 40]
    assert g_search(lambda counts: float(sum(counts)), 3, 40, tolerance=3.0) == [39, 39, 39]


def test_the_schedule_reaches_the_block() -> None:
    tokens, text = inputs()
    rates = fit_p_sigmoid(3, 0.5, 8.0, 0.05)
    sizes = [len(kept(reduce("gsearch_psigmoid", tokens, {"layer": layer}, text=text))) for layer in range(3)]
    assert sizes == [math.ceil(rate * N - 1e-9) for rate in rates]
    assert (
        len(kept(reduce("gsearch_psigmoid", tokens, {}, text=text))) == sizes[1] < 0.6 * N
    )  # the middle one: it reduces
    assert len(kept(reduce("gsearch_psigmoid", tokens, {"rates": [0.5, 0.1], "layer": 1}, text=text))) == 6
    for wrong in ({"layer": 3}, {"rates": [0.1, 0.5]}, {"rates": [1.5]}):
        with pytest.raises(BlockError, match="gsearch_psigmoid"):
            build("token_reduction", "gsearch_psigmoid", channels=C, **wrong)


@pytest.mark.parametrize("key", [*KEYS, "flowcut"])
def test_options_that_make_no_sense_are_refused(key: str) -> None:
    for wrong in ({"keep": 0.0}, {"keep": 1.2}):
        with pytest.raises(BlockError, match=key):
            build("token_reduction", key, channels=C, **wrong)
    if key != "kcenter_diversity":
        with pytest.raises(BlockError, match="heads=3 does not divide"):
            build("token_reduction", key, channels=C, heads=3)


@pytest.mark.parametrize("key", ["evit_fuse", "cls_topk", "flowcut", "token_transition", "ia_red2", "gsearch_psigmoid"])
def test_a_text_that_does_not_fit_is_named(key: str) -> None:
    tokens, text = inputs()
    block = build("token_reduction", key, channels=C).double()
    for argument, given in (
        ("text", {"text": text[..., :3]}),
        ("text", {"text": text[:1]}),
        ("text", {"text": text.float()}),
        ("text_mask", {"text": text, "text_mask": torch.ones(2, 4)}),
        ("text_mask", {"text": text, "text_mask": torch.ones(2, 5, dtype=torch.bool)}),
    ):
        with pytest.raises(BlockInputError, match=rf"^{key}: {argument} is .*; "):
            block(tokens, **given)

"""Merging reductions: aim_merge_prune and recoverable_compression."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from petground.models.blocks.contract import Grid
from petground.models.blocks.token_reduction.aim import MergePrune, retain_rate
from petground.models.blocks.token_reduction.bipartite import page_rank
from petground.models.blocks.token_reduction.outliers import density_peaks, high_outliers, local_outlier_factor
from petground.models.blocks.token_reduction.recover import RecoverableCompression
from tests.models.conformance.memory import largest_tensor

MERGE_ONLY = {"layer": 0, "layers": 4}


def _tokens(count: int = 105, batch: int = 2, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(batch, count, 8, dtype=torch.float64)


@pytest.mark.parametrize("merges", [1, 2, 3])
def test_merging_keeps_the_mean_and_constants(merges: int) -> None:
    tokens = _tokens()
    mask = torch.ones(2, 105, dtype=torch.bool)
    mask[0, 50:60] = False
    reduced = MergePrune(8, merges=merges, **MERGE_ONLY)(tokens, mask=mask)
    back = reduced.unmerge(reduced.tokens)
    for row in range(2):
        assert torch.allclose(back[row][mask[row]].mean(0), tokens[row][mask[row]].mean(0), atol=1e-12)
    constant = torch.ones_like(tokens) * 3.25
    reduced = MergePrune(8, merges=merges, **MERGE_ONLY)(constant)
    assert torch.allclose(reduced.unmerge(reduced.tokens), constant, atol=1e-14)
    left = 105
    for _ in range(merges):
        left -= left // 2
    assert reduced.tokens.shape[1] == left


def test_unweighted_means_are_the_released_codes() -> None:
    """Four voxels in two steps, first three and then the fourth: sizes tell 1/4 each from 1/6, 1/6, 1/6, 1/2."""
    tokens = torch.zeros(1, 4, 8, dtype=torch.float64)
    tokens[0, :, 0] = 1.0  # all like each other
    tokens[0, :, 1] = torch.tensor([0.001, 0.002, 0.03, -0.03])  # 0 and 2 are most like 1
    for sizes, shares in ((True, [1 / 4, 1 / 4, 1 / 4, 1 / 4]), (False, [1 / 6, 1 / 6, 1 / 6, 1 / 2])):
        reduced = MergePrune(8, merges=2, sizes=sizes, **MERGE_ONLY)(tokens)
        assert torch.allclose(reduced.tokens[0], torch.tensor([shares], dtype=torch.float64) @ tokens[0], atol=1e-12)


def test_no_merging_is_the_identity() -> None:
    tokens = _tokens()
    for options in ({"merges": 0}, {"ratio": 0.0}):
        reduced = MergePrune(8, **options, **MERGE_ONLY)(tokens)
        assert torch.equal(reduced.tokens, tokens)
        assert torch.equal(reduced.kept, torch.arange(105).expand(2, -1))
        assert torch.equal(reduced.unmerge(reduced.tokens), tokens)


def test_identical_tokens_of_opposite_parity_merge_first() -> None:
    tokens = _tokens(20, batch=1)
    tokens[0, 13] = tokens[0, 4]
    reduced = MergePrune(8, ratio=0.05, **MERGE_ONLY)(tokens)  # one pair
    assert reduced.tokens.shape[1] == 19
    assert set(range(20)) - set(reduced.kept[0].tolist()) == {4, 13}
    tokens = _tokens(20, batch=1)
    tokens[0, 14] = tokens[0, 4]  # the same parity: never compared
    assert {4, 14} != set(range(20)) - set(MergePrune(8, ratio=0.05, **MERGE_ONLY)(tokens).kept[0].tolist())


def test_merging_as_tomesd_does_in_two_dimensions() -> None:
    merge = pytest.importorskip("tomesd.merge", reason="tomesd is missing: extra peers")
    for height, width, cell, ratio in ((6, 8, 2, 0.5), (7, 9, 2, 0.3), (9, 9, 3, 0.6)):
        count = height * width
        tokens = _tokens(count)
        leaving = int(ratio * count + 1e-6)
        forth, back = merge.bipartite_soft_matching_random2d(tokens, width, height, cell, cell, leaving, no_rand=True)
        ours = MergePrune(8, split="grid", stride_zyx=(1, cell, cell), ratio=ratio, **MERGE_ONLY)(
            tokens, grid=Grid((1, height, width))
        )
        assert ours.tokens.shape[1] == forth(tokens).shape[1]
        assert torch.allclose(ours.unmerge(ours.tokens), back(forth(tokens)), atol=1e-12)


def test_page_rank() -> None:
    torch.manual_seed(0)
    mask = torch.ones(2, 6, dtype=torch.bool)
    turn = torch.eye(6, dtype=torch.float64)[torch.randperm(6)] * 0.7 + 0.05  # doubly stochastic
    uniform = page_rank(lambda a, b: turn[a:b].expand(2, 3, -1, -1), mask, 3, 5)
    assert torch.allclose(uniform, torch.full((2, 6), 1 / 6, dtype=torch.float64))
    rows = torch.rand(2, 1, 6, 6, dtype=torch.float64).softmax(-1)
    rank = page_rank(lambda a, b: rows[:, :, a:b], mask, 1, 5)
    assert torch.allclose(rank.sum(1), torch.ones(2, dtype=torch.float64))
    left = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    for _ in range(5):
        left = torch.einsum("bij,bi->bj", rows[:, 0], left)
    assert torch.allclose(rank, left)


def test_pruning_rate_and_the_sentence() -> None:
    assert [retain_rate(layer, 2, 0.125) for layer in (0, 2, 3, 6, 10, 12)] == [1.0, 1.0, 0.875, 0.5, 0.0, 0.0]
    torch.manual_seed(1)
    tokens = torch.randn(2, 40, 64, dtype=torch.float64)
    others = torch.linalg.qr(torch.cat([tokens[:, 5:6], torch.randn(2, 6, 64)], 1).transpose(1, 2)).Q[..., 1:]
    text = normalize(tokens[:, 5:6], dim=-1) + others.transpose(1, 2)  # six words, most like voxel 5
    options = {"merges": 0, "layer": 9, "layers": 10, "first": 2, "iterations": 1}  # an eighth stays
    with_text = MergePrune(64, **options)(tokens, text=text)
    assert with_text.mask.sum(1).tolist() == [5, 5]  # of the voxels; no word is among them, none is counted
    assert all(5 in row for row in with_text.kept.tolist())
    gone = with_text.unmerge(torch.ones(2, 5, 1, dtype=torch.float64))[..., 0] == 0
    assert gone.sum(1).tolist() == [35, 35]
    all_gone = MergePrune(64, merges=0, layer=9, layers=10, first=0)(tokens)
    assert not all_gone.mask.any()
    assert not all_gone.unmerge(torch.ones(2, all_gone.tokens.shape[1], 3, dtype=torch.float64)).any()


def test_no_map_of_all_pairs_is_held() -> None:
    tokens = torch.randn(1, 12 * 16 * 16, 8)
    count = tokens.shape[1]
    for module in (MergePrune(8, iterations=1), RecoverableCompression(8, clusters=4, sample=256)):
        with largest_tensor() as made, torch.no_grad():
            module(tokens, text=torch.randn(1, 4, 8))
        assert made.numbers <= 1024 * count, (type(module).__name__, made.shape)
        assert made.numbers < count * count / 2


# recoverable compression


def test_kept_recovered_and_merged_are_a_partition() -> None:
    tokens, scores = _tokens(200), torch.rand(2, 200, dtype=torch.float64)
    scores[:, [3, 70]] = torch.tensor([6.0, 5.0], dtype=torch.float64)
    text = torch.randn(2, 4, 8, dtype=torch.float64)
    tokens[0, 11] = 3.0 * text[0].mean(0)
    mask = torch.ones(2, 200, dtype=torch.bool)
    mask[:, 190:] = False
    module = RecoverableCompression(8, clusters=6)
    words = (text, torch.ones(2, 4, dtype=torch.bool))
    kept, recovered = module.choose(tokens, mask, scores, words)
    reduced = module(tokens, scores=scores, mask=mask, text=text)
    values = torch.randn(2, reduced.tokens.shape[1], 3, dtype=torch.float64)
    back = reduced.unmerge(values)
    assert not (kept & recovered).any()
    assert kept[:, [3, 70]].all()
    assert recovered[0, 11]
    for row in range(2):
        stays = (kept | recovered)[row]
        own = reduced.kept[row][reduced.mask[row]]
        assert own[own >= 0].tolist() == stays.nonzero()[:, 0].tolist()
        group = [int((values[row] == one).all(1).nonzero()[0, 0]) for one in back[row, :190]]
        for slot in range(reduced.tokens.shape[1]):
            members = [n for n, g in enumerate(group) if g == slot]
            if members:  # every real voxel lies in exactly one token, which is the mean of its voxels
                assert torch.allclose(reduced.tokens[row, slot], tokens[row, members].mean(0), atol=1e-12)
        assert (back[row, 190:] == 0).all()


@pytest.mark.parametrize("many", [1, 5, 60])
def test_voxels_along_the_sentence_are_always_recovered(many: int) -> None:
    tokens, text = _tokens(200, batch=1), torch.randn(1, 4, 8, dtype=torch.float64)
    tokens[0, 20 : 20 + many] = text.mean(1) * torch.linspace(0.5, 3.0, many, dtype=torch.float64)[:, None]
    _, recovered = RecoverableCompression(8).choose(
        tokens, torch.ones(1, 200, dtype=torch.bool), torch.zeros(1, 200).double(), (text, torch.ones(1, 4) > 0)
    )
    assert recovered[0, 20 : 20 + many].all()


def test_all_alike_is_all_merged() -> None:
    reduced = RecoverableCompression(8, clusters=4)(torch.ones(1, 50, 8), scores=torch.zeros(1, 50))
    assert (reduced.kept == -1).all()
    assert reduced.mask.any()
    assert torch.allclose(reduced.unmerge(reduced.tokens), torch.ones(1, 50, 8))


def test_outlier_factor_is_scikit_learns() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is not installed")
    torch.manual_seed(0)
    values = torch.cat([torch.randn(180), 6 + 0.1 * torch.randn(20)]).double()
    for k in (5, 20):
        model = neighbors.LocalOutlierFactor(n_neighbors=k, algorithm="brute").fit(values[:, None].numpy())
        mask = torch.ones(1, 230, dtype=torch.bool)
        mask[:, 200:] = False
        padded = torch.cat([values, torch.full((30,), 99.0).double()])[None]
        ours = local_outlier_factor(padded, mask, k)[0]
        assert torch.allclose(ours[:200], torch.from_numpy(-model.negative_outlier_factor_), rtol=1e-4)
        assert (ours[200:] == 0).all()


def test_a_whole_hot_group_counts_once_something_below_it_stands_out() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.rand(300), torch.tensor([3.0]), 10 + 0.01 * torch.rand(60)])[None].double()
    high = high_outliers(values, torch.ones(1, 361, dtype=torch.bool), 20, 1.5)[0]
    assert high[300:].all()  # sixty like voxels are dense, no outliers by themselves
    assert high[:300].sum() <= 5  # at most the bulk's own fringe


def test_density_peaks_find_the_groups() -> None:
    torch.manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).double()
    points = (middles[:, None] + 0.3 * torch.randn(3, 30, 2).double()).flatten(0, 1)[None]
    centres = density_peaks(points, torch.ones(1, 90, dtype=torch.bool), 3, 5)[0]
    assert sorted((centres // 30).tolist()) == [0, 1, 2]

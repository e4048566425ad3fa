"""Top-k selection: the right places, in a fixed order of ties, never padding."""

from __future__ import annotations

import itertools

import pytest
import torch

from petground.kernels.cross_attention import BackendUnavailableError, KernelInputError
from petground.kernels.topk import TOPK_BACKENDS, topk_indices, topk_mask


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 7, 63, 1000])
def test_as_sorted_by_hand(count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    scores = torch.randn(3, count, generator=generator).to(dtype)  # bfloat16 has many ties at 1000
    k = (count + 2) // 3
    for row, places in zip(scores.tolist(), topk_indices(scores, k).tolist(), strict=True):
        order = sorted(range(count), key=lambda n: (-row[n], n))
        assert places == sorted(order[:k])


def test_ties_go_to_the_lower_place_and_padding_is_never_chosen() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    mask = torch.tensor([[True] * 5, [False, True, True, False, False]])
    assert topk_indices(scores, torch.tensor([2, 3]), mask, size=4).tolist() == [[1, 2, -1, -1], [1, 2, -1, -1]]
    assert topk_mask(scores, 2, mask).tolist() == [[False, True, True, False, False]] * 2


def test_what_is_no_number_ranks_last_and_minus_infinity_is_real() -> None:
    scores = torch.tensor([[float("nan"), float("-inf"), 0.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert topk_indices(scores, 1, mask).tolist() == [[2]]
    assert topk_indices(scores, 3, mask).tolist() == [[0, 1, 2]]
    assert topk_indices(scores, 4, mask).tolist() == [[0, 1, 2, -1]]
    alike = torch.tensor([[float("nan"), torch.finfo(torch.float32).min, float("-inf")]])
    for order in itertools.permutations(range(3)):
        assert topk_indices(alike[:, list(order)], 1).tolist() == [[0]]


def test_sets_are_nested_in_k() -> None:
    scores = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)).mul(8).round()  # ties
    chosen = [topk_mask(scores, k) for k in range(41)]
    assert all(bool((small <= large).all()) for small, large in itertools.pairwise(chosen))
    assert [int(one[0].sum()) for one in chosen] == list(range(41))


def test_bad_input_is_named() -> None:
    scores = torch.rand(2, 5)
    for wrong, what in (
        (lambda: topk_indices(scores[0], 2), "scores"),
        (lambda: topk_indices(scores.long(), 2), "scores"),
        (lambda: topk_indices(scores, -1), "k is -1"),
        (lambda: topk_indices(scores, torch.tensor([1, 2])), "size"),
        (lambda: topk_indices(scores, torch.tensor([1.0, 2.0]), size=2), "k is"),
        (lambda: topk_indices(scores, 2, size=6), "size is 6"),
        (lambda: topk_mask(scores, 2, torch.ones(2, 4, dtype=torch.bool)), "mask"),
    ):
        with pytest.raises(KernelInputError, match=what):
            wrong()
    with pytest.raises(BackendUnavailableError, match=TOPK_BACKENDS[0]):
        topk_mask(scores, 1, backend="cuda")

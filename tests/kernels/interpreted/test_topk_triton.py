"""Top-k selection by Triton: the same places as the stable sort, ties and values that are no numbers included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from petground.kernels.topk import topk_indices, topk_mask


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory, all of it whole numbers here, holds ones: what a kernel does not write is seen."""
    original = Tensor.new_empty

    def ones(tensor: Tensor, *shape: Any, **options: Any) -> Tensor:
        return original(tensor, *shape, **options).fill_(1)

    with patch.object(Tensor, "new_empty", ones):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 130, 4100])
def test_equals_reference(count: int, dtype: torch.dtype) -> None:
    made = torch.Generator().manual_seed(count)
    scores = torch.randn(3, count, generator=made).to(dtype)  # 16 bits have ties at 4100
    scores[1] = scores[1].mul(2).round()  # nearly all tied, with 0 and -0
    mask = torch.rand(3, count, generator=made) > 0.3
    mask[2] = False
    k = torch.tensor([(count + 2) // 3, count - 1, 5])
    with poisoned():
        for given in (None, mask):
            for number in (k, 1):
                found = topk_mask(scores, number, given, backend="triton")
                assert torch.equal(found, topk_mask(scores, number, given, backend="reference"))
        found = topk_indices(scores, k, mask, size=count, backend="triton")
        assert torch.equal(found, topk_indices(scores, k, mask, size=count, backend="reference"))
        few = topk_indices(scores, k, None, size=1, backend="triton")  # fewer columns than k
        assert torch.equal(few, topk_indices(scores, k, None, size=1, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_no_number_ranks_last_and_signs_of_zero_tie(dtype: torch.dtype) -> None:
    inf, nan, low = float("inf"), float("nan"), torch.finfo(dtype).min
    scores = torch.tensor([[nan, -inf, low, -0.0, 0.0, inf, -1.0, 1.0], [nan, -inf, nan, -0.0, inf, -0.0, inf, low]])
    scores = scores.to(dtype)
    for k in range(9):
        found = topk_indices(scores, k, backend="triton")
        assert torch.equal(found, topk_indices(scores, k, backend="reference")), k


def test_scores_apart_in_memory() -> None:
    scores = torch.randn(40, 6)[::2].t()
    mask = torch.rand(20, 6).t() > 0.4
    assert not scores.is_contiguous()
    found = topk_indices(scores, 7, mask, backend="triton")
    assert torch.equal(found, topk_indices(scores, 7, mask, backend="reference"))


def test_nothing_to_choose_from() -> None:
    assert topk_indices(torch.empty(2, 0), 3, backend="triton").shape == (2, 0)
    assert topk_indices(torch.empty(0, 4), 3, backend="triton").shape == (0, 3)
    assert topk_mask(torch.randn(2, 5), 0, backend="triton").sum() == 0


def test_no_gradient_and_opcheck() -> None:
    scores = torch.randn(2, 9, requires_grad=True)
    assert not topk_mask(scores, 2, backend="triton").requires_grad
    op = torch.ops.petground.topk.default
    torch.library.opcheck(op, (scores.detach(), torch.tensor([2, 3]), 4, scores > 0, 4, True))
    torch.library.opcheck(op, (scores.detach().t(), None, 1, None, 2, False))

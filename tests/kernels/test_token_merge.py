"""Gather, scatter, merge and un-merge: worked by hand, exact where promised, gradients, bad places."""

from __future__ import annotations

import pytest
import torch

from petground.kernels.cross_attention import BackendUnavailableError, KernelInputError
from petground.kernels.token_merge import gather_tokens, merge_tokens, scatter_tokens, unmerge_tokens


def _tokens(count: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gather_and_scatter_are_each_others_way_back(dtype: torch.dtype) -> None:
    tokens = _tokens(dtype=dtype)
    places = torch.tensor([[5, 0, -1], [2, 3, 4]])
    got = gather_tokens(tokens, places)
    assert torch.equal(got[0], torch.stack([tokens[0, 5], tokens[0, 0], torch.zeros(3, dtype=dtype)]))
    back = scatter_tokens(got, places, 6)
    assert torch.equal(back[0, [5, 0]], tokens[0, [5, 0]])
    assert back[0, 1:5].abs().max() == 0
    over = scatter_tokens(got, places, 6, fill=torch.full_like(back, 7))
    assert (over[0, 1:5] == 7).all()
    assert torch.equal(over[1, 2:5], tokens[1, 2:5])


def test_means_and_sizes_by_hand() -> None:
    tokens = torch.tensor([[[2.0], [4.0], [10.0], [100.0], [7.0]]])
    assignment = torch.tensor([[0, 0, 2, -1, 2]])
    weights = torch.tensor([[1.0, 3.0, 0.0, 5.0, 0.25]])
    means, sizes = merge_tokens(tokens, assignment, weights, 3)
    assert means[0, :, 0].tolist() == [3.5, 0.0, 7.0]  # (2 + 12) / 4; nobody; the only one of weight
    assert sizes.tolist() == [[4.0, 0.0, 0.25]]
    assert unmerge_tokens(means, assignment)[0, :, 0].tolist() == [3.5, 3.5, 7.0, 0.0, 7.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_group_of_one_is_its_member_bit_for_bit(dtype: torch.dtype) -> None:
    tokens = _tokens(50, dtype)
    assignment = torch.randperm(50, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    weights = torch.rand(2, 50, generator=torch.Generator().manual_seed(2)).to(dtype) + 1e-3
    means, _ = merge_tokens(tokens, assignment, weights, 50)
    assert torch.equal(unmerge_tokens(means, assignment), tokens)


def test_sizes_count_on_in_low_precision() -> None:
    tokens = torch.ones(1, 1000, 1, dtype=torch.bfloat16)
    means, sizes = merge_tokens(tokens, torch.zeros(1, 1000, dtype=torch.long), None, 1)
    assert sizes.item() == 1000.0  # bfloat16 stops counting at 256
    assert means.item() == pytest.approx(1.0, abs=1e-2)


def test_the_weighted_sum_is_kept() -> None:
    tokens, weights = _tokens(), torch.rand(2, 6, dtype=torch.float64)
    means, sizes = merge_tokens(tokens, torch.tensor([[0, 1, 1, 0, 2, 2]] * 2), weights, 3)
    assert torch.allclose((means * sizes[..., None]).sum(1), (tokens * weights[..., None]).sum(1))


def test_gradients_and_nothing_from_nowhere() -> None:
    tokens = _tokens().requires_grad_()
    weights = (torch.rand(2, 6, dtype=torch.float64) + 0.1).requires_grad_()
    groups = torch.tensor([[0, 1, 1, -1, 2, 0]] * 2)

    def there_and_back(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        means, sizes = merge_tokens(x, groups, w, 4)
        return unmerge_tokens(means, groups) * sizes.sum()

    assert torch.autograd.gradcheck(there_and_back, (tokens, weights))
    places = torch.tensor([[1, -1], [5, 2]])
    assert torch.autograd.gradcheck(lambda x: scatter_tokens(gather_tokens(x, places), places, 7), (tokens,))
    gather_tokens(tokens, torch.full((2, 1), -1)).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().max() == 0
    loud = _tokens()
    loud[:, 3] = float("nan")  # in no group
    assert torch.isfinite(merge_tokens(loud, groups, None, 4)[0]).all()


def test_bad_input_is_named() -> None:
    tokens, places = _tokens(), torch.zeros(2, 2, dtype=torch.long)
    for wrong, what in (
        (lambda: gather_tokens(tokens[0], places), "tokens"),
        (lambda: gather_tokens(tokens, places.int()), "places"),
        (lambda: gather_tokens(tokens, places + 6), "places holds 6, expected below 6"),
        (lambda: scatter_tokens(tokens[:, :2], places + 9, 9), "places holds 9"),
        (lambda: scatter_tokens(tokens, places, 9), "K=6"),
        (lambda: scatter_tokens(tokens[:, :2], places, 9, fill=tokens), "fill"),
        (lambda: merge_tokens(tokens, places, None, 3), "assignment"),
        (lambda: merge_tokens(tokens, torch.full((2, 6), 3), None, 3), "assignment holds 3"),
        (lambda: merge_tokens(tokens, torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 5), 3), "weights"),
        (lambda: unmerge_tokens(tokens, torch.full((2, 9), 6)), "assignment holds 6"),
    ):
        with pytest.raises(KernelInputError, match=what):
            wrong()
    with pytest.raises(BackendUnavailableError, match="reference"):
        gather_tokens(tokens, places, backend="no_such")


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    tokens = _tokens(dtype=torch.float32)
    groups = torch.tensor([[0, 1, 1, -1, 2, 0]] * 2)
    torch._dynamo.reset()
    whole = torch.compile(
        lambda x: unmerge_tokens(merge_tokens(x, groups, None, 3)[0], groups), fullgraph=True, backend="aot_eager"
    )
    assert torch.allclose(whole(tokens), unmerge_tokens(merge_tokens(tokens, groups, None, 3)[0], groups))

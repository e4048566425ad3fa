"""Attention over keys in parts: any partition in any order is the whole."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from petground.kernels.split_attention import Part, finish, merge, prefix_attention
from tests.models.conformance.memory import largest_tensor


def heads(count: int, seed: int, wide: float = 1.0) -> torch.Tensor:
    torch.manual_seed(seed)
    return wide * torch.randn(2, 3, count, 4, dtype=torch.float64)


def attend_part(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> Part:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    largest = scores.amax(dim=-1, keepdim=True)
    terms = torch.exp(scores - largest.masked_fill(largest == float("-inf"), 0.0))
    return largest, terms.sum(dim=-1, keepdim=True), terms @ v


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=12), st.randoms(use_true_random=False))
def test_any_partition_in_any_order_is_the_whole(owner: list[int], chance: object) -> None:
    q, k, v = heads(5, 1), heads(12, 2, 4.0), heads(12, 3)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 5:] = False
    parts = [[i for i, own in enumerate(owner) if own == part] for part in set(owner)]
    chance.shuffle(parts)  # type: ignore[attr-defined]
    left = [attend_part(q, k[:, :, part], v[:, :, part], mask[:, part]) for part in parts]
    truth = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    assert torch.allclose(finish(reduce(merge, left)), truth, atol=1e-12)


def test_merge_is_associative_commutative_and_has_a_neutral_element() -> None:
    q = heads(5, 1)
    a, b, c = (attend_part(q, heads(n, n, 30.0), heads(n, n + 1)) for n in (1, 4, 9))
    none = attend_part(q, heads(3, 7), heads(3, 8), torch.zeros(2, 3, dtype=torch.bool))
    for one, other in ((merge(merge(a, b), c), merge(a, merge(b, c))), (merge(a, b), merge(b, a)), (merge(a, none), a)):
        for x, y in zip(one, other, strict=True):
            assert torch.allclose(x, y, atol=1e-12)
    assert torch.equal(finish(merge(none, none)), torch.zeros(2, 3, 5, 4, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33])
def test_prefixes(count: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    k, v = heads(count, 2, 3.0).requires_grad_(), heads(count, 3).requires_grad_()
    mask = torch.rand(2, count) > 0.3
    mask[:, 0] = True
    mask[1, 0] = count == 1
    out = prefix_attention(q, k, v, mask)
    query = q[None, :, None].expand(2, -1, -1, -1)
    rows = []
    for t in range(1, count + 1):
        keep = mask[:, None, None, :t]
        some = keep.any(-1, keepdim=True)
        rows.append(scaled_dot_product_attention(query, k[:, :, :t], v[:, :, :t], attn_mask=keep | ~some) * some)
    truth = torch.cat(rows, dim=2)
    assert torch.allclose(out, truth, atol=1e-12)
    push = torch.randn_like(out)
    for one, other in zip(
        torch.autograd.grad(out, (q, k, v), push), torch.autograd.grad(truth, (q, k, v), push), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-11)


def test_memory_of_very_many_keys() -> None:
    q, k, v = torch.randn(1, 8), torch.randn(1, 1, 20000, 8), torch.randn(1, 1, 20000, 8)
    with largest_tensor() as made:
        prefix_attention(q, k, v)
    assert made.numbers <= 2 * k.numel(), made.shape


def test_half_precision_scores_are_not_rounded() -> None:
    """Two keys whose dot products are 199.75 and 200.25: steps of bfloat16 there are 1."""
    q = torch.ones(1, 4, dtype=torch.bfloat16)
    k = torch.tensor([[200.0, -0.25, 0.0, 0.0], [200.0, 0.25, 0.0, 0.0]], dtype=torch.bfloat16).view(1, 1, 2, 4)
    v = torch.tensor([0.0, 1.0], dtype=torch.bfloat16).view(1, 1, 2, 1)
    share = torch.sigmoid(torch.tensor(0.25)).item()
    assert prefix_attention(q, k, v)[0, 0, 1, 0].item() == pytest.approx(share, rel=4e-3)


def test_half_precision_sums_of_more_keys_than_it_can_count() -> None:
    ones = torch.ones(1, 1, 70000, 1, dtype=torch.float16)
    assert torch.equal(prefix_attention(ones[0, :, 0], ones, ones), ones)

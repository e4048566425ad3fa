"""Attention over keys in parts: any partition in any order is the whole."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels.split_attention import attend_part, finish, merge, prefix_attention, split_attention
from tests.models.conformance.memory import largest_tensor


def heads(count: int, seed: int, wide: float = 1.0) -> torch.Tensor:
    torch.manual_seed(seed)
    return wide * torch.randn(2, 3, count, 4, dtype=torch.float64)


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


@pytest.mark.parametrize(
    ("backend", "size"), [("reference", 1), ("reference", 3), ("reference", 17), ("reference", 4096), ("sdpa", 1)]
)
def test_split_size_changes_nothing_gradients_included(backend: str, size: int) -> None:
    q, k, v = (heads(n, n).requires_grad_() for n in (5, 17, 17))
    mask = torch.rand(2, 17) > 0.4
    mask[0] = False
    out = split_attention(q, k, v, mask=mask, split_size=size, backend=backend)
    truth = scaled_dot_product_attention(q[1:], k[1:], v[1:], attn_mask=mask[1:, None, None])
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    assert torch.allclose(out[1:], truth, atol=1e-12)
    push = torch.randn_like(out)
    mine = torch.autograd.grad(out, (q, k, v), push)
    theirs = torch.autograd.grad(truth, (q, k, v), push[1:])
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one[1:], other[1:], atol=1e-12)
        assert torch.isfinite(one).all()


def test_scores_of_ten_thousand_do_not_overflow() -> None:
    q, k, v = (one.float() for one in (heads(5, 1, 300.0), heads(17, 2, 300.0), heads(17, 3)))
    assert torch.allclose(
        split_attention(q, k, v, split_size=4, backend="reference"), scaled_dot_product_attention(q, k, v), atol=1e-5
    )


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


def test_memory_of_few_queries_and_very_many_keys() -> None:
    q, k, v = torch.randn(1, 1, 64, 8), torch.randn(1, 1, 20000, 8), torch.randn(1, 1, 20000, 8)
    with largest_tensor() as made:
        split_attention(q, k, v, split_size=512, backend="reference")
    assert made.numbers <= 64 * 512 + k.numel(), made.shape
    with largest_tensor() as made:
        prefix_attention(q[0, :, 0], k, v)
    assert made.numbers <= 2 * k.numel(), made.shape


def test_wrong_inputs() -> None:
    q, k, v = heads(5, 1), heads(9, 2), heads(9, 3)
    with pytest.raises(KernelInputError, match="split_size"):
        split_attention(q, k, v, split_size=0)
    with pytest.raises(KernelInputError, match="keys"):
        split_attention(q, k, v[:, :, 1:])
    with pytest.raises(BackendUnavailableError, match="reference"):
        split_attention(q, k, v, backend="cuda")

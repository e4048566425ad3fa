"""Gather, scatter, merge and un-merge by Triton against PyTorch's own: outputs, gradients, exactness where promised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petground.kernels.token_merge import gather_tokens, merge_tokens, scatter_tokens, unmerge_tokens
from tests.kernels.comparing import LIMITS, assert_gradients_close, poisoned

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# batch, tokens, channels, groups: one of each; groups of several pieces; more channels than a block; empty groups
SIZES = [(1, 1, 1, 1), (2, 99, 5, 3), (1, 30, 70, 40), (2, 37, 33, 7)]
CASES = [(size, torch.float32) for size in SIZES] + [(SIZES[3], dtype) for dtype in DTYPES[1:]]


def made(size: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with the channels first in memory, groups (-1: none), weights with some zeros."""
    batch, count, width, groups = size
    generator = torch.Generator().manual_seed(sum(size))
    tokens = torch.randn(batch, width, count, generator=generator).to(dtype).transpose(1, 2)
    assignment = torch.randint(-1, groups, (batch, count), generator=generator)
    assignment[:, : count // 2] = assignment[:, :1]  # one large group
    weights = torch.rand(batch, count, generator=generator)
    weights[:, 1:4] = 0.0
    return tokens, assignment, weights


def compare(fused: object, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    with poisoned():
        assert_gradients_close(
            lambda **t: fused(**t, backend="triton"),
            lambda **t: fused(**t, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_merge_and_unmerge(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    tokens, assignment, weights = made(size, dtype)

    def there_and_back(tokens: Tensor, weights: Tensor | None = None, *, backend: str) -> Tensor:
        means, sizes = merge_tokens(tokens, assignment, weights, size[3], backend=backend)
        back = unmerge_tokens(means, assignment, backend=backend)
        return torch.cat([back * 1.5, tokens * tokens], 1).float() * (1.0 + sizes.mean().to(torch.float32) * 0.01)

    compare(there_and_back, {"tokens": tokens, "weights": weights}, dtype)
    compare(there_and_back, {"tokens": tokens}, dtype)
    with poisoned():
        sizes = merge_tokens(tokens, assignment, weights, size[3], backend="triton")[1]
    truth = merge_tokens(tokens, assignment, weights, size[3], backend="reference")[1]
    assert sizes.dtype == torch.float32
    assert torch.allclose(sizes, truth, rtol=1e-6)


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_gather_and_scatter(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    tokens, places, _ = made(size, dtype)
    places = places.clamp(max=size[1] - 1)  # many alike: their gradients add up
    compare(lambda tokens, backend: gather_tokens(tokens, places, backend=backend), {"tokens": tokens}, dtype)
    count = size[1] + 3
    spots = torch.stack([torch.randperm(count)[: size[1]] for _ in range(size[0])])
    spots[:, ::3] = -1
    fill = torch.randn(size[0], count, size[2]).to(dtype)
    compare(
        lambda values, fill=None, *, backend: scatter_tokens(values, spots, count, fill, backend=backend),
        {"values": tokens, "fill": fill},
        dtype,
    )
    found = scatter_tokens(tokens, spots, count, backend="triton")
    assert torch.equal(found, scatter_tokens(tokens, spots, count, backend="reference"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_group_of_one_is_its_member_bit_for_bit(dtype: torch.dtype) -> None:
    tokens = torch.randn(2, 20, 3).to(dtype)
    assignment = torch.randperm(20).expand(2, -1)
    for weights in (torch.rand(2, 20) + 1e-3, None):
        means, _ = merge_tokens(tokens, assignment, weights, 20, backend="triton")
        assert torch.equal(unmerge_tokens(means, assignment, backend="triton"), tokens)


def test_what_is_in_no_group_is_never_read() -> None:
    tokens, assignment, _ = made(SIZES[3], torch.float32)
    tokens = tokens.masked_fill((assignment < 0)[..., None], float("nan"))
    means, _ = merge_tokens(tokens, assignment, None, 7, backend="triton")
    assert torch.isfinite(means).all()
    assert unmerge_tokens(means, assignment, backend="triton")[assignment < 0].abs().max() == 0


def test_nothing_to_move() -> None:
    none = torch.empty(2, 0, 3)
    places = torch.empty(2, 0, dtype=torch.long)
    assert gather_tokens(torch.randn(2, 4, 3), places, backend="triton").shape == (2, 0, 3)
    assert scatter_tokens(none, places, 4, backend="triton").abs().max() == 0
    means, sizes = merge_tokens(none, places, None, 4, backend="triton")
    assert means.abs().max() == 0
    assert sizes.abs().max() == 0


def test_opcheck() -> None:
    tokens, assignment, weights = made((1, 9, 5, 4), torch.float32)
    tokens, weights = tokens.requires_grad_(), weights.requires_grad_()
    ops = torch.ops.petground
    torch.library.opcheck(ops.gather_tokens.default, (tokens, assignment))
    torch.library.opcheck(ops.scatter_tokens.default, (tokens, torch.arange(9)[None], 12, torch.randn(1, 12, 5)))
    torch.library.opcheck(ops.merge_tokens.default, (tokens, assignment, weights, 4))

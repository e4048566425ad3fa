"""combiner, core_context and landmark: far blocks stand as one, or are fetched."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.contract import BlockError, Grid
from tests.models.conformance.memory import largest_tensor

HEADS, DIM = 2, 4
GRID = Grid((3, 5, 4), (4.0, 2.0, 1.0))


def qkv(count: int = GRID.tokens, *, seed: int = 0, batch: int = 2) -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, HEADS, count, DIM, generator=made, dtype=torch.float64) for _ in range(3))


def block(key: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build("attention", key, channels=HEADS * DIM, num_heads=HEADS, **options).double().eval()


def plain(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
    return SoftmaxAttention(HEADS * DIM, HEADS)(q, k, v, **given)[0]


def cells(grid: Grid, size: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The block of each voxel, as its place among the blocks."""
    return [
        tuple(n // s for n, s in zip(place, size, strict=True))
        for place in itertools.product(*(range(n) for n in grid.shape_zyx))
    ]


def summary_map(
    q: Tensor, k: Tensor, of: list[tuple[int, ...]], near: tuple[int, ...], rule: str, causal: bool
) -> Tensor:
    """The map of one head, [N, N], query by query from the docstring's equation."""
    out, scale = torch.zeros(len(of), len(of)).double(), DIM**-0.5
    for i, here in enumerate(of):
        tokens, blocks = [], {}
        for j, there in enumerate(of):
            apart = [a - b for a, b in zip(here, there, strict=True)]
            if all(abs(d) <= n for d, n in zip(apart, near, strict=True)):
                if not causal or j <= i:
                    tokens.append(j)
            elif not causal or j < i:
                blocks.setdefault(there, []).append(j)
        scores, shares = [q[i] @ k[j] * scale for j in tokens], []
        for members in blocks.values():
            asks = {"max": q[members].amax(0), "mean": q[members].mean(0), "last": q[members[-1]]}
            shares.append((k[members] @ asks["mean" if rule == "core" else rule] * scale).softmax(0))
            key = k[members].amax(0) if rule == "max" else k[members].mean(0)
            if rule in ("core", "last"):
                key = shares[-1] @ k[members]
            scores.append(q[i] @ key * scale)
        p = torch.stack(scores).softmax(0)
        out[i, tokens] = p[: len(tokens)]
        for weight, share, members in zip(p[len(tokens) :], shares, blocks.values(), strict=True):
            out[i, members] = weight * share
    return out


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_combiner_gives_every_token_its_weight(pooling: str) -> None:
    q, k, v = qkv()
    module = block("combiner", block=[2, 2, 3], pooling=pooling)  # does not divide 3, 5, 4: unequal blocks
    out, weights = module(q, k, v, grid=GRID, need_weights=True)
    assert (weights > 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    wanted = summary_map(q[0, 1], k[0, 1], cells(GRID, (2, 2, 3)), (0, 0, 0), pooling, causal=False)
    assert torch.allclose(weights[0, 1], wanted, atol=1e-12)
    assert torch.allclose(out[0, 1], wanted @ v[0, 1], atol=1e-12)


def test_combiner_causal_gives_every_earlier_token_its_weight() -> None:
    q, k, v = qkv(23)
    _, weights = block("combiner", block_tokens=5, pooling="max")(q, k, v, causal=True, need_weights=True)
    assert torch.equal(weights[0, 0] > 0, torch.ones(23, 23, dtype=torch.bool).tril())
    of = [(i // 5,) for i in range(23)]
    assert torch.allclose(weights[1, 0], summary_map(q[1, 0], k[1, 0], of, (0,), "max", causal=True), atol=1e-12)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("combiner", {"block": [0, 0, 0]}),
        ("core_context", {"block": [2, 2, 2], "near": [9, 9, 9]}),
        ("core_context", {"block": [2, 2, 2], "near_mm": 20.0}),
        ("core_context", {"block": [1, 1, 1]}),
        ("landmark", {"block": [0, 0, 0]}),
    ],
)
def test_one_block_or_blocks_of_one_are_softmax_attention(key: str, options: dict[str, Any]) -> None:
    q, k, v = qkv()
    mask = torch.rand(2, GRID.tokens, generator=torch.Generator().manual_seed(1)) > 0.3
    out, _ = block(key, **options)(q, k, v, grid=GRID, mask=mask)
    assert torch.allclose(out, plain(q, k, v, mask=mask), atol=1e-12)


def test_axial_partition_of_the_volume() -> None:
    q, k, v = qkv()
    _, weights = block("combiner", block=[1, 0, 0], pooling="mean")(q, k, v, grid=GRID, need_weights=True)
    of = cells(GRID, (1, 5, 4))
    assert torch.allclose(weights[0, 0], summary_map(q[0, 0], k[0, 0], of, (0, 0, 0), "mean", causal=False), atol=1e-12)


@pytest.mark.parametrize("near", [(0, 0, 0), (1, 0, 2)])
def test_core_context_sees_near_tokens_and_far_cores(near: tuple[int, int, int]) -> None:
    q, k, v = qkv()
    module = block("core_context", block=[1, 2, 1], near=list(near))
    out, weights = module(q, k, v, grid=GRID, need_weights=True)
    assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    wanted = summary_map(q[1, 0], k[1, 0], cells(GRID, (1, 2, 1)), near, "core", causal=False)
    assert torch.allclose(weights[1, 0], wanted, atol=1e-12)
    assert torch.allclose(out[1, 0], wanted @ v[1, 0], atol=1e-12)


def test_core_context_causal_asks_with_the_last_token_of_a_group() -> None:
    q, k, v = qkv(20)
    module = block("core_context", block_tokens=3, near_tokens=4)  # 4 tokens: two groups of 3
    _, weights = module(q, k, v, causal=True, need_weights=True)
    of = [(i // 3,) for i in range(20)]
    assert torch.allclose(weights[0, 0], summary_map(q[0, 0], k[0, 0], of, (2,), "last", causal=True), atol=1e-12)


def test_core_tokens_lie_among_their_group_and_are_means_when_nothing_stands_out() -> None:
    module = block("core_context")
    q, k, v = (one.unflatten(2, (6, 10)) for one in qkv())
    real = torch.ones(1, 6, 10, dtype=torch.bool)
    real[:, 2, 4:] = False
    keys, values = module.summaries(q, k, v, real, causal=False)
    for core, of in ((keys, k), (values, v)):
        low, high = (of.masked_fill(~real[:, None, :, :, None], far) for far in (float("inf"), float("-inf")))
        assert (core >= low.amin(3) - 1e-12).all()
        assert (core <= high.amax(3) + 1e-12).all()
    keys, _ = module.summaries(torch.zeros_like(q), k, v, real, causal=False)
    assert torch.allclose(keys[:, :, 2], k[:, :, 2, :4].mean(2))
    assert torch.allclose(keys[:, :, 0], k[:, :, 0].mean(2))


def test_near_in_mm_counts_blocks_by_the_spacing() -> None:
    module = block("core_context", block=[2, 2, 2], near_mm=8.0)
    assert module.sizes((30, 30, 30), Grid((30, 30, 30), (4.0, 2.0, 1.0))) == ((2, 2, 2), (1, 2, 4))


def test_core_context_defaults_are_near_the_papers() -> None:
    module = block("core_context")
    assert module.sizes((30, 30, 30), Grid((30, 30, 30))) == ((2, 2, 2), (2, 2, 2))  # 10 x 10 x 10 voxels stay tokens
    assert module.sizes((1, 1, 5000), None) == ((1, 1, 16), (0, 0, 64))  # g = 16, s = 1024
    assert block("combiner").sizes((16, 9, 25), Grid((16, 9, 25))) == ((4, 3, 5), (0, 0, 0))


def test_combiner_holds_n_to_the_three_halves() -> None:
    module = block("combiner")
    sizes = []
    for side in (9, 16):
        grid = Grid((side, side, side))
        q, k, v = (one.requires_grad_() for one in qkv(grid.tokens, batch=1))
        with largest_tensor() as made:
            module(q, k, v, grid=grid)[0].sum().backward()
        sizes.append(made.numbers)
        assert made.numbers < HEADS * grid.tokens**2 / 10
    assert sizes[1] / sizes[0] < 1.4 * (16**3 / 9**3) ** 1.5


def grouped_softmax(q: Tensor, k: Tensor, landmarks: dict[tuple[int, ...], Tensor], of: list[Any]) -> Tensor:
    """Equations 1 to 4 of the paper for one head, [N, N], all blocks fetched."""
    out, scale = torch.zeros(len(of), len(of)).double(), DIM**-0.5
    for i, here in enumerate(of):
        own = [j for j, there in enumerate(of) if there == here]
        others = [there for there in landmarks if there != here]
        group = torch.stack([q[i] @ k[j] * scale for j in own] + [q[i] @ landmarks[c] * scale for c in others])
        p = group.softmax(0)
        out[i, own] = p[: len(own)]
        for weight, c in zip(p[len(own) :], others, strict=True):
            members = [j for j, there in enumerate(of) if there == c]
            out[i, members] = weight * (k[members] @ q[i] * scale).softmax(0)
    return out


@pytest.mark.parametrize("retrieval", ["block", "token"])
def test_landmark_with_all_blocks_is_the_grouped_softmax(retrieval: str) -> None:
    q, k, v = qkv()
    module = block("landmark", block=[2, 2, 2], top_k=99, retrieval=retrieval)
    nn.init.normal_(module.reader)
    out, weights = module(q, k, v, grid=GRID, need_weights=True)
    of = cells(GRID, (2, 2, 2))
    landmarks = {}
    for c in dict.fromkeys(of):
        keys = k[0, 1, [j for j, there in enumerate(of) if there == c]]
        landmarks[c] = (keys @ module.reader[1].detach() * DIM**-0.5).softmax(0) @ keys
    wanted = grouped_softmax(q[0, 1], k[0, 1], landmarks, of)
    assert torch.allclose(weights[0, 1], wanted, atol=1e-12)
    assert torch.allclose(out[0, 1], wanted @ v[0, 1], atol=1e-12)


@pytest.mark.parametrize("retrieval", ["block", "token"])
def test_landmark_fetches_the_blocks_it_says(retrieval: str) -> None:
    q, k, v = qkv(40)
    _, weights = block("landmark", block_tokens=5, top_k=2, retrieval=retrieval)(q, k, v, need_weights=True)
    assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    asked = weights.unflatten(-1, (8, 5)).sum(-1) > 0  # [B, H, N, blocks]
    own = torch.arange(40)[:, None] // 5 == torch.arange(8)
    assert (asked | ~own).all()
    assert (asked.sum(-1) == 3).all()
    together = asked.unflatten(2, (8, 5))
    alike = (together == together[:, :, :, :1]).all()
    assert alike == (retrieval == "block")
    means = k.unflatten(2, (8, 5)).mean(3)  # the landmarks at the start
    best = (q @ means.transpose(-1, -2)).masked_fill(own, float("-inf"))
    if retrieval == "token":
        for b, h, i in itertools.product(range(2), range(HEADS), range(40)):
            assert set(best[b, h, i].topk(2).indices.tolist()) < set(asked[b, h, i].nonzero().flatten().tolist())


def test_landmark_ratios_inside_a_block_and_swapped_blocks() -> None:
    q, k, v = qkv(20)
    module = block("landmark", block_tokens=5, top_k=3)
    out, weights = module(q, k, v, need_weights=True)
    scores = q @ k.transpose(-1, -2) * DIM**-0.5
    first, second = weights[:, :, 0, 10], weights[:, :, 0, 13]
    assert torch.allclose(first / second, (scores[:, :, 0, 10] - scores[:, :, 0, 13]).exp())
    order = torch.tensor([*range(5), *range(10, 15), *range(5, 10), *range(15, 20)])
    again, turned = module(q[:, :, order], k[:, :, order], v[:, :, order], need_weights=True)
    assert torch.allclose(turned[:, :, :5], weights[:, :, :5][..., order])
    assert torch.allclose(again[:, :, :5], out[:, :, :5])


def test_landmark_holds_no_n_by_n() -> None:
    grid = Grid((16, 16, 16))
    q, k, v = (one.requires_grad_() for one in qkv(grid.tokens, batch=1))
    with largest_tensor() as made:
        block("landmark", top_k=2)(q, k, v, grid=grid)[0].sum().backward()
    assert made.numbers <= HEADS * grid.tokens * 64 * 2  # the fetched blocks' scores


def test_options_that_cannot_be_are_refused() -> None:
    for key, options in (
        ("combiner", {"block": [2, 2]}),
        ("combiner", {"near": [1, 1, 1]}),
        ("combiner", {"block_tokens": -1}),
        ("core_context", {"near": [-1, 0, 0]}),
        ("core_context", {"pooling": "max"}),
        ("landmark", {"block_tokens": 0}),
        ("landmark", {"retrieval": "head"}),
    ):
        with pytest.raises(BlockError):
            block(key, **options)

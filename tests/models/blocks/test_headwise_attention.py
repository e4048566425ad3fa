"""duo, moa_spans and moh: heads that see differently far and count differently much."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.attention.head_gates import HeadGates, load_balance
from petground.models.blocks.attention.headwise import HeadwiseAttention
from petground.models.blocks.attention.softmax import SoftmaxAttention, masked_softmax
from petground.models.blocks.contract import BlockError, BlockInputError, Grid
from tests.models.conformance.memory import kept_for_backward, largest_tensor

HEADS, DIM = 2, 4
GRID = Grid((3, 5, 7), (4.0, 2.0, 1.0))


def qkv(count: int = GRID.tokens, *, heads: int = HEADS, seed: int = 0, batch: int = 2) -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, heads, count, DIM, generator=made, dtype=torch.float64) for _ in range(3))


def block(key: str, heads: int = HEADS, **options: Any) -> HeadwiseAttention:
    torch.manual_seed(0)
    made = build("attention", key, channels=heads * DIM, num_heads=heads, **options).double().eval()
    assert isinstance(made, HeadwiseAttention)
    return made


def plain(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
    return SoftmaxAttention(q.shape[1] * DIM, q.shape[1])(q, k, v, **given)[0]


def boxes(grid: Grid, reach: tuple[int, int, int], sinks: int) -> Tensor:
    """[N, N] bool by going through all pairs."""
    places = list(itertools.product(*(range(n) for n in grid.shape_zyx)))
    keep = torch.zeros(len(places), len(places), dtype=torch.bool)
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            keep[i, j] = j < sinks or all(abs(a - b) <= r for a, b, r in zip(one, other, reach, strict=True))
    return keep


@pytest.mark.parametrize("causal", [False, True])
def test_duo_starts_as_full_attention(causal: bool) -> None:
    q, k, v = qkv()
    out, _ = block("duo", sinks=2, span=3, radius=1)(q, k, v, grid=GRID, causal=causal)
    assert torch.allclose(out, plain(q, k, v, causal=causal), atol=1e-12)


@pytest.mark.parametrize("grid", [GRID, None])
def test_duo_with_a_span_over_all_does_not_depend_on_its_shares(grid: Grid | None) -> None:
    q, k, v = qkv()
    module = block("duo", sinks=2, span=GRID.tokens, radius=7)
    with torch.no_grad():
        module.alpha.copy_(torch.tensor([0.3, 0.8]))
    assert torch.allclose(module(q, k, v, grid=grid)[0], plain(q, k, v), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_duo_decided_is_the_mixture_of_zeros_and_ones(causal: bool) -> None:
    q, k, v = qkv(heads=3)
    small = {"sinks": 3, "span": 4, "radius": 1}
    mixing = block("duo", 3, **small)
    with torch.no_grad():
        mixing.alpha.copy_(torch.tensor([0.1, 0.9, 0.4]))
        full = mixing.full_heads_at(2 / 3)
        assert full == [1]
        assert mixing.full_heads_at(1 / 3) == [1, 2]
        mixing.alpha.copy_(torch.tensor([0.0, 1.0, 0.0]))
    decided = block("duo", 3, full_heads=full, **small)
    assert not list(decided.parameters())
    given = {"grid": GRID, "causal": causal}
    assert torch.allclose(decided(q, k, v, **given)[0], mixing(q, k, v, **given)[0], atol=1e-12)
    streams = decided(q, k, v, need_weights=True, **given)[1]
    assert (streams[:, 1, -1] > 0).all()
    assert (streams[:, 0, -1] == 0).any()


def test_duo_share_has_a_gradient_also_outside_its_bounds() -> None:
    q, k, v = qkv()
    module = block("duo", sinks=0, radius=1)
    with torch.no_grad():
        module.alpha.copy_(torch.tensor([1.3, -0.2]))
    out, weights = module(q, k, v, grid=GRID, need_weights=True)
    assert torch.allclose(out[:, 0], plain(q, k, v)[:, 0], atol=1e-12)  # as if it were 1
    out.square().sum().backward()
    assert (module.alpha.grad != 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones(()).double(), atol=1e-12)


def test_moa_span_over_all_is_full_attention() -> None:
    q, k, v = qkv()
    module = block("moa_spans", sinks=0, span=0, radius=0, growth=1.0)
    for given in ({"grid": GRID}, {"grid": None}, {"causal": True}):
        causal = bool(given.get("causal"))
        assert torch.allclose(module(q, k, v, **given)[0], plain(q, k, v, causal=causal), atol=1e-12)


def test_moa_boxes_are_per_head_in_mm_and_equal_the_masked_map() -> None:
    q, k, v = qkv()
    mask = torch.rand(2, GRID.tokens, generator=torch.Generator().manual_seed(1)) > 0.2
    module = block("moa_spans", sinks=3, radius=[2.0, 4.5], growth=[0.0, 0.2], unit="mm")
    out, weights = module(q, k, v, grid=GRID, mask=mask, need_weights=True)
    for head, reach in enumerate([(0, 1, 2), (1, 3, 5)]):  # 2 mm at 4, 2, 1 mm; 4.5 mm plus a fifth of 3, 5, 7 voxels
        keep = boxes(GRID, reach, 3) & mask[:, None, :]
        scores = q[:, head] @ k[:, head].transpose(-1, -2) * DIM**-0.5
        wanted = masked_softmax(scores, keep)
        assert torch.allclose(weights[:, head], wanted, atol=1e-12)
        assert torch.allclose(out[:, head], wanted @ v[:, head], atol=1e-12)


def test_moa_causal_spans_are_counted_in_tokens() -> None:
    q, k, v = qkv(40)
    _, weights = block("moa_spans", sinks=2, span=[3, 1], growth=[0.0, 0.25])(q, k, v, causal=True, need_weights=True)
    for head, span in enumerate([3, 11]):
        for i in (0, 1, 5, 39):
            seen = {j for j in range(i + 1) if j < 2 or i - j <= span}
            assert set(weights[0, head, i].nonzero().flatten().tolist()) == seen


@pytest.mark.parametrize("causal", [False, True])
def test_spans_hold_memory_in_proportion_to_the_tokens(causal: bool) -> None:
    module = block("moa_spans", sinks=4, span=16, radius=1)
    sizes = []
    for side in (8, 16):
        grid = Grid((side, side, side))
        q, k, v = (one.requires_grad_() for one in qkv(grid.tokens, batch=1))
        with largest_tensor() as made, kept_for_backward() as kept:
            module(q, k, v, grid=grid, causal=causal)[0].sum().backward()
        assert made.numbers < grid.tokens**2
        sizes.append((made.numbers, sum(kept.values())))
    for small, large in zip(*sizes, strict=True):
        assert large <= 8.5 * small  # 8 times the voxels; N x N would be 64 times


def test_moh_with_gates_of_one_is_multi_head_attention() -> None:
    q, k, v = qkv(heads=4)
    module = block("moh", 4, shared_heads=1, active_heads=4, rescale=True)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    out, _ = module(q, k, v)
    project = nn.Linear(16, 16, bias=False).double()
    heads = (out[:, h] @ project.weight[:, 4 * h : 4 * h + 4].T for h in range(4))
    assert torch.allclose(sum(heads), project(plain(q, k, v).transpose(1, 2).flatten(2)), atol=1e-12)


def test_moh_gates_follow_the_equation() -> None:
    q, k, v = qkv(9, heads=4)
    module = block("moh", 4, shared_heads=1, active_heads=3)
    token = q.transpose(1, 2).flatten(2)
    gates = module.gates(token)
    routed, kinds = module.gates.to_routed(token).softmax(-1), module.gates.to_kinds(token).softmax(-1)
    assert torch.allclose(kinds.sum(-1), torch.ones(2, 9).double())
    assert torch.allclose(gates[..., 0], kinds[..., 0])  # one shared head: its softmax is 1
    for b, n in itertools.product(range(2), range(9)):
        best = routed[b, n].argsort(descending=True)[:2].tolist()
        for head in range(3):
            wanted = kinds[b, n, 1] * routed[b, n, head] if head in best else torch.zeros(())
            assert torch.allclose(gates[b, n, 1 + head], wanted.double())
    out, weights = module(q, k, v, need_weights=True)
    assert torch.allclose(weights.sum(-1), gates.transpose(1, 2))
    assert torch.allclose(out, plain(q, k, v) * gates.transpose(1, 2)[..., None])


def test_moh_sends_no_gradient_to_what_reads_a_head_not_picked() -> None:
    q, k, v = qkv(9, heads=4)
    module = block("moh", 4, shared_heads=1, active_heads=2)
    with torch.no_grad():
        module.gates.to_routed.weight.zero_()
        module.gates.to_routed.weight[1] = 100.0  # of the routed heads 1, 2, 3 it picks 2 wherever the query sums > 0
        q = q.abs()
    project = nn.Linear(16, 16, bias=False).double()
    project(module(q, k, v)[0].transpose(1, 2).flatten(2)).square().sum().backward()
    used = project.weight.grad.unflatten(1, (4, 4)).abs().sum(dim=(0, 2))
    assert (used > 0).tolist() == [True, False, True, False]


def test_load_balance_of_uniform_routing_and_of_one_head() -> None:
    gates = HeadGates(8, 6, 2, 3)
    nn.init.zeros_(gates.to_routed.weight)
    x, mask = torch.randn(2, 10, 8), torch.ones(2, 10, dtype=torch.bool)
    mask[1, 4:] = False
    assert load_balance(*gates.routes(x), mask).tolist() == pytest.approx([3 / 4] * 2)
    one = torch.zeros(2, 10, 4)
    one[..., 1] = 1.0
    assert load_balance(one, one > 0, mask).tolist() == pytest.approx([1.0] * 2)  # all to one head: the worst


def test_options_that_cannot_be_are_refused() -> None:
    for key, options in (
        ("duo", {"sinks": -1}),
        ("duo", {"full_heads": [2]}),
        ("moa_spans", {"radius": [1, 2, 3]}),
        ("moa_spans", {"span": -1}),
        ("moh", {"shared_heads": 3}),
        ("moh", {"active_heads": 3}),
        ("moh", {"span": 3}),
        ("duo", {"growth": 0.1}),
    ):
        with pytest.raises(BlockError):
            block(key, **options)
    with pytest.raises(BlockInputError, match=r"^moh: q has 3 heads"):
        block("moh")(*qkv(heads=3))
    with pytest.raises(BlockInputError, match=r"^duo: bias"):
        block("duo")(*qkv(5), bias=torch.zeros(1, 1, 5, 5).double())

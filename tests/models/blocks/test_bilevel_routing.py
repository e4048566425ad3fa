"""Bi-level routing: who is routed where, and that nobody else is heard."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.contract import Grid
from petground.models.registry import build

GRID = Grid((4, 5, 6))


def _made(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    given = {"regions": [2, 2, 3], "topk": 3, "local": 0, **options}
    return build("attention", "bilevel_routing", channels=8, num_heads=2, **given).double().eval()


def _qkv(seed: int = 1) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(2, 2, GRID.tokens, 4, dtype=torch.float64) for _ in range(3)]


def _region() -> Tensor:
    """Region of each voxel: 2 x 3 x 2 voxels each, the last along y short."""
    z, y, x = torch.meshgrid(*(torch.arange(n) for n in GRID.shape_zyx), indexing="ij")
    return ((z // 2 * 2 + y // 3) * 3 + x // 2).flatten()


@pytest.mark.parametrize("topk", [12, 99])
def test_all_regions_are_full_attention(topk: int) -> None:
    q, k, v = _qkv()
    mask = torch.rand(2, GRID.tokens) > 0.3
    for given in ({}, {"mask": mask}):
        full, whole = SoftmaxAttention(8, 2)(q, k, v, need_weights=True, **given)
        out, weights = _made(topk=topk)(q, k, v, grid=GRID, need_weights=True, **given)
        fused, _ = _made(topk=topk)(q, k, v, grid=GRID, **given)
        for one in (out, fused):
            assert torch.allclose(one, full, atol=1e-10)
        assert torch.allclose(weights, whole, atol=1e-10)


def test_only_routed_regions_are_seen() -> None:
    q, k, v = _qkv()
    module = _made()
    table, region = module.route(q, k, GRID), _region()
    routed = torch.zeros(2, 12, 12, dtype=torch.bool).scatter(2, table, True)
    assert (routed.sum(-1) == 3).all()
    weights = module(q, k, v, grid=GRID, need_weights=True)[1]
    assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
    for row in range(2):
        assert torch.equal((weights[row] > 0).any(0), routed[row][region][:, region])
    value = v.clone().requires_grad_()
    out, _ = module(q, k, value, grid=GRID)
    (gradient,) = torch.autograd.grad(out[0, :, 0].sum(), value)
    reached = gradient[0].abs().sum((0, 2)) > 0
    assert torch.equal(reached, routed[0, 0][region])


def test_the_table_is_the_best_rows_of_the_mean_products() -> None:
    q, k, _ = _qkv()
    region = _region()
    means = [torch.stack([one[:, :, region == r].mean(2).flatten(1) for r in range(12)], dim=1) for one in (q, k)]
    best = (means[0] @ means[1].transpose(1, 2)).argsort(dim=-1, descending=True)[..., :3]
    assert torch.equal(_made().route(q, k, GRID), best)


def test_routing_does_not_see_the_order_within_a_region() -> None:
    q, k, _ = _qkv()
    region = _region()
    order = torch.arange(GRID.tokens)
    for r in range(12):
        inside = (region == r).nonzero().flatten()
        order[inside] = inside[torch.randperm(len(inside))]
    module = _made()
    assert torch.equal(module.route(q[:, :, order], k[:, :, order], GRID), module.route(q, k, GRID))


def test_padding_has_no_weight_and_no_say_in_the_routing() -> None:
    q, k, v = _qkv()
    region = _region()
    mask = torch.rand(2, GRID.tokens) > 0.4
    mask[:, region == 7] = False  # a region without a real voxel
    module = _made()
    table = module.route(q, k, GRID, mask)
    assert (table != 7).all()
    loud = torch.where(mask[:, None, :, None], k, 50.0)
    assert torch.equal(module.route(q, loud, GRID, mask), table)
    weights = module(q, k, v, grid=GRID, mask=mask, need_weights=True)[1]
    assert (weights.transpose(2, 3)[(~mask)[:, None].expand(-1, 2, -1)] == 0).all()


def test_local_enhancement_is_a_depthwise_convolution_of_the_values() -> None:
    q, k, v = _qkv()
    module = _made(local=3)
    bare = _made()
    with torch.no_grad():
        added = module(q, k, v, grid=GRID)[0] - bare(q, k, v, grid=GRID)[0]
        dense = GRID.dense(v.transpose(1, 2).flatten(2))
        expected = nn.functional.conv3d(dense, module.local.weight, module.local.bias, padding=1, groups=8)
    assert torch.allclose(GRID.dense(added.transpose(1, 2).flatten(2)), expected)


def test_some_regions_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = _qkv()
    with torch.no_grad():
        whole, _ = _made()(q, k, v, grid=GRID)
        monkeypatch.setattr("petground.models.blocks.attention.bilevel_routing.BUDGET", 2000)
        assert torch.equal(_made()(q, k, v, grid=GRID)[0], whole)

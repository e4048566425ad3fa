"""Aggregated attention: one softmax over sharp neighbours and coarse cells."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d, normalize, softplus

from petground.models.blocks.attention.cells import Cells, neighbours
from petground.models.blocks.contract import Grid
from petground.models.registry import build

GRID = Grid((3, 4, 5), (4.0, 2.0, 3.0))


def _made(*, learned: bool = True, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    given = {"pool": [1, 2, 2], "hidden": 8, **options}
    module = build("attention", "aggregated_attention", channels=8, num_heads=2, **given)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if not learned:
            module.learned_tokens.zero_()
            module.learned_bias.zero_()
    return module.double().eval()


def _qkv(grid: Grid = GRID) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 2, grid.tokens, 4, dtype=torch.float64) for _ in range(3)]


def test_pooling_is_adaptive_average_pooling() -> None:
    for shape, wanted in (((7, 5, 9), (3, 2, 4)), ((4, 4, 4), (2, 2, 2)), ((2, 3, 1), (5, 3, 1))):
        grid = Grid(shape)
        cells = Cells.of(grid, wanted)
        x = torch.randn(2, 3, grid.tokens, 4, dtype=torch.float64)
        mean = cells.means(x)
        expected = adaptive_avg_pool3d(grid.dense(x).flatten(0, 1), cells.shape).flatten(2).unflatten(0, (2, 3))
        assert torch.allclose(mean, expected.transpose(2, 3))
        assert torch.allclose(cells.matrix(x) @ x, mean)


def test_neighbours_are_zero_outside_the_grid() -> None:
    grid = Grid((2, 1, 3))
    x = torch.arange(1.0, 7.0).reshape(1, 1, 2, 1, 3, 1)
    around = torch.cat(list(neighbours(x, (3, 1, 3))), dim=-1).flatten(0, 4)
    assert around.shape == (grid.tokens, 9)
    assert around[0].tolist() == [0, 0, 0, 0, 1, 2, 0, 4, 5]
    assert around[5].tolist() == [2, 3, 0, 5, 6, 0, 0, 0, 0]


def test_written_out_voxel_by_voxel() -> None:
    """Equations of section 3 for every query, in a loop."""
    module = _made()
    q, k, v = (one[:1] for one in _qkv())
    with torch.no_grad():
        out, _ = module(q, k, v, grid=GRID)
        at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in GRID.shape_zyx), indexing="ij"), -1).flatten(0, 2)
        cell = at[:, 1] // 2 * 2 + (2 * at[:, 2] + 1) * 2 // 10
        members = [
            ((at[:, 1] // 2 == y) & (at[:, 2] >= lo) & (at[:, 2] < hi)) for y in (0, 1) for lo, hi in ((0, 3), (2, 5))
        ]
        centres = torch.stack([at[one].double().mean(0) for one in members]) * torch.tensor([4.0, 2.0, 3.0])
        kn, qn = normalize(k, dim=-1), normalize(q, dim=-1)
        means = torch.stack([k[:, :, one].mean(2) for one in members], dim=2)
        kp, vp = normalize(means, dim=-1), torch.stack([v[:, :, one].mean(2) for one in members], dim=2)
        for n in range(GRID.tokens):
            offset = at - at[n]
            local = (offset.abs() <= 1).all(1).nonzero().flatten()
            slot = ((offset[local] + 1) * torch.tensor([9, 3, 1])).sum(1)
            for h in range(2):
                scale = softplus(module.temperature[h]) * math.log(len(local) + 4)
                asking = (qn[0, h, n] + module.query_embedding[h, 0]) * scale[0]
                mm = (centres[cell[n]] - centres) / 4.0
                bias = module.mlp(mm.sign() * mm.abs().log1p())[:, h]
                logits = torch.cat([kn[0, h, local] @ asking + module.local_bias[h, 0, slot], kp[0, h] @ asking + bias])
                a = logits.softmax(0)
                mixed = a[: len(local)] + qn[0, h, n] @ module.learned_tokens[h][:, slot]
                mixed = mixed + module.learned_bias[h, 0, slot]
                assert torch.allclose(out[0, h, n], mixed @ v[0, h, local] + a[len(local) :] @ vp[0, h], atol=1e-10)


def test_without_learned_tokens_the_weights_are_shares_and_make_the_result() -> None:
    q, k, v = _qkv()
    with torch.no_grad():
        out, weights = _made(learned=False)(q, k, v, grid=GRID, need_weights=True)
        assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
        assert torch.allclose(weights @ v, out)
        assert not torch.allclose(weights @ v, _made()(q, k, v, grid=GRID)[0], atol=1e-3)
        mask = torch.rand(2, GRID.tokens) > 0.4
        out, weights = _made(learned=False)(q, k, v, grid=GRID, mask=mask, need_weights=True)
    hidden = ~mask[:, None, None, :]
    assert (weights.masked_select(hidden) == 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
    assert torch.allclose(weights @ v, out)


def test_lengths_of_queries_and_keys_do_not_matter() -> None:
    """Of the neighbours' keys each may have its own; a cell's mean key is the mean of what it is given."""
    q, k, v = _qkv()
    with torch.no_grad():
        out, _ = _made()(q, k, v, grid=GRID)
        assert torch.allclose(_made()(9.0 * q, 0.02 * k, v, grid=GRID)[0], out, atol=1e-10)


def test_one_cell_is_one_global_key() -> None:
    q, k, v = _qkv()
    with torch.no_grad():
        _, weights = _made(learned=False, pool=[1, 1, 1], window=[1, 1, 1])(q, k, v, grid=GRID, need_weights=True)
    others = weights - torch.diag_embed(weights.diagonal(dim1=2, dim2=3))
    off = others[..., 0, 1:]  # the same small share for everybody else
    assert torch.allclose(off, off[..., :1].expand_as(off))


def test_more_keys_make_sharper_queries() -> None:
    """log(n) of the keys that are there: the corner of a grid has fewer neighbours than its middle."""
    module = _made(learned=False, pool=[1, 1, 1])
    with torch.no_grad():
        for parameter in (module.query_embedding, module.local_bias, *module.mlp.parameters()):
            parameter.zero_()
    grid = Grid((5, 5, 5))
    q = torch.ones(1, 2, 125, 4, dtype=torch.float64)
    k = torch.randn(1, 2, 125, 4, dtype=torch.float64)
    _, weights = module(q, k, k, grid=grid, need_weights=True)
    cosine = normalize(k, dim=-1) @ torch.full((4,), 0.5, dtype=torch.float64)
    for n, count in ((0, 8), (62, 27)):
        near = weights[0, 0, n].topk(2)
        a, b = near.indices.tolist()
        spread = 1e-12 + weights[0, 0, n].min()  # the cell's share of each voxel
        ratio = torch.log((near.values[0] - spread) / (near.values[1] - spread))
        expected = softplus(module.temperature[0]) * math.log(count + 1) * (cosine[0, 0, a] - cosine[0, 0, b])
        assert torch.allclose(ratio, expected.squeeze(), atol=1e-6)


def test_spacing_moves_the_bias_of_cells() -> None:
    q, k, v = _qkv()
    with torch.no_grad():
        here = _made()(q, k, v, grid=GRID)[0]
        there = _made()(q, k, v, grid=Grid(GRID.shape_zyx, (4.0, 9.0, 3.0)))[0]
    assert not torch.allclose(here, there, atol=1e-4)

"""Sums over voxels, their number, and squares leave float16 (65,504 at most): they are taken in float32."""

from __future__ import annotations

import pytest
import torch

from petground.models import build
from petground.models.blocks.attention.agent import AgentAttention
from petground.models.blocks.attention.dual_window_channel import channel_attention
from petground.models.blocks.attention.linear import attention_distillation, rms_norm
from petground.models.blocks.attention.scores import reweight, softplus_shares
from petground.models.blocks.contract import Grid
from petground.models.blocks.token_reduction.maps import masked_mean, normalised

MANY = 110592  # 48^3


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float16)


def test_squares() -> None:
    assert torch.allclose(rms_norm(300 * ones(1, 4)), ones(1, 4), rtol=2e-3)
    eights = 8 * ones(1, 1, 27, 16)
    out, _ = build("attention", "lightning_attention", channels=16).half()(eights, eights, eights)
    assert torch.allclose(out, torch.ones_like(out), rtol=2e-3)


@pytest.mark.parametrize("grid", [None, Grid((48, 48, 48))])
@pytest.mark.parametrize("masked", [True, False])
def test_agents_are_means(grid: Grid | None, masked: bool) -> None:
    mask = torch.ones(1, MANY, dtype=torch.bool) if masked else None
    pooled, real = AgentAttention(4, pool=[1, 1, 1])._agents(3 * ones(1, 1, MANY, 4), mask, grid)
    assert torch.allclose(pooled, 3 * ones(1, 1, 1, 4), rtol=2e-3)
    assert real.all()


def test_means_and_shares() -> None:
    mask = torch.ones(1, MANY, dtype=torch.bool)
    assert torch.equal(masked_mean(3 * ones(1, MANY, 2), mask), 3 * ones(1, 2))
    assert normalised(ones(1, MANY), None).float().sum().sub(1).abs() < 0.02
    assert softplus_shares(8 * ones(1, 1, 1, MANY), None).float().sum().sub(1).abs() < 0.02
    count = torch.tensor([[[[float(MANY)]]]])
    assert torch.isfinite(reweight(ones(1, 1, 1, 4) / MANY, count, 3.0, 0.0)).all()


def test_channel_map_over_many_positions() -> None:
    x = ones(1, MANY, 4)
    x[:, :, 0] = 2.0
    for by_positions in (True, False):
        out = channel_attention(x, x, x, groups=1, by_positions=by_positions)
        truth = channel_attention(*(x.float() for _ in range(3)), groups=1, by_positions=by_positions)
        assert torch.allclose(out.float(), truth, atol=2e-3)


def test_distillation_over_many_rows() -> None:
    shares = ones(1, 1, MANY, 2) / 2
    assert attention_distillation(shares, shares).sub(0.6931).abs() < 1e-3

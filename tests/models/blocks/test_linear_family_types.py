"""The linear, recurrent and scored blocks under autocast, as bf16 training runs them."""

from __future__ import annotations

import pytest
import torch

from petground.models.blocks.attention.linear_family import LINEAR_FAMILY
from petground.models.blocks.contract import Block, Grid
from petground.models.registry import build


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block", [pytest.param(block, id=block.key) for block in LINEAR_FAMILY])
def test_autocast_stays_near_and_trains(block: Block, masked: bool, causal: bool) -> None:
    if causal and "causal" not in block.patterns:
        pytest.skip("no causal pattern")
    torch.manual_seed(0)
    grid = Grid((3, 5, 7))
    module = build("attention", block.key, channels=16, num_heads=2)
    states = torch.randn(1, 105, 16)
    project = torch.nn.Linear(16, 48)
    mask = torch.rand(1, 105) > 0.3 if masked else None
    answers = []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            q, k, v = (one.reshape(1, 105, 2, 8).transpose(1, 2) for one in project(states).chunk(3, -1))
            out, weights = module(q, k, v, mask=mask, grid=grid, causal=causal, need_weights=True)
        assert out.dtype == (torch.bfloat16 if on else torch.float32)
        assert weights is None or "weights" in block.serves
        answers.append(out.float())
    answers[1].square().sum().backward()
    assert project.weight.grad is not None
    assert torch.isfinite(project.weight.grad).all()
    if block.key == "kmeans_cross":  # rounding may turn an argmax over: what is summed is what the map says
        answers[0] = weights.float() @ (v if mask is None else v * mask[:, None, :, None]).float()
    assert (answers[0] - answers[1]).norm() < 0.05 * answers[0].norm()

"""The linear, recurrent and scored blocks under autocast, as bf16 training runs them."""

from __future__ import annotations

import itertools

import pytest
import torch

from petground.models.blocks.attention.feature_maps import HedgehogFeatures
from petground.models.blocks.attention.linear_family import LINEAR_FAMILY
from petground.models.blocks.contract import Block, Grid
from petground.models.blocks.own_losses import listening
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


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize("causal", [False, True])
def test_hedgehog_trains_at_scales_where_weights_underflow(backend: str, causal: bool) -> None:
    """Shares of a row sum to one, and gradients are finite, where no query and key share a large feature."""
    for kind, scale in itertools.product((torch.float32, torch.bfloat16, torch.float16), (5.0, 10.0, 40.0, 100.0)):
        torch.manual_seed(0)
        module = build("attention", "hedgehog", channels=16, num_heads=2, backend=backend).train()
        leaves = [(size * torch.randn(1, 2, 105, 8)).requires_grad_() for size in (scale, scale, 1.0)]
        with listening(module) as held, torch.autocast("cpu", kind, enabled=kind != torch.float32):
            out, weights = module(*(one.to(kind) for one in leaves), causal=causal, need_weights=True)
        (own,) = held["hedgehog"][1]
        (out.float().square().mean() + own["distillation"].sum()).backward()
        assert out.dtype == weights.dtype == kind
        assert torch.allclose(weights.float().sum(-1), torch.ones(1, 2, 105), atol=0.02), (kind, scale)
        for one in (out, *own.values(), *(leaf.grad for leaf in [*leaves, *module.parameters()])):
            assert torch.isfinite(one).all(), (kind, scale)


def test_hedgehog_is_the_plain_softmax_of_its_logits_at_usual_scales() -> None:
    """The floor of its features is out of reach there: bit for bit."""
    torch.manual_seed(0)
    x = 3.0 * torch.randn(1, 2, 50, 8)
    logits = torch.cat([x, -x], dim=-1)
    assert torch.equal(HedgehogFeatures(2, 8)(x), logits.softmax(-1))
    assert HedgehogFeatures(2, 8)(100.0 * x).min() > 1e-30

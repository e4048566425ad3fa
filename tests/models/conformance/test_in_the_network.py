"""Every registered block, named in a config, at any decoder stage of the grounding network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BLOCKS, BlockError
from tests.models.conformance import examples

SMALL: dict[str, Any] = {"features": [4, 8, 8], "blocks_per_stage": 1, "decoder_convs": 1, "fusion_stages": [0, 1]}


def _answer(config: NetConfig) -> torch.Tensor:
    torch.manual_seed(0)
    net = GroundingNet(config, text_channels=6)
    torch.manual_seed(1)
    image, tokens = torch.rand(1, 2, 4, 8, 12), torch.randn(1, 2, 5, 6)
    out = net(image, tokens, torch.ones(1, 2, 5, dtype=torch.bool))
    out.square().mean().backward()
    assert torch.isfinite(out).all()
    return out.detach()


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("key", [key for key, block in BLOCKS["attention"].items() if "self" in block.patterns])
def test_attention_at_a_stage(key: str, stage: int) -> None:
    block = {"name": key, "num_heads": 2, "stages": [stage], **examples.ATTENTION.get(key, {})}
    assert _answer(NetConfig(**SMALL, attention=block)).shape == (1, 2, 4, 8, 12)


@pytest.mark.parametrize("key", list(BLOCKS["token_reduction"]))
def test_reduction_before_softmax(key: str) -> None:
    reduction = {"name": key, **examples.TOKEN_REDUCTION.get(key, {})}
    attention = {"name": "softmax", "num_heads": 2, "stages": [1]}
    assert _answer(NetConfig(**SMALL, attention=attention, token_reduction=reduction)).shape == (1, 2, 4, 8, 12)


@pytest.mark.parametrize("key", list(BLOCKS.get("mixer", {})))
def test_mixer_at_a_stage(key: str) -> None:
    mixer = {"name": key, "stages": [0], **examples.MIXER.get(key, {})}
    assert _answer(NetConfig(**SMALL, mixer=mixer)).shape == (1, 2, 4, 8, 12)


def test_voxel_attention_starts_as_the_identity() -> None:
    config = NetConfig(**SMALL, attention={"name": "softmax", "num_heads": 2})
    torch.manual_seed(0)
    net = GroundingNet(config, text_channels=6)
    plain = GroundingNet(NetConfig(**SMALL), text_channels=6)
    plain.load_state_dict({n: p for n, p in net.state_dict().items() if ".voxels." not in n})
    image, tokens = torch.rand(1, 2, 4, 8, 12), torch.randn(1, 2, 5, 6)
    mask = torch.ones(1, 2, 5, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(net(image, tokens, mask), plain(image, tokens, mask))


def test_configs_that_do_not_fit_are_refused() -> None:
    for wrong in (
        {"attention": {"name": "softmx"}},
        {"attention": {"name": "softmax", "stages": [2]}},
        {"attention": {"num_heads": 2}},
        {"token_reduction": {"name": "none"}},
        {"mixer": {"name": "no_such"}},
    ):
        with pytest.raises(BlockError):
            NetConfig(**SMALL, **wrong)
    with pytest.raises(BlockError, match="num_heads=3"):
        GroundingNet(NetConfig(**SMALL, attention={"name": "softmax", "num_heads": 3}), text_channels=6)

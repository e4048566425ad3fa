"""Attention blocks of the registry inside the contextual gate, by config: what holds of the gate holds with each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.kernels._shared.errors import BackendUnavailableError
from petground.models import BlockError, build
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BLOCKS, list_blocks
from tests.models.conformance.examples import ATTENTION as EXAMPLES
from tests.models.conformance.idle import declared, without_gradient

SMALL: dict[str, Any] = {"features": [4, 8, 8], "blocks_per_stage": 1, "decoder_convs": 1, "fusion_stages": [0, 1]}
CROSS = [key for key, block in BLOCKS["attention"].items() if "cross" in block.patterns]
NOT_CROSS = [key for key, block in BLOCKS["attention"].items() if "cross" not in block.patterns]


def _named(key: str, **options: Any) -> dict[str, Any]:
    return {"name": key, **EXAMPLES.get(key, {}), **options}


def _gate(key: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    gate = build("fusion", "contextual_gate", channels=8, text_channels=6, **options, attention=_named(key))
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return gate.double().eval()


def _config(key: str, **options: Any) -> NetConfig:
    fusion = {"name": "contextual_gate", "num_heads": 2, "attention": _named(key), **options}
    return NetConfig(**SMALL, fusion=fusion)


def _net(config: NetConfig) -> GroundingNet:
    torch.manual_seed(0)
    return GroundingNet(config, text_channels=6)


def _asked() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(1, 3, 5, dtype=torch.bool)
    mask[0, 0, 2:] = False
    mask[0, 1, 0] = False
    return torch.rand(1, 2, 4, 8, 12), torch.randn(1, 3, 5, 6), mask


@pytest.mark.parametrize("key", CROSS)
def test_in_the_network(key: str) -> None:
    """Shapes, gradients of all but what is declared, the block's own state in the checkpoint and back."""
    config = _config(key, coordinates="fourier")
    net, (image, tokens, mask) = _net(config), _asked()
    out = net(image, tokens, mask)
    out.square().mean().backward()
    assert out.shape == (1, 3, 4, 8, 12)
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(one.grad).all() for one in net.parameters() if one.grad is not None)
    without = without_gradient(net)
    assert without == declared(without, [BLOCKS["attention"][key]])
    inner = [name for name, _ in net.named_parameters() if ".fusion.attention." in name]
    assert len(inner) == 2 * len(list(_gate(key, num_heads=2).attention.parameters()))
    with torch.no_grad():
        for one in net.parameters():
            one.add_(0.1 * torch.randn_like(one))
        again = GroundingNet(NetConfig(**asdict(config)), text_channels=6)
        again.load_state_dict(net.state_dict())
        assert torch.equal(again.eval()(image, tokens, mask), net.eval()(image, tokens, mask))


@pytest.mark.parametrize("key", CROSS)
def test_padding_is_not_read_and_sentences_do_not_see_each_other(key: str) -> None:
    net, (image, tokens, mask) = _net(_config(key)).double().eval(), _asked()
    with torch.no_grad():
        for one in net.parameters():
            one.add_(0.1 * torch.randn_like(one))
        out = net(image.double(), tokens.double(), mask)
        loud = torch.where(mask[..., None], tokens, 50.0).double()
        assert torch.allclose(net(image.double(), loud, mask), out, atol=1e-9)
        assert not torch.allclose(net(image.double(), tokens.double().flip(1), mask), out, atol=1e-6)
        for n in range(3):
            some = slice(n, n + 1)
            alone = net(image.double(), tokens[:, some].double(), mask[:, some])
            assert torch.allclose(alone[:, 0], out[:, n], atol=1e-9)


@pytest.mark.parametrize("key", CROSS)
def test_starts_as_the_identity(key: str) -> None:
    torch.manual_seed(0)
    gate = build(
        *("fusion", "contextual_gate"),
        **{"channels": 8, "text_channels": 6, "num_heads": 2, "form": "residual_gate", "attention": _named(key)},
    )
    x, tokens = torch.randn(2, 8, 3, 4, 5), torch.randn(2, 5, 6)
    assert torch.equal(gate(x, tokens, torch.ones(2, 5, dtype=torch.bool))[0], x)


@pytest.mark.parametrize("key", CROSS)
@pytest.mark.parametrize("heads", [2, 4])
def test_one_token_no_token_and_as_many_tokens_as_voxels(key: str, heads: int) -> None:
    """With equal lengths it is still the tokens whose padding the mask tells."""
    gate, x = _gate(key, num_heads=heads), torch.randn(2, 8, 2, 3, 4).double()
    for words, real in ((1, 1), (5, 0), (24, 7)):
        tokens = torch.randn(2, words, 6).double().requires_grad_()
        mask = (torch.arange(words) < real).expand(2, words)
        out, said = gate(x, tokens, mask)
        assert said is tokens
        assert torch.isfinite(out).all()
        out.square().sum().backward()
        assert torch.isfinite(tokens.grad).all()
        assert (tokens.grad.abs().sum() > 0) == (real > 0)
        assert torch.allclose(gate(x, torch.where(mask[..., None], tokens, 9.0), mask)[0], out, atol=1e-9)


@pytest.mark.parametrize("form", ["gate", "residual_gate"])
@pytest.mark.parametrize("heads", [1, 2])
def test_softmax_by_name_is_the_gate_as_it_is(form: str, heads: int) -> None:
    """The same layers around the same softmax: one state for both, and the same answers."""
    named = _gate("softmax", form=form, num_heads=heads)
    plain = build("fusion", "contextual_gate", channels=8, text_channels=6, form=form, num_heads=heads).double().eval()
    assert list(plain.state_dict()) == list(named.state_dict())
    plain.load_state_dict(named.state_dict())
    x, tokens = torch.randn(2, 8, 3, 4, 5).double(), torch.randn(2, 5, 6).double()
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    assert torch.allclose(plain(x, tokens, mask)[0], named(x, tokens, mask)[0], atol=1e-9)


def test_the_block_gets_the_voxels_grid_and_the_heads_of_the_gate() -> None:
    gate, seen = _gate("agent", num_heads=4), {}
    gate.attention.register_forward_pre_hook(lambda _, qkv, given: seen.update(given, q=qkv[0]), with_kwargs=True)
    gate(torch.randn(1, 8, 2, 3, 5).double(), torch.randn(1, 4, 6).double(), torch.ones(1, 4, dtype=torch.bool))
    assert seen["q"].shape == (1, 4, 30, 2)
    assert (seen["grid"].shape_zyx, seen["cross"]) == ((2, 3, 5), True)


@pytest.mark.parametrize(
    ("attention", "told"),
    [
        ("agent", "name a block and its options"),
        ({"pool": [2, 2, 2]}, "name a block and its options"),
        ({"name": "agnt"}, "contextual_gate': attention: no attention block 'agnt'; did you mean agent"),
        ({"name": "agent", "pol": [2, 2, 2]}, "attention 'agent' has no option 'pol'; did you mean pool"),
        ({"name": "agent", "dwc": 1}, "'agent': dwc is 1, expected bool"),
        ({"name": "agent", "num_heads": 2}, "attention has no num_heads of its own"),
        ({"name": "agent", "channels": 2}, "attention has no channels of its own"),
        *(({"name": key}, f"attention: '{key}' does not serve the cross pattern.*softmax") for key in NOT_CROSS),
    ],
)
def test_mistakes_are_named_when_the_config_is_read(attention: Any, told: str) -> None:
    with pytest.raises(BlockError, match=told):
        NetConfig(**SMALL, fusion={"name": "contextual_gate", "attention": attention})


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(BlockError, match="backend=sdpa"):
        _gate("agent", backend="sdpa")
    with pytest.raises(BlockError, match="pool"):
        build("fusion", "contextual_gate", channels=8, text_channels=6, attention={"name": "agent", "pool": [2, 2]})


def test_a_backend_that_cannot_be_had_is_said_once_by_the_block_that_asked() -> None:
    torch.manual_seed(0)
    inner = {"name": "agent", "backend": "triton"}
    gate = build("fusion", "contextual_gate", channels=8, text_channels=6, attention=inner)
    with pytest.raises(BackendUnavailableError, match=r"^agent: backend is .*: agent_attention: backend .t"):
        gate(torch.randn(1, 8, 2, 3, 4), torch.randn(1, 4, 6), torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("key", CROSS)
def test_under_autocast(key: str) -> None:
    """As `trainer.precision: bf16-mixed` runs it."""
    net, asked = _net(_config(key, norm=True, coordinates="linear")), _asked()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(*asked)
    out.float().square().mean().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(one.grad).all() for one in net.parameters() if one.grad is not None)


def test_idle_parameters_are_declared_where_the_gate_is() -> None:
    assert _config("agent").idle
    assert not _config("softmax").idle
    assert not NetConfig(**{**SMALL, "fusion_stages": []}, fusion=_config("agent").fusion).idle


def test_the_listing_names_the_blocks_that_fit() -> None:
    row = next(row for row in list_blocks("fusion") if row["key"] == "contextual_gate")
    assert row["options"]["attention"] is None
    assert row["choices"]["attention"] == [*CROSS, None]

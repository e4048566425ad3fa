"""Layers in other forms than PyTorch's and nnU-Net's: the same weights, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from petground.models import layers
from petground.models.layers import ConvTranspose3d, InstanceNorm3d, PooledConv3d, join_pooling, upsampled
from petground.models.net_config import NetConfig
from petground.models.unet import make_encoder

ORDERS = {"first": torch.contiguous_format, "last": torch.channels_last_3d}


def _all(layer: nn.Module, x: Tensor, above: Tensor, *, narrow: bool) -> list[Tensor]:
    """The answer and the gradients of x and of every parameter."""
    x = x.detach().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        out = layer(x)
    out.backward(above.to(out.dtype))
    return [out.detach(), x.grad, *(one.grad for one in layer.parameters())]  # type: ignore[list-item]


def _agree(found: list[Tensor], wanted: list[Tensor], within: float) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other.double()).abs().max() <= within * other.double().abs().max()


@pytest.mark.parametrize("many", [0, 32**3], ids=["joined", "apart"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", [(2, 2, 2), (1, 2, 3), (2, 1, 1)])
@pytest.mark.parametrize(("dtype", "narrow", "within"), [
    (torch.float64, False, 1e-12), (torch.float32, False, 1e-5), (torch.float32, True, 2e-2)])  # fmt: skip
def test_pooling_and_projection_in_one_convolution(
    block: tuple[int, int, int], order: str, dtype: torch.dtype, narrow: bool, within: float, many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where the grid is no multiple of the block: what is left over at the end is not read."""
    monkeypatch.setattr(layers, "_MANY", many)
    torch.manual_seed(0)
    projection = nn.Conv3d(3, 5, 1, bias=False).to(dtype)
    x = torch.randn(2, 3, 7, 9, 11, dtype=dtype).to(memory_format=ORDERS[order])
    apart = nn.Sequential(nn.AvgPool3d(block), projection)
    above = torch.randn_like(apart(x))
    joined = PooledConv3d(projection, block)
    assert joined.weight is projection.weight
    # the wanted ones first: both have one weight, whose gradient is cleared
    wanted = [one.clone() for one in _all(apart, x, above, narrow=False)]
    _agree(_all(joined, x, above, narrow=narrow), wanted, within)


def test_an_encoder_with_joined_shortcuts_is_nnunets(monkeypatch: pytest.MonkeyPatch) -> None:
    """By weights of nnU-Net's own, under the same names; every shortcut that pools and projects is joined."""
    monkeypatch.setattr(layers, "_MANY", 0)
    config: dict[str, Any] = {
        "features": [4, 6, 8, 8], "encoder": "residual", "blocks_per_stage": [1, 2, 1, 1],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]], "fusion_stages": [0],
    }  # fmt: skip
    ours = make_encoder(NetConfig(**config))
    theirs = ResidualEncoder(
        2, 4, [4, 6, 8, 8], nn.Conv3d, [[3, 3, 3]] * 4, config["strides"], [1, 2, 1, 1], conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, return_skips=True,
    )  # fmt: skip
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    joined = [layer.block_zyx for layer in ours.modules() if isinstance(layer, PooledConv3d)]
    assert joined == [(1, 2, 2), (2, 2, 2)], "the last stage does not project"
    assert sum(isinstance(layer, nn.AvgPool3d) for layer in ours.modules()) == 1
    image = torch.randn(1, 2, 8, 16, 24)
    for one, other in zip(ours(image), theirs(image), strict=True):
        torch.testing.assert_close(one, other)


def test_joining_twice_changes_nothing() -> None:
    encoder = make_encoder(NetConfig(features=[4, 6], encoder="residual", blocks_per_stage=[1, 1], fusion_stages=[0]))
    before = dict(encoder.named_modules())
    join_pooling(encoder)
    assert dict(encoder.named_modules()) == before


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dtype", "narrow", "within"), [
    (torch.float64, False, 1e-12), (torch.float32, False, 1e-5), (torch.float32, True, 2e-2)])  # fmt: skip
def test_transposed_convolution_with_a_bias_gradient_of_its_own(
    batch: int, order: str, dtype: torch.dtype, narrow: bool, within: float
) -> None:
    torch.manual_seed(1)
    plain, ours = (kind(4, 3, (1, 2, 2), (1, 2, 2)).to(dtype) for kind in (nn.ConvTranspose3d, ConvTranspose3d))
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(batch, 4, 3, 5, 7, dtype=dtype).to(memory_format=ORDERS[order])
    above = torch.randn(batch, 3, 3, 10, 14, dtype=dtype) + 1.0
    wanted = _all(plain, x, above, narrow=False)
    _agree(_all(ours, x, above, narrow=narrow), wanted, within)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow), torch.no_grad():
        assert torch.equal(ours(x), plain(x))


def test_layers_compile_whole() -> None:
    """Within torch.compile they are PyTorch's own, where those are quicker."""
    net = nn.Sequential(ConvTranspose3d(3, 4, 2, 2), InstanceNorm3d(4, affine=True),
                        PooledConv3d(nn.Conv3d(4, 2, 1), (2, 2, 2)))  # fmt: skip
    x, code = torch.randn(2, 3, 3, 4, 5), []

    def keep(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        code.append(graph.code)
        return graph

    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend=keep)(x), net(x))
    assert "avg_pool3d" in code[0]
    assert "expand" not in code[0]


def test_what_follows_a_transposed_convolution_may_work_in_place() -> None:
    torch.manual_seed(0)
    up = ConvTranspose3d(3, 4, 2, 2)
    x = torch.randn(2, 3, 2, 3, 4)
    found = []
    for layer in (nn.Sequential(up, nn.LeakyReLU(0.1, inplace=True)), nn.Sequential(up, nn.LeakyReLU(0.1))):
        up.zero_grad()
        out = layer(x)
        out.square().sum().backward()
        found.append([out, up.weight.grad, up.bias.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    up.bias.requires_grad_(False)
    up(x).sum().backward()
    torch.testing.assert_close(up(x[0]), up(x)[0])  # without a batch, as PyTorch's takes it


def test_bfloat16_without_autocast_pools_on_coarse_grids() -> None:
    """PyTorch's average pooling has no bfloat16 on CPUs."""
    layer = PooledConv3d(nn.Conv3d(4, 2, 1), (2, 2, 2))
    x = torch.randn(1, 4, 4, 4, 6)
    torch.testing.assert_close(layer.bfloat16()(x.bfloat16()).float(), layer.float()(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("grid", "wanted"), [((3, 5, 4), (6, 10, 8)), ((2, 1, 7), (5, 1, 13)), ((4, 6, 3), (4, 3, 9))])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_upsampled_is_trilinear_interpolation(
    grid: tuple[int, int, int], wanted: tuple[int, int, int], order: str, dtype: torch.dtype, within: float
) -> None:
    """Values and gradients; under autocast too, whose products would be bfloat16's."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *grid, dtype=dtype).to(memory_format=ORDERS[order])
    above = torch.randn(2, 3, *wanted, dtype=dtype)
    both = []
    for work in (
        lambda y: upsampled(y, wanted),
        lambda y: interpolate(y, wanted, mode="trilinear", align_corners=False),
    ):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float64):
            out = work(leaf)
        assert out.dtype == dtype
        out.backward(above)
        both.append([out.detach(), leaf.grad])
    _agree(*both, within)

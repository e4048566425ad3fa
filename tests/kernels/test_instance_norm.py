"""Instance normalisation in channels-last order is PyTorch's function, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import instance_norm as plain

from petground.kernels.instance_norm import instance_norm
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.training.runtime import channels_last_on_cpu

LAST = torch.channels_last_3d


ORDERS = {"first": torch.contiguous_format, "last": LAST}


def _made(shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and a gradient from above, much of which the norm takes away; channels differ."""
    torch.manual_seed(len(shape) + shape[1])
    spread = torch.linspace(0.3, 3.0, shape[1])[:, None, None, None]
    x = (mean + spread + spread * torch.randn(shape)).to(dtype).to(memory_format=LAST)
    above = torch.randn(shape) + 3.0 + 3.0 * plain(x.float())
    return x, torch.linspace(-1.0, 2.0, shape[1]), torch.linspace(1.0, -1.0, shape[1]), above.to(dtype)


def _all(norm: Any, x: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in (x, weight, bias)]
    out = norm(leaves[0], weight=leaves[1], bias=leaves[2], eps=1e-5)
    return [out.detach(), *torch.autograd.grad(out, leaves, above)]


@pytest.mark.parametrize("of_gradient", ORDERS)
@pytest.mark.parametrize("of_features", ORDERS)
@pytest.mark.parametrize(
    "shape", [(1, 3, 7, 9, 11), (3, 5, 4, 1, 6), (2, 4, 1, 3, 5), (1, 4, 1, 1, 6), (2, 2, 1, 2, 2)]
)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_it_is_pytorchs_function_and_gradient(
    shape: tuple[int, ...], dtype: torch.dtype, within: float, of_features: str, of_gradient: str
) -> None:
    """Whatever the order in memory of features and gradient; PyTorch's own gradient is wrong where they differ."""
    x, weight, bias, above = _made(shape, dtype)
    own = torch.promote_types(dtype, torch.float32)
    given = (
        x.contiguous(memory_format=ORDERS[of_features]),
        weight.to(own),
        bias.to(own),
        above.contiguous(memory_format=ORDERS[of_gradient]),
    )
    wanted = _all(plain, *(one.double().contiguous() for one in given))
    found = _all(instance_norm, *given)
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).abs().max() <= within * other.abs().max()
    assert [one.dtype for one in found] == [dtype, dtype, own, own]
    if of_features == "last" and shape[2] * shape[3] > 1:
        assert all(one.is_contiguous(memory_format=LAST) for one in found[:2])


def test_a_residual_encoder_has_the_gradients_in_bfloat16_that_it_has_in_float32() -> None:
    """One exam, weights channels last, as it is trained on a CPU: its shortcuts bring both orders together."""
    config = {"features": [8, 16, 16], "encoder": "residual", "blocks_per_stage": [1, 1, 1],
        "fusion": {"name": "none"}, "fusion_stages": [0, 1]}  # fmt: skip
    torch.manual_seed(0)
    net = GroundingNet(NetConfig(**config), 4)
    channels_last_on_cpu(net)
    image, wanted = torch.randn(1, 2, 16, 16, 24), torch.randn(1, 1, 16, 16, 24)
    found = []
    for narrow in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out = net(image, torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 1, dtype=torch.bool))
        (out.float() * wanted).sum().backward()
        found.append(
            {name: one.grad.flatten().double() for name, one in net.encoder.named_parameters() if one.ndim == 5}
        )
    alike = {name: float(torch.cosine_similarity(one, found[1][name], dim=0)) for name, one in found[0].items()}
    assert any("skip" in name for name in alike)
    assert min(alike.values()) > 0.8, alike


def test_gradients_against_finite_differences() -> None:
    x, weight, bias, _ = _made((2, 3, 2, 3, 2), torch.float64)
    leaves = [
        one.double().detach().clone(memory_format=torch.preserve_format).requires_grad_() for one in (x, weight, bias)
    ]
    assert not leaves[0].is_contiguous()
    assert torch.autograd.gradcheck(instance_norm, leaves)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_voxels_far_from_zero(threads: int) -> None:
    """330 000 voxels, which must not be added up one by one."""
    x, weight, bias, _ = _made((1, 2, 64, 64, 80), torch.float32, mean=100.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = instance_norm(x, weight, bias)
    finally:
        torch.set_num_threads(before)
    wanted = plain(x.double(), weight=weight.double(), bias=bias.double())
    assert (found - wanted).abs().max() < 3e-4


def test_entries_do_not_see_each_other() -> None:
    x, weight, bias, _ = _made((2, 3, 3, 4, 5), torch.float32)
    other = x.clone(memory_format=torch.preserve_format)
    other[1] = torch.nan
    assert torch.equal(instance_norm(x, weight, bias)[0], instance_norm(other, weight, bias)[0])


def test_other_orders_and_compiled_graphs_go_by_pytorch() -> None:
    x, weight, bias, _ = _made((2, 3, 3, 4, 5), torch.float32)
    first = x.contiguous()
    assert torch.equal(instance_norm(first, weight, bias), plain(first, weight=weight, bias=bias))
    graphs: list[Any] = []
    compiled = torch.compile(
        instance_norm, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward
    )
    assert torch.allclose(compiled(x, weight, bias), instance_norm(x, weight, bias), atol=1e-5)
    assert "instance_norm" in graphs[0].code
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        instance_norm(x[:, :, :1, :1, :1], weight, bias)

"""Instance normalisation in channels-last order is PyTorch's function, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import instance_norm as plain

from petground.kernels.instance_norm import instance_norm

LAST = torch.channels_last_3d


def _made(shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and a gradient from above; each channel has its own mean and spread."""
    torch.manual_seed(len(shape) + shape[1])
    spread = torch.linspace(0.3, 3.0, shape[1])[:, None, None, None]
    x = (mean + spread + spread * torch.randn(shape)).to(dtype).to(memory_format=LAST)
    return x, torch.linspace(-1.0, 2.0, shape[1]), torch.linspace(1.0, -1.0, shape[1]), torch.randn(shape).to(dtype)


def _all(norm: Any, x: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in (x, weight, bias)]
    out = norm(leaves[0], weight=leaves[1], bias=leaves[2], eps=1e-5)
    return [out.detach(), *torch.autograd.grad(out, leaves, above.to(out.dtype))]


@pytest.mark.parametrize("shape", [(1, 3, 7, 9, 11), (3, 5, 4, 1, 6), (2, 4, 2, 3, 1), (2, 2, 1, 2, 2)])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_pytorchs_function_and_gradient(shape: tuple[int, ...], dtype: torch.dtype, within: float) -> None:
    given = _made(shape, dtype)
    own = torch.promote_types(dtype, torch.float32)
    given = (given[0], given[1].to(own), given[2].to(own), given[3])
    wanted = _all(plain, *(one.double() for one in given))
    found = _all(instance_norm, *given)
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).abs().max() <= within * other.abs().max()
    assert [one.dtype for one in found] == [dtype, dtype, own, own]
    assert all(one.is_contiguous(memory_format=LAST) for one in found[:2])


def test_gradients_against_finite_differences() -> None:
    x, weight, bias, _ = _made((2, 3, 2, 3, 2), torch.float64)
    leaves = [
        one.double().detach().clone(memory_format=torch.preserve_format).requires_grad_() for one in (x, weight, bias)
    ]
    assert not leaves[0].is_contiguous()
    assert torch.autograd.gradcheck(instance_norm, leaves)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_voxels_far_from_zero(threads: int) -> None:
    """Where PyTorch's batch normalisation adds up 300 000 voxels one by one it is off by more than 0.001."""
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

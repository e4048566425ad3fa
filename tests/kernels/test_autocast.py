"""Under autocast the operators compute in the types that they were given, forward and backward alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from petground.kernels.agent_attention import agent_attention
from petground.kernels.cross_attention import cross_attention
from petground.kernels.linear_attention import linear_attention
from petground.kernels.split_attention import prefix_attention
from petground.kernels.text_to_voxel import text_to_voxel
from tests.kernels import routed_cases, window_cases
from tests.kernels.comparing import LIMITS, assert_gradients_close, operands

Case = tuple[Callable[..., Tensor], dict[str, Tensor]]


def attention(operator: Callable[..., Tensor], dtype: torch.dtype, **options: Any) -> Case:
    """Scores of some size: rounded to 16 bits they are far off."""
    q, k, v, mask = operands((2, 2, 70, 40, 8, 5), dtype)
    temperature = torch.linspace(0.6, 1.4, 2, dtype=torch.float64)
    return partial(operator, mask=mask, **options), {"q": 2 * q, "k": 2 * k, "v": v, "temperature": temperature}


def gated(dtype: torch.dtype) -> Case:
    run, tensors = attention(cross_attention, dtype, gate="residual_tanh")
    return run, tensors | {"x": operands((2, 2, 70, 1, 5, 1), dtype, seed=3)[0]}


def windows(name: str, dtype: torch.dtype) -> Case:
    tensors, mask = window_cases.made(name, dtype, batch=2, heads=2)
    return partial(window_cases.run, name, mask=mask), tensors


def routed(dtype: torch.dtype) -> Case:
    tensors, mask = routed_cases.made("volume", dtype, batch=2)
    return partial(routed_cases.run, "volume", mask=mask), tensors


def linear(dtype: torch.dtype, **options: Any) -> Case:
    q, k, v, mask = operands((2, 2, 70, 70, 8, 5), dtype)
    return partial(linear_attention, mask=mask, **options), {"q": q.abs(), "k": k.abs(), "v": v}


def agents(dtype: torch.dtype) -> Case:
    q, k, v, mask = operands((2, 2, 70, 40, 8, 5), dtype)
    bias = operands((1, 2, 6, 1, 40, 1), torch.float32, seed=5)[0]
    return partial(agent_attention, mask=mask), {"q": q, "agents": 2 * q[:, :, :6], "k": k, "v": v, "bias_in": bias}


def prefixes(dtype: torch.dtype) -> Case:
    q, k, v, mask = operands((2, 2, 1, 40, 8, 5), dtype)

    def run(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
        return prefix_attention(q, k, v, mask)

    return run, {"q": 2 * q[0, :, 0], "k": k, "v": v}


CASES: dict[str, Callable[[torch.dtype], Case]] = {
    "cross": partial(attention, cross_attention),
    "cross, sigmoid": partial(attention, cross_attention, activation="sigmoid", shift=-1.0),
    "cross, gated": gated,
    "text to voxel": partial(attention, text_to_voxel),
    "text to voxel, softplus": partial(attention, text_to_voxel, activation="softplus"),
    "windows": partial(windows, "halo"),
    "neighbourhoods": partial(windows, "cut"),
    "routed": routed,
    "linear": partial(linear, normalize=True),
    "linear, ordered": partial(linear, causal=True, log_decay=torch.tensor([-0.1, -0.5])),
    "agents": agents,
    "prefixes": prefixes,
}
OWN_BACKWARD = [name for name in CASES if name.split(",")[0] not in ("linear", "agents", "prefixes")]
WRITTEN = ("agents", "prefixes")  # have no chunked form


def compare(
    name: str, dtype: torch.dtype, backend: str, ratio: float, autocast: Literal["no", "forward", "both"]
) -> None:
    run, tensors = CASES[name](dtype)
    truth = partial(run, backend="reference")

    def own(**tensors: Tensor) -> Tensor:
        out = run(**tensors, backend=backend)
        assert out.dtype == dtype
        return out

    assert_gradients_close(own, truth, tensors, ratio, autocast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_what_auto_takes_for_unfused_scores(name: str, dtype: torch.dtype) -> None:
    compare(name, dtype, "reference" if name in WRITTEN else "chunked", LIMITS[dtype], "forward")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OWN_BACKWARD)
def test_a_backward_of_ones_own_inside_autocast(name: str, dtype: torch.dtype) -> None:
    compare(name, dtype, "chunked", LIMITS[dtype], "both")


@pytest.mark.parametrize("name", CASES)
def test_the_reference_stays_the_truth(name: str) -> None:
    compare(name, torch.float32, "reference", LIMITS[torch.float32], "forward")


@pytest.mark.parametrize("name", ["cross", "text to voxel"])
def test_pytorchs_fused_attention_is_narrowed_as_before(name: str) -> None:
    run, tensors = CASES[name](torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert run(**tensors, backend="sdpa").dtype == torch.bfloat16


@pytest.mark.parametrize(("name", "backend"), [("cross", "chunked"), ("cross", "reference"), ("routed", "chunked")])
def test_compiles_into_one_graph(name: str, backend: str) -> None:
    run, tensors = CASES[name](torch.float32)
    if name == "routed":
        tensors = tensors | {"table": routed_cases.table("volume", 2)}
    leaves = [one.requires_grad_() for one in tensors.values() if one.is_floating_point()]
    compiled = torch.compile(partial(run, backend=backend), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        out, truth = compiled(**tensors), run(**tensors, backend=backend)
    torch.testing.assert_close(out, truth)
    if backend == "chunked":  # PyTorch compiles what it differentiates itself for a backward inside autocast
        push = torch.ones_like(out)
        grads, truths = (torch.autograd.grad(one, leaves, push) for one in (out, truth))
        torch.testing.assert_close(grads, truths)

"""Agent attention by Triton against the two softmaxes: masks, learned biases of any shape, odd sizes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petground.kernels.agent_attention import agent_attention
from petground.kernels.agent_attention.triton import backward_triton, forward_triton
from tests.kernels.comparing import LIMITS, assert_gradients_close, operands, poisoned

# batch, heads, queries, keys, D, E and agents: keys in parts; one of each; more agents than a block; odd everywhere
SIZES = [((2, 2, 40, 99, 8, 5), 6), ((1, 1, 1, 1, 8, 8), 1), ((1, 1, 67, 33, 20, 33), 35), ((2, 3, 5, 9, 7, 7), 3)]


def inputs(size: tuple[int, ...], count: int, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """q, agents, k, v; mask and agent_mask, in which the last of several entries has nothing real."""
    q, k, v, mask = operands(size, dtype, permuted=size[1] > 1)
    _, agents, _, real = operands((*size[:2], 1, count, size[4], 1), dtype, seed=5)
    if size[0] > 1:
        real[-1, 0] = True  # agents without keys
    return {"q": q, "agents": agents, "k": k, "v": v}, {"mask": mask, "agent_mask": real}


def compare(tensors: dict[str, Tensor], masks: dict[str, Tensor], dtype: torch.dtype) -> None:
    with poisoned():
        assert_gradients_close(
            lambda **t: agent_attention(**t, **masks, backend="triton"),
            lambda **t: agent_attention(**t, **masks, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


@pytest.mark.parametrize(("number", "biased"), [(0, True), (1, True), (2, False), (2, True), (3, False)])
def test_equals_reference(number: int, biased: bool) -> None:
    size, count = SIZES[number]
    tensors, masks = inputs(size, count, torch.float32)
    if biased:  # shared by all entries; the queries' lies the other way round in memory
        tensors["bias_in"] = torch.randn(1, size[1], count, size[3])
        tensors["bias_out"] = torch.randn(1, size[1], count, size[2]).transpose(2, 3)
    compare(tensors, masks, torch.float32)
    if number == 3:
        compare(tensors, {}, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    tensors, masks = inputs(SIZES[0][0], SIZES[0][1], dtype)
    tensors["bias_in"] = torch.randn(2, 1, 6, 99).to(dtype)
    compare(tensors, masks, dtype)


@pytest.mark.parametrize("shape", [(2, 3), (1, 1)])
def test_biases_of_any_broadcast_shape(shape: tuple[int, int]) -> None:
    tensors, masks = inputs(SIZES[3][0], SIZES[3][1], torch.float32)
    tensors["bias_in"], tensors["bias_out"] = torch.randn(*shape, 3, 1), torch.randn(*shape, 1, 3)
    compare(tensors, masks, torch.float32)


def test_what_is_not_finite_in_padding_stays_there() -> None:
    tensors, masks = inputs(SIZES[0][0], 6, torch.float32)
    clean = agent_attention(**tensors, **masks, backend="triton")
    for name, mask in (("k", "mask"), ("v", "mask"), ("agents", "agent_mask")):
        tensors[name] = tensors[name].clone()
        tensors[name].transpose(1, 2)[~masks[mask]] = float("nan")
    assert torch.equal(agent_attention(**tensors, **masks, backend="triton"), clean)


def test_two_calls_give_the_same_bits() -> None:
    q, k, v, mask = operands((1, 1, 150, 9, 16, 16), torch.float16)
    bias = torch.randn(1, 1, 150, 9).half()

    def run() -> list[Tensor]:
        out, stat = forward_triton(q, k, v, mask, bias)
        return [out, *backward_triton(out, q, k, v, mask, bias, out, stat, True)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_opcheck() -> None:
    op = torch.ops.petground.biased_attention.default
    q, k, v, mask = operands((1, 2, 20, 5, 8, 8), torch.float32, permuted=True)
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    bias = torch.randn(1, 2, 5, 20).transpose(2, 3).requires_grad_()
    torch.library.opcheck(op, (q, k, v, mask, bias))
    torch.library.opcheck(op, (q, k, v, None, None), test_utils=("test_schema", "test_faketensor"))

"""Agent attention against its two softmaxes written out."""

from __future__ import annotations

import pytest
import torch

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels.agent_attention import agent_attention, agent_maps
from tests.models.conformance.memory import largest_tensor


def heads(count: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 3, count, 4, dtype=torch.float64)


def test_shares_rank_and_the_product_of_the_maps() -> None:
    q, agents, k, v = heads(15, 1), heads(3, 2), heads(11, 3), heads(11, 4)
    mask = torch.rand(2, 11) > 0.3
    ask, read = agent_maps(q, agents, k, mask)
    whole = ask @ read
    assert (whole >= 0).all()
    assert torch.allclose(whole.sum(-1), torch.ones(2, 3, 15, dtype=torch.float64))
    assert torch.linalg.matrix_rank(whole).max() <= 3
    assert (whole.masked_select(~mask[:, None, None]) == 0).all()
    assert torch.allclose(agent_attention(q, agents, k, v, mask=mask), whole @ v, atol=1e-12)


def test_written_out_with_biases() -> None:
    q, a, k, v = heads(7, 1), heads(3, 2), heads(5, 3), heads(5, 4)
    into, out = torch.randn(1, 3, 3, 5, dtype=torch.float64), torch.randn(2, 1, 7, 3, dtype=torch.float64)
    read = (a @ k.mT / 2.0 + into).softmax(-1)
    ask = (q @ a.mT / 2.0 + out).softmax(-1)
    assert torch.allclose(agent_attention(q, a, k, v, bias_in=into, bias_out=out), ask @ read @ v, atol=1e-12)


def test_queries_and_keys_may_be_reordered_under_fixed_agents() -> None:
    q, a, k, v = heads(7, 1), heads(3, 2), heads(5, 3), heads(5, 4)
    rows, cols = torch.randperm(7), torch.randperm(5)
    turned = agent_attention(q[:, :, rows], a, k[:, :, cols], v[:, :, cols])
    assert torch.allclose(turned, agent_attention(q, a, k, v)[:, :, rows], atol=1e-12)


def test_one_agent_answers_everyone_alike_and_void_agents_nobody() -> None:
    q, a, k, v = heads(7, 1), heads(3, 2), heads(5, 3), heads(5, 4)
    one = agent_attention(q, a[:, :, :1], k, v)
    assert torch.allclose(one, one[:, :, :1].expand_as(one), atol=1e-12)
    only_first = torch.tensor([[True, False, False]]).expand(2, -1)
    assert torch.allclose(agent_attention(q, a, k, v, agent_mask=only_first), one, atol=1e-12)
    nobody = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.equal(agent_attention(q, a, k, v, agent_mask=nobody), torch.zeros_like(q))


def test_linear_in_queries_and_keys() -> None:
    q, k, a = torch.randn(1, 1, 6000, 8), torch.randn(1, 1, 7000, 8), torch.randn(1, 1, 16, 8)
    with largest_tensor() as made:
        agent_attention(q, a, k, k)
    assert made.numbers <= 16 * 7000, made.shape


def test_wrong_inputs() -> None:
    q, a, k = heads(7, 1), heads(3, 2), heads(5, 3)
    with pytest.raises(KernelInputError, match="agents"):
        agent_attention(q, a[:, :2], k, k)
    with pytest.raises(KernelInputError, match="agent_mask"):
        agent_attention(q, a, k, k, agent_mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(KernelInputError, match="bias_out"):
        agent_attention(q, a, k, k, bias_out=torch.zeros(1, 1, 5, 3))
    with pytest.raises(BackendUnavailableError, match="reference"):
        agent_attention(q, a, k, k, backend="cuda")

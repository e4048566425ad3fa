"""The gate's layers in another order of memory and in fewer passes: the plain forms' values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from petground.kernels.cross_attention import works_channels_first
from petground.models.blocks.contextual_gate import ContextualGate
from petground.models.blocks.gate_layers import linear_laid_out, residual_gate

KINDS = [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)]


def _all(work: Callable[..., Tensor], leaves: list[Tensor], above: Tensor) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in leaves]
    out = work(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, above.to(out.dtype))]


def _agree(found: list[Tensor], wanted: list[Tensor], within: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other.double()).abs().max() <= within * other.double().abs().max()


def _laid(x: Tensor, *, first: bool) -> Tensor:
    return x.mT.contiguous().mT if first else x.contiguous()


@pytest.mark.parametrize(("dtype", "within"), KINDS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("given_first", [False, True])
@pytest.mark.parametrize("wanted_first", [False, True])
@pytest.mark.parametrize("above_first", [False, True])
def test_linear_layer_in_any_order(
    dtype: torch.dtype, within: float, batch: int, given_first: bool, wanted_first: bool, above_first: bool
) -> None:
    torch.manual_seed(0)
    x, weight, bias, above = torch.randn(batch, 77, 5), torch.randn(3, 5), torch.randn(3), torch.randn(batch, 77, 3)
    leaves = [one.to(dtype) for one in (_laid(x, first=given_first), weight, bias)]
    above = _laid(above.to(dtype), first=above_first)
    found = _all(lambda *given: linear_laid_out(*given, channels_first=wanted_first), leaves, above)
    _agree(found, _all(linear, [one.double() for one in leaves], above), within)
    assert [one.dtype for one in found] == [dtype] * 4
    assert (found[0].stride(1) == 1) == wanted_first
    assert (found[1].stride(1) == 1) == given_first, "the layer before it has to copy"


@pytest.mark.parametrize(("dtype", "within"), KINDS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_residual_gate_is_its_formula(dtype: torch.dtype, within: float, order: torch.memory_format) -> None:
    """Also far out, where tanh is 1 or -1; the answer lies as the features do."""
    torch.manual_seed(0)
    x, answer, above = (torch.randn(2, 3, 7, 9, 11).to(dtype) for _ in range(3))
    x, answer = x.to(memory_format=order), answer * 3.0
    answer[0, 0, 0, 0, :4] = torch.tensor([0.0, 40.0, -40.0, 300.0], dtype=dtype)

    def formula(x: Tensor, answer: Tensor) -> Tensor:
        return x * (1.0 + torch.tanh(answer)) + answer

    found = _all(residual_gate, [x, answer], above)
    for one, other in zip(found, _all(formula, [x.double(), answer.double()], above), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=within, atol=within)
    assert found[0].stride() == x.stride()
    assert torch.equal(residual_gate(x, torch.zeros_like(answer)), x), "it is the identity at the start"


@pytest.mark.parametrize("sentences", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_gate_over_many_voxels_is_the_reference(sentences: int, dropout: float) -> None:
    """4,096 voxels and more go channels first through the attention on CPUs; words are padded, a sentence is empty."""
    grids, narrow = (16, 16, 17), torch.zeros(1, 4, 4352, 2)
    assert works_channels_first(narrow, torch.zeros(1, 4, 5, 2)), "else this tests nothing"
    torch.manual_seed(0)
    gate = ContextualGate(8, 6, num_heads=4, norm=True, coordinates="fourier", form="residual_gate", dropout=dropout)
    nn.init.normal_(gate.out.weight)
    plain = ContextualGate(
        8, 6, num_heads=4, norm=True, coordinates="fourier", form="residual_gate", dropout=dropout, backend="reference"
    )
    plain.load_state_dict(gate.state_dict())
    assert not works_channels_first(narrow, torch.zeros(1, 4, 5, 2), "reference")
    x = torch.randn(sentences, 8, *grids).to(memory_format=torch.channels_last_3d)
    tokens, above = torch.randn(sentences, 5, 6), torch.randn(sentences, 8, *grids)
    mask = torch.arange(5).expand(sentences, -1) < torch.tensor([[3], [0]])[:sentences]
    found = []
    gate.key.bias.requires_grad_(False), plain.key.bias.requires_grad_(False)  # shifts all scores: no gradient
    for block in (gate, plain):
        torch.manual_seed(1)  # the same voxels are dropped
        leaves = [one.clone().requires_grad_() for one in (x, tokens)]
        out, _ = block(*leaves, mask)
        leaves += [one for one in block.parameters() if one.requires_grad]
        found.append([out.detach(), *torch.autograd.grad(out, leaves, above)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_a_gate_in_bfloat16_has_the_gradients_of_float32() -> None:
    torch.manual_seed(0)
    gate = ContextualGate(16, 6, num_heads=4, norm=True, coordinates="linear", form="residual_gate")
    nn.init.normal_(gate.out.weight, std=0.2)
    x = torch.randn(2, 16, 16, 16, 17).to(memory_format=torch.channels_last_3d)
    tokens, above = torch.randn(2, 5, 6), torch.randn(2, 16, 16, 16, 17)
    mask = torch.arange(5).expand(2, -1) < torch.tensor([[3], [5]])
    found, answers = [], []
    for narrow in (False, True):
        gate.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out, _ = gate(x.bfloat16() if narrow else x, tokens, mask)
        (out.float() * above).sum().backward()
        answers.append(out.detach().float())
        found.append({name: one.grad.flatten().double() for name, one in gate.named_parameters() if one.grad.any()})
    torch.testing.assert_close(*answers, rtol=0.05, atol=0.05)
    wide, narrowed = found
    assert set(wide) >= {"query.weight", "value.weight", "out.weight", "norm.weight", "position.weight"}
    for name, gradient in wide.items():
        if name == "key.bias":  # a shift of all scores: zero but for rounding
            continue
        assert torch.cosine_similarity(gradient, narrowed[name], dim=0) > 0.99, name

"""Every block compiles as one graph, forward and backward, and says the same: answers and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block
from tests.models.conformance import attention_cases, fusion_cases, mixer_cases, reduction_cases

LONG = {  # nothing of their classes runs by default: 5 seconds and more each
    *("aggregated_attention", "combiner", "dyn_perceiver", "sparseformer_roi"),
    *("lxmert_cross", "v2v_t2v", "deepstack", "glca_pwca", "loopback", "similarity_as_points"),
}


def one_per_class(params: Iterable[Any]) -> list[Any]:
    """The first block of each class runs by default; those that share its code are slow."""
    seen: set[type[nn.Module]] = set()
    marked = []
    for param in params:
        block: Block = param.values[0]
        more = (pytest.mark.slow,) if block.cls in seen or block.key in LONG else ()
        seen.add(block.cls)
        marked.append(pytest.param(block, id=param.id, marks=more))
    return marked


def compiles_alike(run: Callable[..., Tensor | tuple[Tensor, ...]], module: nn.Module, *inputs: Tensor) -> None:
    """`run` reads the inputs and the module's parameters; both of its runs give the same, and the same gradients."""
    torch._dynamo.reset()
    answers = []
    for one in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        leaves = [*(value.detach().clone().requires_grad_() for value in inputs), *module.parameters()]
        out = one(*leaves[: len(inputs)])
        out = out if isinstance(out, tuple) else (out,)
        weights = [torch.arange(part.numel(), dtype=part.dtype).cos().reshape(part.shape) for part in out]
        loss = sum((part * weight).sum() for part, weight in zip(out, weights, strict=True))
        assert isinstance(loss, Tensor)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        answers.append((out, [torch.zeros_like(a) if b is None else b for a, b in zip(leaves, found, strict=True)]))
    for plain, compiled in zip(*answers, strict=True):
        for a, b in zip(plain, compiled, strict=True):
            assert torch.allclose(b, a, atol=1e-9)
    assert any(gradient.abs().sum() > 0 for gradient in answers[0][1][: len(inputs)])


@pytest.mark.parametrize("block", one_per_class(attention_cases.ALL))
def test_attention(block: Block) -> None:
    qkv, given = attention_cases.asked(block, (2, 3, 2))
    module = attention_cases.made(block)
    compiles_alike(lambda *x: module(*x, **given)[0], module, *qkv)


@pytest.mark.parametrize("padded", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["padded", "whole"])
@pytest.mark.parametrize("block", one_per_class(reduction_cases.ALL))
def test_token_reduction(block: Block, padded: bool) -> None:
    tokens, given = reduction_cases.asked((2, 3, 4))
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[0, 17:] = False
    module = reduction_cases.made(block)
    compiles_alike(lambda x: reduction_cases.back(module(x, mask=mask if padded else None, **given)), module, tokens)


@pytest.mark.parametrize("block", one_per_class(mixer_cases.ALL))
def test_mixer(block: Block) -> None:
    module = mixer_cases.made(block)
    compiles_alike(module, module, torch.randn(2, mixer_cases.CHANNELS, 3, 4, 5, dtype=torch.float64))


@pytest.mark.parametrize("block", one_per_class(fusion_cases.ALL))
def test_fusion(block: Block) -> None:
    x, tokens, mask = fusion_cases.asked()
    module, given = fusion_cases.made(block), fusion_cases.skip_of(block, x, 2)
    compiles_alike(lambda a, b: module(a, b, mask, fusion_cases.BOX, **given), module, x, tokens)

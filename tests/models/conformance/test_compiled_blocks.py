"""Every block compiles as one graph, forward and backward, and says the same: answers and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block
from petground.models.blocks.own_losses import listening
from tests.models.conformance import attention_cases, fusion_cases, mixer_cases, reduction_cases

# what draws, or has a loss of its own, runs in training, too; by `make test-all` alone what takes 3 seconds and more
TRAINED = {"hedgehog", "duo", "moh", "routing", "sparsifiner", "ia_red2", "perturbed_topk_tubes", "glca_pwca"}
LONG = {"dyn_perceiver", "loopback"}


def one_per_class(params: Iterable[Any]) -> list[Any]:
    """The first block of each class runs by default, so that each class does; those that share its code are slow."""
    seen: set[type[nn.Module]] = set()
    marked = []
    for param in params:
        block: Block = param.values[0]
        more = (pytest.mark.slow,) if block.cls in seen else ()
        seen.add(block.cls)
        marked.append(pytest.param(block, False, id=param.id, marks=more))
        if block.key in TRAINED | LONG:
            marks = (pytest.mark.slow,) if block.key in LONG else ()
            marked.append(pytest.param(block, True, id=f"{param.id}-in training", marks=marks))
    return marked


def compiles_alike(run: Callable[..., Tensor | tuple[Tensor, ...]], module: nn.Module, *inputs: Tensor) -> None:
    """`run` reads the inputs and the module's parameters; both of its runs give the same, and the same gradients.

    So do the block's own losses, which a training forward holds.
    """
    torch._dynamo.reset()
    answers, state = [], copy.deepcopy(module.state_dict())  # a training forward may move buffers
    for one in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        module.load_state_dict(state)
        torch.manual_seed(0)
        leaves = [*(value.detach().clone().requires_grad_() for value in inputs), *module.parameters()]
        with listening(module) as held:
            out = one(*leaves[: len(inputs)])
        out = out if isinstance(out, tuple) else (out,)
        own = [value for _, calls in held.values() for call in calls for value in call.values()]
        out = (*out, *(value for value in own if value.is_floating_point()))
        weights = [torch.arange(part.numel(), dtype=part.dtype).cos().reshape(part.shape) for part in out]
        loss = sum((part * weight).sum() for part, weight in zip(out, weights, strict=True))
        assert isinstance(loss, Tensor)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        answers.append((out, [torch.zeros_like(a) if b is None else b for a, b in zip(leaves, found, strict=True)]))
    if module.training and getattr(module, "loss_weight", 0):
        assert len(answers[0][0]) > 1  # its own loss is among them
    for plain, compiled in zip(*answers, strict=True):
        for a, b in zip(plain, compiled, strict=True):
            assert torch.allclose(b, a, atol=1e-9)
    assert any(gradient.abs().sum() > 0 for gradient in answers[0][1][: len(inputs)])


@pytest.mark.parametrize(("block", "training"), one_per_class(attention_cases.ALL))
def test_attention(block: Block, training: bool) -> None:
    qkv, given = attention_cases.asked(block, (2, 3, 2))
    module = attention_cases.made(block).train(training)
    compiles_alike(lambda *x: module(*x, **given)[0], module, *qkv)


@pytest.mark.parametrize("padded", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["padded", "whole"])
@pytest.mark.parametrize(("block", "training"), one_per_class(reduction_cases.ALL))
def test_token_reduction(block: Block, training: bool, padded: bool) -> None:
    tokens, given = reduction_cases.asked((2, 3, 4))
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[0, 17:] = False
    drawn = {"estimator": "reinforce"} if training and block.key == "ia_red2" else {}  # else it has no loss of its own
    module = reduction_cases.made(block, **drawn).train(training)
    compiles_alike(lambda x: reduction_cases.back(module(x, mask=mask if padded else None, **given)), module, tokens)


@pytest.mark.parametrize(("block", "training"), one_per_class(mixer_cases.ALL))
def test_mixer(block: Block, training: bool) -> None:
    module = mixer_cases.made(block).train(training)
    compiles_alike(module, module, torch.randn(2, mixer_cases.CHANNELS, 3, 4, 5, dtype=torch.float64))


@pytest.mark.parametrize(("block", "training"), one_per_class(fusion_cases.ALL))
def test_fusion(block: Block, training: bool) -> None:
    x, tokens, mask = fusion_cases.asked()
    module, given = fusion_cases.made(block).train(training), fusion_cases.skip_of(block, x, 2)
    compiles_alike(lambda a, b: module(a, b, mask, fusion_cases.BOX, **given), module, x, tokens)

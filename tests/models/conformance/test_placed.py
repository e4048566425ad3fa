"""Every block against its first tensor: on another device, of another type or width than its parameters it says so."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block, BlockInputError, Reduced
from tests.models.conformance import attention_cases, fusion_cases, mixer_cases, reduction_cases

Call = tuple[nn.Module, list[Tensor], dict[str, Any]]


def _attention(block: Block) -> Call:
    qkv, given = attention_cases.asked(block, (2, 3, 2))
    return attention_cases.made(block), qkv, given


def _token_reduction(block: Block) -> Call:
    tokens, given = reduction_cases.asked((2, 3, 2))
    return reduction_cases.made(block), [tokens], given


def _mixer(block: Block) -> Call:
    return mixer_cases.made(block), [torch.randn(2, mixer_cases.CHANNELS, 2, 3, 2, dtype=torch.float64)], {}


def _fusion(block: Block) -> Call:
    x, tokens, mask = fusion_cases.asked((2, 3, 2))
    return fusion_cases.made(block), [x, tokens, mask], {"box": fusion_cases.BOX, **fusion_cases.skip_of(block, x, 2)}


CALLS: dict[str, Callable[[Block], Call]] = {
    "attention": _attention,
    "token_reduction": _token_reduction,
    "mixer": _mixer,
    "fusion": _fusion,
}
NAMES = {"attention": ["q", "k", "v"], "token_reduction": ["tokens"], "mixer": ["x"], "fusion": ["x", "tokens", "mask"]}
ALL = [
    pytest.param(param.values[0], id=f"{param.values[0].slot}-{param.id}")
    for cases in (attention_cases, reduction_cases, mixer_cases, fusion_cases)
    for param in cases.ALL
]
MOVES: dict[str, Callable[[Any], Any]] = {  # all of the call's tensors alike, so that they go together
    "is on meta": lambda one: one.to("meta"),
    "is torch.float32": lambda one: one.float() if one.is_floating_point() else one,
}


def _all(move: Callable[[Any], Any], values: Any) -> Any:
    if isinstance(values, dict):
        return {name: move(one) if isinstance(one, Tensor) else one for name, one in values.items()}
    return [move(one) for one in values]


def _any(tensors: Iterator[Tensor]) -> bool:
    return next(tensors, None) is not None


def _typed(block: Block, module: nn.Module) -> bool:
    return _any(module.parameters()) and "types" not in block.serves


@pytest.mark.parametrize("told", list(MOVES))
@pytest.mark.parametrize("block", ALL)
def test_all_tensors_elsewhere_than_the_block(block: Block, told: str) -> None:
    module, tensors, given = CALLS[block.slot](block)
    tensors, given = _all(MOVES[told], tensors), _all(MOVES[told], given)
    on_meta = told == "is on meta"
    if not (_typed(block, module) or (on_meta and (_any(module.parameters()) or _any(module.buffers())))):
        if not on_meta:  # it has no type of its own, or takes others
            out = module(*tensors, **given)
            assert (out.tokens if isinstance(out, Reduced) else out[0]).dtype == torch.float32
        return
    by_name = dict(zip(NAMES[block.slot], tensors, strict=True))
    for args, named in ((tensors, {}), ([], by_name)):
        with pytest.raises(BlockInputError, match=rf"^{block.key}: {NAMES[block.slot][0]} {told}.*; (move|give) "):
            module(*args, **named, **given)


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [one for one in ALL if "types" in one.values[0].serves])
def test_other_types_than_the_parameters_give_the_same(block: Block, own: torch.dtype) -> None:
    module, tensors, given = CALLS[block.slot](block)
    other = torch.float32 if own == torch.float64 else torch.float64
    for need_weights in (False, True):  # one path of its code each
        with torch.no_grad():
            truth, _ = module.double()(*tensors, need_weights=need_weights, **given)
            out, _ = module.to(own)(*(one.to(other) for one in tensors), need_weights=need_weights, **given)
        assert out.dtype == other
        assert torch.allclose(out.double(), truth, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("block", reduction_cases.ALL)
def test_tokens_of_another_width(block: Block) -> None:
    """Refused where parameters have one; the rest reduce any."""
    module, (tokens,), given = _token_reduction(block)
    given["text"] = given["text"][..., :4]
    if not _any(module.parameters()):
        assert reduction_cases.back(module(tokens[..., :4], **given)).shape == (2, 12, 4)
        return
    with pytest.raises(BlockInputError, match=rf"^{block.key}: tokens is \(2, 12, 4\); give \[B, N, 8\]"):
        module(tokens[..., :4], **given)


@pytest.mark.parametrize("block", ALL)
def test_float64_mixes_with_nothing_under_autocast_either(block: Block) -> None:
    module, tensors, given = CALLS[block.slot](block)
    if not _typed(block, module):
        return
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(BlockInputError, match=f"^{block.key}: {NAMES[block.slot][0]} is torch.float64; "),
    ):
        module.float()(*tensors, **given)


@pytest.mark.parametrize("block", ALL)
def test_copies_and_pickles_check_alike(block: Block) -> None:
    module, tensors, given = CALLS[block.slot](block)
    if not _typed(block, module):
        return
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        other.float()  # the copy's own parameters count, not those of the first
        with pytest.raises(BlockInputError, match=f"^{block.key}: {NAMES[block.slot][0]} is torch.float64; "):
            other(*tensors, **given)
        module(*tensors, **given)

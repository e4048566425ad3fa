"""No block holds a map of all tokens by all tokens, forward or backward, but for those that say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from petground.models.blocks.attention import grouping
from petground.models.blocks.contract import Block, Grid
from petground.models.blocks.token_reduction import bipartite
from petground.models.registry import build
from tests.models.conformance import attention_cases, examples, fusion_cases, mixer_cases, reduction_cases
from tests.models.conformance.memory import largest_allocation

EDGES = (10, 12)  # of a cube of voxels
LATER = {"deepstack": (20, 24)}  # a few cells of a smaller cube take steps of their own in PyTorch's attention
ALL_OF_IT = {"routing": {"local_heads": 0}}  # a local head would be half of it
MAY_HOLD = {"softmax", "selective_temperature", "duo", "moh"}  # causal with padding: bits, for PyTorch's attention
CHANNELS, HEADS = 8, 2


def grows_as(run: Callable[[int], Any], edges: tuple[int, int]) -> tuple[float, str]:
    """The exponent of the largest allocation over the number of voxels (2: a map), and who allocates."""
    run(3)  # what is made once is not a block's
    (few, _), (many, name) = (largest_allocation(lambda edge=edge: run(edge)) for edge in edges)
    return math.log(many / few) / (3 * math.log(edges[1] / edges[0])), name


def linear(block: Block, run: Callable[[int], Any], *, holds: bool = False) -> None:
    exponent, name = grows_as(run, LATER.get(block.key, EDGES))
    assert (exponent > 1.75) == holds, name


def padding(edge: int) -> Tensor:
    return torch.arange(edge**3)[None] % 7 > 0


def serving(pattern: str) -> list[Any]:
    return [case for case in attention_cases.ALL if pattern in case.values[0].patterns]


def attention(block: Block, **given: Any) -> Callable[[int], None]:
    """The block on a cube of voxels, as wide as its edge."""
    torch.manual_seed(0)
    module = build("attention", block.key, channels=CHANNELS, num_heads=HEADS, **ALL_OF_IT.get(block.key, {})).eval()

    def run(edge: int) -> None:
        qkv = [torch.randn(1, HEADS, edge**3, CHANNELS // HEADS, requires_grad=True) for _ in range(3)]
        where = {key: value(edge) if callable(value) else value for key, value in given.items()}
        module(*qkv, **where)[0].sum().backward()

    return run


@pytest.mark.parametrize("block", serving("self"))
def test_self_attention(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "AT_ONCE", 1 << 14)  # a budget, within which small maps are whole
    linear(block, attention(block, mask=padding, grid=lambda edge: Grid((edge, edge, edge))))


@pytest.mark.parametrize("block", serving("causal"))
def test_causal_attention(block: Block) -> None:
    linear(block, attention(block, mask=padding, causal=True), holds=block.key in MAY_HOLD)
    if block.key in MAY_HOLD:
        linear(block, attention(block, causal=True))


@pytest.mark.parametrize("block", reduction_cases.ALL)
def test_token_reduction(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bipartite, "WHOLE", 1000)  # a budget, within which small graphs are whole
    monkeypatch.setattr(bipartite, "CHUNK", 100)
    torch.manual_seed(0)
    module = build("token_reduction", block.key, channels=CHANNELS).eval()

    def run(edge: int) -> None:
        tokens, text = torch.randn(1, edge**3, CHANNELS, requires_grad=True), torch.randn(1, 5, CHANNELS)
        reduced = module(tokens, mask=padding(edge), grid=Grid((edge, edge, edge)), text=text)
        reduction_cases.back(reduced).sum().backward()

    linear(block, run)


@pytest.mark.parametrize("block", mixer_cases.ALL)
def test_mixer(block: Block) -> None:
    torch.manual_seed(0)
    module = build("mixer", block.key, channels=CHANNELS, **examples.MIXER.get(block.key, {})).eval()
    linear(block, lambda edge: module(torch.randn(1, CHANNELS, edge, edge, edge, requires_grad=True)).sum().backward())


@pytest.mark.parametrize("block", fusion_cases.ALL)
def test_fusion(block: Block) -> None:
    torch.manual_seed(0)
    module = build("fusion", block.key, channels=CHANNELS, text_channels=6).eval()

    def run(edge: int) -> None:
        x, tokens = torch.randn(1, CHANNELS, edge, edge, edge, requires_grad=True), torch.randn(1, 5, 6)
        skip = fusion_cases.skip_of(block, x.detach(), 1)
        module(x, tokens, torch.ones(1, 5, dtype=torch.bool), **skip)[0].sum().backward()

    linear(block, run)


@torch.library.custom_op("petground_tests::all_by_all", mutates_args=())
def all_by_all(x: Tensor) -> Tensor:
    return (x @ x.T).softmax(-1) @ x


@pytest.mark.parametrize("what", [lambda x: (x @ x.T).softmax(-1) @ x, all_by_all], ids=["plain", "inside an operator"])
def test_a_map_is_noticed(what: Callable[[Tensor], Tensor]) -> None:
    assert grows_as(lambda edge: what(torch.randn(edge**3, 4)), EDGES)[0] > 1.9

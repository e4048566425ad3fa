"""Every option of every block does something, and a value of another type is refused before anything is built."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from petground.kernels._shared.errors import BackendUnavailableError
from petground.models.blocks.contract import Block, BlockError, BlockInputError, Grid, Reduced
from petground.models.blocks.own_losses import Outcome, listening, own_losses
from petground.models.registry import BLOCKS, build, check_options
from tests.models.conformance import examples

CHANNELS, TEXT, HEADS = 8, 6, 2
GRID = Grid((3, 5, 7), (4.0, 2.0, 2.0))
GIVEN = ("channels", "text_channels", "num_heads")
BEFORE: dict[tuple[str, str, str], list[list[Any] | None]] = {}
OTHERS: dict[Any, list[Any]] = {  # values of a type, besides those around the one that is there
    int: [0, 1, 2, 3, 4, 5, 40],
    float: [0.0, 0.05, 0.3, 0.7, 0.95, 1.0, 3.0, 20.0],
    Sequence[int]: [[1, 1, 1], [2, 1, 3], [2, 2, 2], [3, 3, 3], [0], [1]],
    Sequence[float]: [[1.0, 3.0], [0.0, 0.1], [0.9, 0.5]],
}
WITH: dict[tuple[str, str], dict[str, Any]] = {  # options that count beside another, as the block's text says
    ("fopru", "heads"): {"strategy": "rank"},
    ("ia_red2", "tau"): {"estimator": "reinforce"},
    ("ia_red2", "loss_weight"): {"estimator": "reinforce"},
    ("aim_merge_prune", "stride_zyx"): {"split": "grid"},
    ("aim_merge_prune", "sizes"): {"merges": 2},  # in the first all are of one voxel
    ("lookup", "backend"): {"back": "softmax"},
    ("perturbed_topk_tubes", "peaks"): {"reach": 0},
    ("perturbed_topk_tubes", "reach"): {"peaks": 1},
    ("duo", "backend"): {"sinks": 0},
    ("moa_spans", "backend"): {"sinks": 0},
    **{(key, "least"): {"layers": 3, "threshold": -2.0} for key in ("dyn_perceiver", "dyvte_exit", "mue_exit")},
}


def _options() -> Iterator[Any]:
    for slot, blocks in BLOCKS.items():
        for key, block in blocks.items():
            for option in inspect.signature(block.cls).parameters:
                if option not in (*GIVEN, *block.preset):
                    yield pytest.param(block, option, id=f"{slot}-{key}-{option}")


@pytest.mark.parametrize(("block", "option"), list(_options()))
def test_an_option_changes_something(block: Block, option: str) -> None:
    sizes: dict[str, Any] = {"channels": CHANNELS, "text_channels": TEXT, "num_heads": HEADS}
    asked = inspect.signature(block.cls).parameters
    given = {key: size for key, size in sizes.items() if key in asked}
    given |= {**getattr(examples, block.slot.upper()).get(block.key, {}), **WITH.get((block.key, option), {})}
    there = given.get(option, asked[option].default)
    base = (block.slot, block.key, repr(given))
    if base not in BEFORE:
        BEFORE[base] = _told(block, given)
    before, tried = BEFORE[base], []
    blocks = [{"name": "kmeans_cross"}] if option in block.holds else None
    for value in blocks or _others(get_type_hints(block.cls.__init__)[option], there):
        try:
            after = _told(block, {**given, option: value})
        except BlockError:
            continue
        tried.append(value)
        if not _same(before, after):
            return
    pytest.fail(f"{option} {there!r} -> {tried}: no difference")


@pytest.mark.parametrize(("block", "option"), list(_options()))
def test_a_value_of_another_type_is_refused(block: Block, option: str) -> None:
    wrong = _wrong(get_type_hints(block.cls.__init__)[option])
    assert wrong
    for value in wrong:
        with pytest.raises(BlockError, match=f"^{block.slot} '{block.key}': {option} is .*(expected|name a block)"):
            check_options(block.slot, block.key, {option: value})


def _wrong(hint: Any) -> list[Any]:
    """Values that are of no part of the type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        each = [_wrong(part) for part in parts if part is not type(None)]
        return [value for value in each[0] if all(repr(value) in map(repr, other) for other in each)]
    if origin is Literal:
        return ["no such", 1, ["auto"], {"auto": 1}]
    if origin is not None:
        inner = [[1, value] for value in _wrong(parts[0])]
        return [*inner, "222", {"z": 1}, float("nan"), True]
    common = ["0.9", [], ["0.9"], {"z": 1}, float("nan"), float("inf")]
    return {bool: [0, 1, *common], int: [True, 1.5, *common], float: [True, *common]}.get(hint, [1, *common])


def _others(hint: Any, there: Any) -> list[Any]:
    """Values of the type that are not the one there."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        found = [value for part in get_args(hint) for value in _others(part, there)]
    elif origin is Literal:
        found = list(get_args(hint))
    elif hint is bool:
        found = [True, False]
    elif hint in (int, float):
        near = [there * 2, there + 1, there / 2] if isinstance(there, (int, float)) else []
        found = [*OTHERS[hint], *(hint(value) for value in near)]
    elif hint is type(None):
        found = [None]
    else:
        kind = get_args(hint)[0]
        found = OTHERS[Sequence[kind]]
    return [value for value in found if value != there]


def _told(block: Block, options: dict[str, Any]) -> list[list[Any] | None]:
    """All that is seen of a block: its parameters; of each call its answer and own losses, None where it refuses."""
    torch.manual_seed(0)
    module = build(block.slot, block.key, **options).double()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            seed = torch.Generator().manual_seed(sum(map(ord, name)))
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seed, dtype=torch.float64))
    told: list[list[Any] | None] = [[shapes, getattr(module, "text_use", None)]]
    outcome = Outcome(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0]]))
    for call in CALLS[block.slot](block):
        for training in (False, True):
            torch.manual_seed(1)
            with ExitStack() as stack:
                held = stack.enter_context(listening(module.train(training)))
                try:
                    answer = call(module)
                    told.append([*answer, *own_losses(held, outcome).values()])
                except BackendUnavailableError as error:  # only the choice of a backend leads to it
                    told.append([str(error)])
                except BlockInputError:
                    told.append(None)
    return told


def _same(one: list[list[Any] | None], other: list[list[Any] | None]) -> bool:
    """Bit for bit: another chunk or another backend rounds otherwise. A call that either refuses tells nothing."""
    return all(
        len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
        if a is not None and b is not None
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _attention(block: Block) -> list[Callable[[nn.Module], list[Any]]]:
    """Each pattern, on the grid and, where it may, off it."""
    grids = [GRID] if "grid" in block.serves else [GRID, None]
    calls = []
    for grid in grids:
        for pattern in sorted(block.patterns):
            q, k, v = (
                _random(2, HEADS, 9 if pattern == "cross" and n else GRID.tokens, CHANNELS // HEADS, seed=n)
                for n in range(3)
            )
            how: dict[str, Any] = {pattern: True} if pattern != "self" else {}
            calls.append(lambda module, q=q, k=k, v=v, g=grid, how=how: [module(q, k, v, grid=g, **how)[0]])
    return calls


def _reduction(block: Block) -> list[Callable[[nn.Module], list[Any]]]:
    """All that may be given, and without each of it."""
    tokens, text, scores = (
        3 * _random(2, GRID.tokens, CHANNELS, seed=0),  # focused maps
        _random(2, 5, CHANNELS, seed=1),
        _random(2, GRID.tokens, seed=2),
    )
    given = {"grid": GRID, "text": text, "scores": scores.sigmoid()}

    def told(module: nn.Module, less: str) -> list[Any]:
        reduced: Reduced = module(tokens, **{key: value for key, value in given.items() if key != less})
        return [
            reduced.tokens,
            reduced.mask,
            reduced.kept,
            reduced.unmerge(reduced.tokens),
            reduced.gain,
            reduced.carry,
        ]

    return [lambda module, less=less: told(module, less) for less in ("", *given)]


def _mixer(block: Block) -> list[Callable[[nn.Module], list[Any]]]:
    return [lambda module: [module(_random(2, CHANNELS, *GRID.shape_zyx, seed=0))]]


def _fusion(block: Block) -> list[Callable[[nn.Module], list[Any]]]:
    x, tokens = _random(2, CHANNELS, *GRID.shape_zyx, seed=0), _random(2, 5, TEXT, seed=1)
    mask = torch.ones(2, 5, dtype=torch.bool)
    box = torch.tensor([[[-1.0, -0.5, -1.0], [0.0, 0.5, 0.25]]] * 2, dtype=torch.float64)
    skip = {"skip": _random(2, CHANNELS, *GRID.shape_zyx, seed=2)} if "skip" in block.serves else {}
    return [lambda module: list(module(x, tokens, mask, box, **skip))]


CALLS = {"attention": _attention, "token_reduction": _reduction, "mixer": _mixer, "fusion": _fusion}

"""Every operator, each tensor that it takes made wrong in every way: an error that names both, or the right numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels._triton.runtime import interpreting
from petground.kernels.agent_attention import agent_attention
from petground.kernels.cross_attention import cross_attention, fold_output
from petground.kernels.linear_attention import linear_attention
from petground.kernels.routed_attention import routed_attention
from petground.kernels.sdpa import masked_sdpa
from petground.kernels.split_attention import prefix_attention
from petground.kernels.text_to_voxel import text_to_voxel
from petground.kernels.token_merge import gather_tokens, merge_tokens, scatter_tokens, unmerge_tokens
from petground.kernels.topk import topk_indices, topk_mask
from petground.kernels.window_attention import neighbourhood_attention, window_attention

GRID = (2, 3, 4)  # 24 voxels
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """A right call, and what of it may be changed and stays right."""

    run: Callable[..., Any]
    given: dict[str, Any]
    longer: str = ""  # "q2 v3": axes that may have any size but 0
    ones: str = ""  # tensors whose axes may be of size 1, or missing
    floats: str = ""  # tensors that may be of any floating type, whatever the others are
    empty: str = ""  # axes that may have size 0


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _bool(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) > 0.3


def _qkv(queries: int, keys: int) -> dict[str, Tensor]:
    return {"q": _draw(2, 3, queries, 4), "k": _draw(2, 3, keys, 4), "v": _draw(2, 3, keys, 5), "mask": _bool(2, keys)}


def _places(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


_HEAT = {"temperature": torch.tensor([0.5, 1.0, 2.0])}
_LISTS = torch.arange(4).expand(2, 3, 4, 4) % 3
CASES: dict[str, Case] = {
    "cross_attention": Case(
        cross_attention, _qkv(7, 6) | _HEAT | {"x": _draw(2, 3, 7, 5), "gate": "tanh"},
        ones="temperature", floats="temperature x",
    ),
    "text_to_voxel": Case(text_to_voxel, _qkv(4, 9) | _HEAT, "q2 v3", "temperature", "temperature"),
    "window_attention": Case(
        window_attention, _qkv(24, 24) | _HEAT | {"grid": GRID, "window": (2, 2, 2), "bias": _draw(3, 27)},
        "v3", "temperature", "temperature bias",
    ),
    "neighbourhood_attention": Case(
        neighbourhood_attention, _qkv(24, 24) | _HEAT | {"grid": GRID, "size": (1, 3, 3), "bias": _draw(3, 1, 5, 5)},
        "v3", "temperature", "temperature bias",
    ),
    "routed_attention": Case(
        routed_attention, _qkv(24, 24) | _HEAT | {"grid": GRID, "region": (2, 2, 2), "table": _LISTS},
        "v3 table3", "temperature table1", "temperature",
    ),
    "agent_attention": Case(
        agent_attention, _qkv(7, 6) | {"agents": _draw(2, 3, 2, 4), "agent_mask": torch.ones(2, 2, dtype=torch.bool)}
        | {"bias_in": _draw(2, 3, 2, 6), "bias_out": _draw(1, 3, 7, 2)},
        "v3 bias_out0", "bias_in bias_out", "bias_in bias_out",
    ),
    "linear_attention": Case(
        linear_attention, _qkv(7, 7) | {"log_decay": -_draw(3).abs(), "causal": True}, "v3", floats="log_decay"
    ),
    "prefix_attention": Case(prefix_attention, _qkv(7, 6) | {"q": _draw(3, 4)}, "v3"),
    "masked_sdpa": Case(
        masked_sdpa, {name: one for name, one in _qkv(7, 6).items() if name != "mask"}
        | {"keep": _bool(2, 1, 7, 6), "bias": _draw(3, 7, 6)},
        "v3", "keep bias", "bias",
    ),
    "fold_output": Case(
        fold_output, {"v": _draw(2, 1, 6, 4), "weight": _draw(5, 4), "bias": _draw(5), "mask": _bool(2, 6)},
        floats="v weight bias",
    ),
    "gather_tokens": Case(
        gather_tokens, {"tokens": _draw(2, 6, 3), "places": _places([5, 0, -1], [2, 2, 4])},
        "tokens1 tokens2 places1", "tokens2 places1", "tokens", "tokens2 places1",
    ),
    "scatter_tokens": Case(
        scatter_tokens,
        {"values": _draw(2, 3, 4), "places": _places([5, 0, -1], [2, 3, 4]), "count": 6, "fill": _draw(2, 6, 4)},
    ),
    "merge_tokens": Case(
        merge_tokens,
        {"tokens": _draw(2, 5, 3), "assignment": _places([0, 1, 1, -1, 2], [2, 2, 2, 0, 0]), "groups": 3}
        | {"weights": _draw(2, 5).abs()},
        "tokens2", "tokens2", "tokens weights", "tokens2",
    ),
    "unmerge_tokens": Case(
        unmerge_tokens, {"values": _draw(2, 3, 4), "assignment": _places([0, 1, 1, -1, 2], [2, 2, 2, 0, 0])},
        "values1 values2 assignment1", "values2 assignment1", "values", "values2 assignment1",
    ),
    "topk_indices": Case(
        topk_indices, {"scores": _draw(2, 6), "k": torch.tensor([2, 3]), "mask": _bool(2, 6), "size": 4},
        floats="scores",
    ),
    "topk_mask": Case(
        topk_mask, {"scores": _draw(2, 6), "k": torch.tensor([2, 3]), "mask": _bool(2, 6)}, floats="scores"
    ),
}  # fmt: skip
ARGUMENTS = [(name, key) for name, case in CASES.items() for key, one in case.given.items() if isinstance(one, Tensor)]
walk = pytest.mark.parametrize(("name", "argument"), ARGUMENTS, ids=str)


def _run(name: str, **changes: Any) -> Any:
    return CASES[name].run(**(CASES[name].given | changes))


def _refused(name: str, argument: str, value: Any) -> None:
    """Where others are compared with what was changed, one of them may be named instead."""
    names = "|".join(CASES[name].given)
    told = names if argument in ("q", "k", "v", "agents", "tokens", "values", "scores", "weight") else argument
    with pytest.raises(KernelInputError, match=rf"^{name}: ({told}) .*expected"):
        _run(name, **{argument: value})


def _same(found: Any, truth: Any, loose: float = 1e-6) -> None:
    torch.testing.assert_close(found, truth, rtol=loose, atol=loose, check_dtype=False)


@walk
def test_another_type(name: str, argument: str) -> None:
    case, one = CASES[name], CASES[name].given[argument]
    kinds = (*FLOATS, torch.bool, torch.int64, torch.complex64, torch.float8_e5m2)
    for kind in (kind for kind in kinds if kind != one.dtype):
        if argument in case.floats.split() and kind in FLOATS:
            exact = one.bfloat16().float()  # what every type holds
            _same(_run(name, **{argument: exact.to(kind)}), _run(name, **{argument: exact}), 2e-2)
        else:
            _refused(name, argument, one.to(kind))


@walk
def test_another_device(name: str, argument: str) -> None:
    _refused(name, argument, CASES[name].given[argument].to("meta"))


@walk
def test_no_tensor(name: str, argument: str) -> None:
    _refused(name, argument, CASES[name].given[argument].tolist())


@walk
def test_another_shape(name: str, argument: str) -> None:
    case, one = CASES[name], CASES[name].given[argument]
    whole = argument in case.ones.split()
    for axis, size in enumerate(one.shape):
        key = f"{argument}{axis}"
        longer = torch.cat([one, one.narrow(axis, 0, 1)], dim=axis)
        if key in case.longer.split():
            _run(name, **{argument: longer})
        else:
            _refused(name, argument, longer)
        short = one.narrow(axis, 0, 1)
        if size > 1 and (whole or key in case.ones.split()):
            shared = short if key in case.longer.split() else short.expand_as(one)
            _same(_run(name, **{argument: short}), _run(name, **{argument: shared}))
        elif size > 1 and key not in case.longer.split():
            _refused(name, argument, short)
        if key in case.empty.split():
            _run(name, **{argument: one.narrow(axis, 0, 0)})
        else:
            _refused(name, argument, one.narrow(axis, 0, 0))
    if not whole:
        _refused(name, argument, one[0])
        _refused(name, argument, one[None])
    elif one.ndim > 1:
        part = one
        while part.ndim:
            part = part[0]
            _same(_run(name, **{argument: part}), _run(name, **{argument: part.expand_as(one)}))


@walk
def test_any_layout_in_memory(name: str, argument: str) -> None:
    one, truth = CASES[name].given[argument], _run(name)
    turned = one.transpose(0, -1).contiguous().transpose(0, -1)
    apart = torch.stack([one, one], dim=-1)[..., 0]
    for laid in (turned, apart):
        assert torch.equal(laid, one)
        _same(_run(name, **{argument: laid}), truth)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("prefix_attention", "masked_sdpa", "fold_output")]
)
def test_a_backend_that_is_not_there(name: str) -> None:
    with pytest.raises(BackendUnavailableError, match=rf"^{name}: no backend 'cute'; there are auto, .*reference"):
        _run(name, backend="cute")
    if not interpreting():
        with pytest.raises(BackendUnavailableError, match=rf"^{name}: backend 'triton' .*serving here: auto"):
            _run(name, backend="triton")


def test_values_that_give_wrong_numbers() -> None:
    for name, told, changes in (
        ("linear_attention", "log_decay holds", {"log_decay": torch.tensor([-1.0, 0.1, 0.0])}),
        ("linear_attention", "log_decay holds", {"log_decay": torch.tensor([-1.0, -torch.inf, 0.0])}),
        ("linear_attention", "log_decay holds", {"log_decay": torch.tensor([-1.0, torch.nan, 0.0])}),
        ("linear_attention", "chunk_size is 2.0", {"chunk_size": 2.0}),
        ("scatter_tokens", "places holds one twice", {"places": _places([5, 0, -1], [2, 3, 2])}),
        ("scatter_tokens", "places holds 6", {"places": _places([5, 0, -1], [2, 3, 6])}),
        ("scatter_tokens", "count is -1", {"count": -1}),
        ("merge_tokens", "weights holds", {"weights": torch.tensor([[1.0, -1, 0, 0, 0]] * 2)}),
        ("merge_tokens", "weights holds", {"weights": torch.tensor([[1.0, torch.nan, 0, 0, 0]] * 2)}),
        ("merge_tokens", "groups is True", {"groups": True}),
        ("gather_tokens", "places holds 6", {"places": _places([5, 0, 6], [2, 3, 4])}),
        ("unmerge_tokens", "assignment holds 3", {"assignment": _places([5, 0, 3], [2, 3, 3]).clamp(max=3)}),
        ("routed_attention", "table names region 4", {"table": _LISTS + 2}),
        ("topk_indices", "k holds -1", {"k": torch.tensor([2, -1])}),
        ("topk_indices", "k is 2.0", {"k": 2.0}),
        ("topk_indices", "size is None", {"size": None}),
        ("topk_mask", "k is True", {"k": True}),
        ("masked_sdpa", "q has 7 tokens and k 6", {"causal": True}),
        ("text_to_voxel", "temperature holds 0", {"temperature": torch.tensor([0.5, 0.0, 1.0])}),
        ("cross_attention", "temperature holds", {"temperature": torch.tensor([0.5, torch.nan, 1.0])}),
        ("cross_attention", "temperature is inf", {"temperature": torch.inf}),
        ("cross_attention", "temperature is True", {"temperature": True}),
        ("cross_attention", "shift is nan", {"shift": torch.nan}),
        ("text_to_voxel", "shift is 'far'", {"shift": "far"}),
        ("window_attention", "temperature is 0", {"temperature": 0}),
    ):
        with pytest.raises(KernelInputError, match=rf"^{name}: {told}.*expected"):
            _run(name, **changes)


def test_numbers_of_numpy_are_numbers() -> None:
    _same(_run("cross_attention", temperature=np.float32(2.0)), _run("cross_attention", temperature=2.0))


def test_what_goes_nowhere_may_be_anything() -> None:
    twice = _run("scatter_tokens", places=_places([5, -1, -1], [2, -3, -3]))
    _same(
        twice[:, 5],
        torch.stack([CASES["scatter_tokens"].given["values"][0, 0], CASES["scatter_tokens"].given["fill"][1, 5]]),
    )
    weights = CASES["merge_tokens"].given["weights"].clone()
    weights[0, 3] = torch.nan  # in no group
    _same(_run("merge_tokens", weights=weights), _run("merge_tokens"))


def test_nothing_of_nothing() -> None:
    """No entries, no tokens, no channels: as much as there is."""
    none = torch.zeros(2, 0, dtype=torch.long)
    assert gather_tokens(_draw(2, 0, 3), none).shape == (2, 0, 3)
    assert torch.equal(gather_tokens(_draw(2, 0, 3), none.new_full((2, 2), -1)), torch.zeros(2, 2, 3))
    assert torch.equal(scatter_tokens(_draw(2, 0, 3), none, 4), torch.zeros(2, 4, 3))
    assert scatter_tokens(_draw(2, 2, 3), none.new_full((2, 2), -1), 0).shape == (2, 0, 3)
    means, sizes = merge_tokens(_draw(2, 0, 3), none, None, 2)
    assert torch.equal(means, torch.zeros(2, 2, 3))
    assert torch.equal(sizes, torch.zeros(2, 2))
    assert torch.equal(unmerge_tokens(_draw(2, 0, 3), none.new_full((2, 2), -1)), torch.zeros(2, 2, 3))
    assert topk_indices(_draw(2, 0), 3).shape == (2, 0)
    assert topk_indices(_draw(0, 5), 3).shape == (0, 3)
    assert topk_mask(_draw(2, 0), 3).shape == (2, 0)


@pytest.mark.parametrize("name", CASES)
def test_the_checks_break_no_graph(name: str) -> None:
    given = CASES[name].given
    torch._dynamo.reset()
    whole = torch.compile(
        lambda tensors: CASES[name].run(**(given | tensors)), fullgraph=True, backend="eager", dynamic=True
    )
    _same(whole({key: one for key, one in given.items() if isinstance(one, Tensor)}), _run(name))

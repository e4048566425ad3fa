"""Every call that the operators' `cases()` make, with numbers in it: what to run, and the same in float64.

`cases()` is also what is compiled ahead of time. The launchers that it calls are watched, and each call is made again
with tensors of the same shapes, strides and types. Against it stands the reference; for windows and routes, where that
would look at every pair of voxels, the chunked backend, which other tests compare with the reference.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from petground.kernels._triton.runtime import capture
from petground.kernels.agent_attention.ops import biased_attention_op
from petground.kernels.agent_attention.reference import agent_maps
from petground.kernels.cross_attention.ops import cross_attention_op
from petground.kernels.cross_attention.reference import cross_attention_reference
from petground.kernels.linear_attention.ops import linear_attention_op
from petground.kernels.linear_attention.reference import linear_attention_quadratic
from petground.kernels.routed_attention.ops import routed_attention_op
from petground.kernels.text_to_voxel.ops import text_to_voxel_op
from petground.kernels.token_merge.ops import gather_op, merge_op, scatter_op
from petground.kernels.token_merge.reference import (
    gather_tokens_reference,
    merge_tokens_reference,
    scatter_tokens_reference,
)
from petground.kernels.topk.ops import topk_op
from petground.kernels.topk.reference import topk_indices_reference, topk_mask_reference
from petground.kernels.window_attention.ops import window_attention_op

__all__ = ["ADAPTERS", "Call", "Problem", "calls_of", "problem_of"]

Real = Callable[[Any], Any]


@dataclass(frozen=True)
class Call:
    """A launcher called by `cases()`; arguments by name, tensors without memory."""

    operator: str
    launcher: str
    case: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What to compare: both take the tensors by name, which get gradients; `plain` in float64."""

    tensors: dict[str, Tensor]
    fused: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    exact: bool = False  # a choice: no gradients, no rounding


def calls_of(operator: str) -> list[Call]:
    """What the operator's `cases()` call, in their order."""
    module = importlib.import_module(f"petground.kernels.{operator}.triton")
    found: list[Call] = []
    label: list[str] = []

    def watched(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(original).bind(*args, **kwargs)
        bound.apply_defaults()
        found.append(Call(operator, name, "", dict(bound.arguments)))
        return original(*args, **kwargs)

    with ExitStack() as stack:
        for name in ADAPTERS[operator]:
            stack.enter_context(patch.object(module, name, partial(watched, name, getattr(module, name))))
        stack.enter_context(capture())
        for case in module.cases():
            label += [case] * (len(found) - len(label))
    return [replace(call, case=case) for call, case in zip(found, label, strict=True)]


def problem_of(call: Call, device: torch.device, *, backend: str = "triton", seed: int = 0) -> Problem:
    """The call with numbers on a device."""
    draw = torch.Generator(device).manual_seed(seed)
    return ADAPTERS[call.operator][call.launcher](call.arguments, partial(_real, device=device, draw=draw), backend)


def _real(value: Any, device: torch.device, draw: torch.Generator) -> Any:
    """A tensor of the same shape, strides and type with normal numbers; of bools three in four are True."""
    if not isinstance(value, Tensor):
        return value
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
    if value.dtype != torch.bool:
        return made.normal_(generator=draw)
    made.copy_(torch.rand(value.shape, generator=draw, device=device) > 0.25)
    made[..., 0] = True
    if len(made) > 1:
        made[-1] = False  # an entry without any real key
    return made


def _attention(a: dict[str, Any], real: Real, names: tuple[str, ...]) -> dict[str, Tensor]:
    tensors = {name: real(a[name]) for name in names if a[name] is not None}
    width = a["q"].shape[3]
    if "scale" in tensors:
        tensors["scale"] = torch.linspace(0.7, 1.3, a["scale"].numel(), device=tensors["q"].device) / width**0.5
        # Its gradient is one number a head: the covariances of scores and of what values are worth, summed over the
        # queries. Of random signs they would cancel and drown an error in rounding. So both depend on the keys' sums:
        # queries are positive, and values have a part of them; what comes from above is positive (`outcome`), and so
        # are the features that a gate multiplies it with.
        for name in {"q", "x"} & set(tensors):
            tensors[name].abs_()
        tensors["v"].add_(tensors["k"].sum(-1, keepdim=True) / width**0.5)
    return tensors


def _cross(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask, kind = real(a["mask"]), {name: a[name] for name in ("activation", "gate", "shift")}

    def fused(q: Tensor, k: Tensor, v: Tensor, scale: Tensor, x: Tensor | None = None) -> Tensor:
        found: Tensor = cross_attention_op(q, k, v, mask, scale, x, *kind.values(), backend)[0]
        return found

    def plain(q: Tensor, k: Tensor, v: Tensor, **rest: Tensor) -> Tensor:
        return cross_attention_reference(q, k, v, mask, **rest, **kind)

    return Problem(_attention(a, real, ("q", "k", "v", "scale", "x")), fused, plain)


def _text(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask, kind = real(a["mask"]), {name: a[name] for name in ("activation", "shift")}

    def fused(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
        found: Tensor = text_to_voxel_op(q, k, v, mask, scale, *kind.values(), backend)[0]
        return found

    def plain(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
        return cross_attention_reference(q, k, v, mask, scale=scale, **kind)

    return Problem(_attention(a, real, ("q", "k", "v", "scale")), fused, plain)


def _window(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask, numbers = real(a["mask"]), a["pattern"].numbers()

    def run(by: str, q: Tensor, k: Tensor, v: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        found: Tensor = window_attention_op(q, k, v, mask, bias, scale, numbers, by)[0]
        return found

    tensors = _attention(a, real, ("q", "k", "v", "bias", "scale"))
    return Problem(tensors, partial(run, backend), partial(run, "chunked"))


def _routed(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask, numbers, table = real(a["mask"]), a["regions"].numbers(), a["table"]
    tensors = _attention(a, real, ("q", "k", "v", "scale"))
    made = torch.Generator().manual_seed(3)
    lists = torch.randint(-1, a["regions"].count, table.shape, generator=made, dtype=table.dtype)
    lists[..., 0].clamp_(min=0)
    lists = lists.to(tensors["q"].device)

    def run(by: str, q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
        found: Tensor = routed_attention_op(q, k, v, lists, mask, scale, numbers, by)[0]
        return found

    return Problem(tensors, partial(run, backend), partial(run, "chunked"))


def _linear(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask, decay, causal, ones = real(a["mask"]), real(a["log_decay"]), a["causal"], a["ones"]
    decay = None if decay is None else -0.05 * decay.abs()
    tensors = _attention(a, real, ("q", "k", "v"))
    # positive features, as feature maps give them: sums of weights must not cancel
    tensors |= {name: tensors[name].abs_().mul_(a["q"].shape[3] ** -0.5) for name in ("q", "k")}

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, total = linear_attention_op(q, k, v, mask, decay, causal, ones)
        return (out / total.masked_fill(total == 0, 1.0).unsqueeze(-1)).to(v.dtype) if ones else out

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = None if decay is None else decay.to(q.dtype)
        return linear_attention_quadratic(q, k, v, mask, wide, causal=causal, normalize=ones)

    return Problem(tensors, fused, plain)


def _agent(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask = real(a["mask"])

    def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        found: Tensor = biased_attention_op(q, k, v, mask, bias)[0]
        return found

    def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        # half of the reference: the queries' map of the "agents" k
        return agent_maps(q, k, k[:, :, :1], None, mask, None, bias)[0] @ v

    return Problem(_attention(a, real, ("q", "k", "v", "bias")), fused, plain)


def _places(like: Tensor, below: int, device: torch.device, *, different: bool) -> Tensor:
    """Whole numbers below `below` as `like` lies in memory, some of them -1."""
    made = torch.Generator().manual_seed(4)
    found = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=device)
    for row in range(like.shape[0]):
        numbers = torch.randperm(below, generator=made) if different else None
        drawn = torch.randint(below, like.shape[1:], generator=made) if numbers is None else numbers[: like.shape[1]]
        found[row] = torch.where(torch.rand(drawn.shape, generator=made) < 0.05, -1, drawn).to(device)
    return found


def _gather(a: dict[str, Any], real: Real, backend: str) -> Problem:
    tokens = real(a["tokens"])
    places = _places(a["places"], tokens.shape[1], tokens.device, different=False)
    return Problem(
        {"tokens": tokens}, lambda tokens: gather_op(tokens, places),
        lambda tokens: gather_tokens_reference(tokens, places),
    )  # fmt: skip


def _scatter(a: dict[str, Any], real: Real, backend: str) -> Problem:
    # without values it is the gradient of one with a fill: that one is run
    given = a["values"] if a["values"] is not None else a["like"]
    tensors = {"values": real(given)} | ({} if a["fill"] is None else {"fill": real(a["fill"])})
    places = _places(a["places"], a["count"], tensors["values"].device, different=True)

    def fused(values: Tensor, fill: Tensor | None = None) -> Tensor:
        found: Tensor = scatter_op(values, places, a["count"], fill)
        return found

    def plain(values: Tensor, fill: Tensor | None = None) -> Tensor:
        return scatter_tokens_reference(values, places, a["count"], fill)

    return Problem(tensors, fused, plain)


def _merge(a: dict[str, Any], real: Real, backend: str) -> Problem:
    tensors = {"tokens": real(a["tokens"])}
    if a["weights"] is not None:
        tensors["weights"] = real(a["weights"]).abs_().add_(0.5)
    assignment = _places(a["assignment"], a["groups"], tensors["tokens"].device, different=False)

    def fused(tokens: Tensor, weights: Tensor | None = None) -> Tensor:
        means, sizes = merge_op(tokens, assignment, weights, a["groups"])
        return torch.cat([means.float(), sizes[..., None]], dim=-1).to(tokens.dtype)

    def plain(tokens: Tensor, weights: Tensor | None = None) -> Tensor:
        means, sizes = merge_tokens_reference(tokens, assignment, weights, a["groups"])
        return torch.cat([means, sizes[..., None]], dim=-1)

    return Problem(tensors, fused, plain)


def _topk(a: dict[str, Any], real: Real, backend: str) -> Problem:
    mask, k, size, places = real(a["mask"]), a["k"], a["size"], a["places"]
    scores = real(a["scores"])
    wanted = None
    if a["wanted"] is not None:
        # the last row, which has nothing to choose from, wants nothing
        wanted = torch.linspace(k, 0, a["wanted"].numel(), device=scores.device).long()

    def fused(scores: Tensor) -> Tensor:
        found: Tensor = topk_op(scores, wanted, k, mask, size, places)
        return found

    def plain(scores: Tensor) -> Tensor:
        number = k if wanted is None else wanted
        if places:
            return topk_indices_reference(scores, number, mask, size)
        return topk_mask_reference(scores, number, mask)

    return Problem({"scores": scores}, fused, plain, exact=True)


# {operator: {launcher of its triton.py: what compares it}}; launchers that only a backward calls are reached by it
ADAPTERS: dict[str, dict[str, Callable[[dict[str, Any], Real, str], Problem]]] = {
    "cross_attention": {"forward_triton": _cross},
    "text_to_voxel": {"forward_triton": _text},
    "window_attention": {"forward_triton": _window},
    "routed_attention": {"forward_triton": _routed},
    "linear_attention": {"forward_triton": _linear},
    "agent_attention": {"forward_triton": _agent},
    "token_merge": {"gather_triton": _gather, "scatter_triton": _scatter, "merge_triton": _merge},
    "topk": {"topk_triton": _topk},
}

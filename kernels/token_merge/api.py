"""Tokens gathered, scattered, merged and un-merged: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.tensor_checks import FLOATS, check_tensor, check_whole, readable
from petground.kernels.token_merge.ops import cannot_serve, gather_op, merge_op, scatter_op
from petground.kernels.token_merge.reference import (
    gather_tokens_reference,
    merge_tokens_reference,
    scatter_tokens_reference,
    unmerge_tokens_reference,
)

__all__ = ["TOKEN_MERGE_BACKENDS", "gather_tokens", "merge_tokens", "scatter_tokens", "unmerge_tokens"]

TOKEN_MERGE_BACKENDS = ("reference", "triton")


def gather_tokens(tokens: Tensor, places: Tensor, *, backend: str = "auto") -> Tensor:
    """The tokens at some places: tokens [B, N, C], places [B, K] long -> [B, K, C], zeros where a place is negative.

    backend: "auto", or one of TOKEN_MERGE_BACKENDS, which raises where it cannot serve.

    Raises KernelInputError for shapes, types, devices or places that do not fit, BackendUnavailableError as above.
    (Places are looked at only on the CPU; a GPU stops at its own bounds check.)
    """
    picked = _check("gather_tokens", "tokens", tokens, backend)
    _check_index("gather_tokens", "places", places, tokens, None, tokens.shape[1])
    if picked == "triton":
        return gather_op(tokens, places)
    return gather_tokens_reference(tokens, places)


def scatter_tokens(
    values: Tensor, places: Tensor, count: int, fill: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """The way back: values [B, K, E] at places [B, K] of [B, count, E]; elsewhere `fill` [B, count, E] or zeros.

    The places of a row must all be different (a GPU keeps any one of the values that share a place), or negative: such
    a value goes nowhere. Raises as `gather_tokens`.
    """
    name = "scatter_tokens"
    picked = _check(name, "values", values, backend)
    check_whole(name, "count", count, 0)
    _check_index(name, "places", places, values, values.shape[1], count)
    batch, _, width = values.shape
    if fill is not None:
        check_tensor(name, "fill", fill, "BNE", (batch, count, width), (values.dtype,), values.device)
    if readable(places) and _repeated(places, count):
        raise KernelInputError(f"{name}: places holds one twice in a row, expected different ones; or merge_tokens")
    if picked == "triton":
        return scatter_op(values, places, count, fill)
    return scatter_tokens_reference(values, places, count, fill)


def merge_tokens(
    tokens: Tensor, assignment: Tensor, weights: Tensor | None, groups: int, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Weighted means of groups: tokens [B, N, C], assignment [B, N] long -> means [B, groups, C], sizes [B, groups].

    assignment: each token's group in 0..groups-1; negative: it is in none (padding, dropped).
    weights: [B, N], not negative; None: all one. sizes are the sums of weights, in float32 at least. A group without
        members or weight has mean zero and size zero; a group of one is its member bit for bit.
    Raises as `gather_tokens`, also for negative weights.
    """
    name = "merge_tokens"
    picked = _check(name, "tokens", tokens, backend)
    check_whole(name, "groups", groups, 0)
    _check_index(name, "assignment", assignment, tokens, tokens.shape[1], groups)
    if weights is not None:
        check_tensor(name, "weights", weights, "BN", tokens.shape[:2], FLOATS, tokens.device)
        # without a group a weight may be anything; NaN would end as a mean of zero
        if readable(weights) and not bool(((weights >= 0) | (assignment < 0)).all()):
            raise KernelInputError(f"{name}: weights holds a number that is negative or NaN, expected 0 or more")
    if picked == "triton":
        return merge_op(tokens, assignment, None if weights is None else weights.float(), groups)
    return merge_tokens_reference(tokens, assignment, weights, groups)


def unmerge_tokens(values: Tensor, assignment: Tensor, *, backend: str = "auto") -> Tensor:
    """Each token gets its group's value: values [B, K, E], assignment [B, N] long -> [B, N, E]; in no group: zeros.

    Raises as `gather_tokens`.
    """
    picked = _check("unmerge_tokens", "values", values, backend)
    _check_index("unmerge_tokens", "assignment", assignment, values, None, values.shape[1])
    if picked == "triton":
        return gather_op(values, assignment)
    return unmerge_tokens_reference(values, assignment)


def _check(operator: str, name: str, tensor: Tensor, backend: str) -> str:
    """The backend to use."""
    check_tensor(operator, name, tensor, "BNC", (None,) * 3, FLOATS, None)
    triton = cannot_serve(tensor, tensor.device)
    if tensor.device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        reasons = {"reference": None, "triton": triton}
    else:
        reasons = {"triton": triton, "reference": None}
    return choose(operator, backend, reasons, f"{tensor.device.type} {tensor.dtype}")


def _check_index(operator: str, name: str, places: Tensor, tensor: Tensor, length: int | None, below: int) -> None:
    check_tensor(operator, name, places, "BK", (tensor.shape[0], length), (torch.long,), tensor.device)
    # on a GPU both backends check the bounds themselves
    if readable(places) and places.numel():
        highest = int(places.max())
        if highest >= below:
            raise KernelInputError(f"{operator}: {name} holds {highest}, expected below {below}")


def _repeated(places: Tensor, count: int) -> bool:
    """Whether a place is named twice in a row; far less than the values themselves is written for it."""
    named = places.new_zeros(places.shape[0], count + 1, dtype=torch.bool)
    named.scatter_(1, places.clamp(min=-1) + 1, True)  # column 0 takes what goes nowhere
    return int(named[:, 1:].sum()) < int((places >= 0).sum())

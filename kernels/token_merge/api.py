"""Tokens gathered, scattered, merged and un-merged: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
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
    picked = _check("tokens", tokens, backend)
    _check_index("places", places, tokens, None, tokens.shape[1])
    if picked == "triton":
        return gather_op(tokens, places)
    return gather_tokens_reference(tokens, places)


def scatter_tokens(
    values: Tensor, places: Tensor, count: int, fill: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """The way back: values [B, K, E] at places [B, K] of [B, count, E]; elsewhere `fill` [B, count, E] or zeros.

    The places of a row must all be different, or negative: such a value goes nowhere. Raises as `gather_tokens`.
    """
    picked = _check("values", values, backend)
    _check_index("places", places, values, values.shape[1], count)
    if fill is not None and (fill.shape != (values.shape[0], count, values.shape[2]) or fill.dtype != values.dtype):
        raise KernelInputError(
            f"fill is {tuple(fill.shape)} {fill.dtype}, expected {(values.shape[0], count, values.shape[2])} as values"
        )
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
    Raises as `gather_tokens`.
    """
    picked = _check("tokens", tokens, backend)
    _check_index("assignment", assignment, tokens, tokens.shape[1], groups)
    if weights is not None and (
        weights.shape != tokens.shape[:2] or not weights.is_floating_point() or weights.device != tokens.device
    ):
        what = f"weights is {tuple(weights.shape)} {weights.dtype} on {weights.device}"
        raise KernelInputError(f"{what}, expected floats {tuple(tokens.shape[:2])} on {tokens.device}")
    if picked == "triton":
        return merge_op(tokens, assignment, None if weights is None else weights.float(), groups)
    return merge_tokens_reference(tokens, assignment, weights, groups)


def unmerge_tokens(values: Tensor, assignment: Tensor, *, backend: str = "auto") -> Tensor:
    """Each token gets its group's value: values [B, K, E], assignment [B, N] long -> [B, N, E]; in no group: zeros.

    Raises as `gather_tokens`.
    """
    picked = _check("values", values, backend)
    _check_index("assignment", assignment, values, None, values.shape[1])
    if picked == "triton":
        return gather_op(values, assignment)
    return unmerge_tokens_reference(values, assignment)


def _check(name: str, tensor: Tensor, backend: str) -> str:
    """The backend to use."""
    if tensor.ndim != 3 or not tensor.is_floating_point():
        raise KernelInputError(f"{name} is {tuple(tensor.shape)} {tensor.dtype}, expected floats [B, N, C]")
    triton = cannot_serve(tensor, tensor.device)
    if tensor.device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        reasons = {"reference": None, "triton": triton}
    else:
        reasons = {"triton": triton, "reference": None}
    return choose("token_merge", backend, reasons, f"{tensor.device.type} {tensor.dtype}")


def _check_index(name: str, places: Tensor, tensor: Tensor, length: int | None, below: int) -> None:
    wanted = (tensor.shape[0], places.shape[1] if length is None and places.ndim == 2 else length)
    if places.dtype != torch.long or tuple(places.shape) != wanted or places.device != tensor.device:
        raise KernelInputError(
            f"{name} is {tuple(places.shape)} {places.dtype} on {places.device}, expected int64 [B, N] with "
            f"B = {tensor.shape[0]}{'' if length is None else f', N = {length}'} on {tensor.device}"
        )
    # looking at the values would stop a GPU's queue and break a compiled graph; both check bounds themselves
    if places.device.type == "cpu" and places.numel() and not torch.compiler.is_compiling():
        highest = int(places.max())
        if highest >= below:
            raise KernelInputError(f"{name} holds {highest}, expected below {below}")

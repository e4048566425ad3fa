"""Tokens gathered, scattered, merged and un-merged by Triton kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from petground.kernels._triton.runtime import launch
from petground.kernels.token_merge.triton_kernels import (
    copy_rows,
    merge_backward,
    piece_sums,
    sum_pieces,
    sum_weights,
)

__all__ = ["cases", "gather_triton", "merge_backward_triton", "merge_triton", "scatter_triton", "sum_triton"]

_LENGTH = 32  # tokens of a piece, and rows of a block
_WARPS = 4


def gather_triton(tokens: Tensor, places: Tensor) -> Tensor:
    """As reference.gather_tokens_reference."""
    _check_below(places, tokens.shape[1])
    out = tokens.new_empty((*places.shape, tokens.shape[2]))
    _copy(tokens, places, out, scatter=False)
    return out


def scatter_triton(values: Tensor | None, places: Tensor, count: int, fill: Tensor | None, like: Tensor) -> Tensor:
    """As reference.scatter_tokens_reference, like `like` [., ., C]; without values zeros are scattered."""
    _check_below(places, count)
    if fill is None:
        out = like.new_zeros((places.shape[0], count, like.shape[2]))
    else:
        out = fill.clone(memory_format=torch.contiguous_format)
    _copy(values, places, out, scatter=True)
    return out


def sum_triton(tokens: Tensor, places: Tensor, count: int) -> Tensor:
    """What `gather_triton` does turned round: tokens [B, N, C] added up at places [B, N] -> [B, count, C]."""
    return _grouped(tokens, *_sorted(places, count), None, None, count)


def merge_triton(tokens: Tensor, assignment: Tensor, weights: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
    """As reference.merge_tokens_reference."""
    _check_below(assignment, groups)
    order, starts = _sorted(assignment, groups)
    if weights is None:
        sizes = starts.diff(dim=1).float()
    else:
        sizes = tokens.new_empty((tokens.shape[0], groups), dtype=torch.float32)
        arguments = {"weights": weights, "order": order, "starts": starts, "sizes": sizes, "groups": groups}
        arguments |= {"weights_b": weights.stride(0), "weights_n": weights.stride(1), "length": order.shape[1]}
        _go(sum_weights, sizes.numel(), arguments | {"BLOCK": 1024})
    return _grouped(tokens, order, starts, weights, sizes, groups), sizes


def merge_backward_triton(
    grad: Tensor, grad_sizes: Tensor, tokens: Tensor, assignment: Tensor, weights: Tensor | None, means: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of tokens and of weights (of size 0 without weights)."""
    batch, length, width = tokens.shape
    dtokens = tokens.new_empty(tokens.shape)
    dweights = sizes.new_empty((0,) if weights is None else (batch, length))
    arguments: dict[str, Any] = {
        "tokens": tokens, "assignment": assignment, "weights": weights, "means": means.contiguous(),
        "sizes": sizes.contiguous(), "grad": grad, "grad_sizes": grad_sizes.contiguous(), "dtokens": dtokens,
        "dweights": dweights, "length": length, "groups": sizes.shape[1], "width": width,
        "assignment_b": assignment.stride(0), "assignment_n": assignment.stride(1),
        "weights_b": 0 if weights is None else weights.stride(0),
        "weights_n": 0 if weights is None else weights.stride(1), "ROWS": _LENGTH, "BLOCK_C": _block(width),
    }  # fmt: skip
    arguments |= _strides("tokens", tokens) | _strides("grad", grad)
    _go(merge_backward, batch * -(-length // _LENGTH) if width else 0, arguments)
    return dtokens, dweights


def _grouped(
    tokens: Tensor, order: Tensor, starts: Tensor, weights: Tensor | None, sizes: Tensor | None, groups: int
) -> Tensor:
    """Sums of groups, of shares of their tokens where there are sizes -> [B, groups, C]."""
    batch, length, width = tokens.shape
    out = tokens.new_empty((batch, groups, width))
    ends = ((starts.diff(dim=1) + (_LENGTH - 1)) // _LENGTH).cumsum(1)
    pieces = length // _LENGTH + min(groups, length)  # enough, whatever the groups: no size depends on the data
    numbers = torch.arange(pieces, device=tokens.device).expand(batch, -1).contiguous()
    arguments: dict[str, Any] = {
        "tokens": tokens, "weights": weights, "sizes": sizes, "order": order, "starts": starts, "ends": ends,
        "groups_of": torch.searchsorted(ends, numbers, right=True),
        "partial": tokens.new_empty((batch, pieces, width), dtype=torch.float32), "out": out,
        "groups": groups, "pieces": pieces, "length": length, "width": width,
        "weights_b": 0 if weights is None else weights.stride(0),
        "weights_n": 0 if weights is None else weights.stride(1),
        "MEAN": sizes is not None, "LENGTH": _LENGTH, "BLOCK_C": _block(width),
    }  # fmt: skip
    arguments |= _strides("tokens", tokens)
    columns = -(-width // _block(width))
    _go(piece_sums, batch * pieces * columns, arguments)
    names = ("starts", "ends", "partial", "out", "groups", "pieces", "width", "LENGTH", "BLOCK_C")
    _go(sum_pieces, batch * groups * columns, {name: arguments[name] for name in names} | {"PIECES": _LENGTH})
    return out


def _sorted(places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens in the order of their groups [B, N], and where each group starts and ends there [B, count + 1]."""
    group = torch.where(places < 0, count, places).to(torch.int32)
    values, order = group.sort(dim=1, stable=True)
    edges = torch.arange(count + 1, device=places.device, dtype=torch.int32).expand(places.shape[0], -1).contiguous()
    return order, torch.searchsorted(values, edges)


def _copy(source: Tensor | None, places: Tensor, out: Tensor, *, scatter: bool) -> None:
    batch, rows = places.shape
    width = out.shape[2]
    arguments: dict[str, Any] = {"source": source, "places": places, "out": out, "rows": rows, "targets": out.shape[1]}
    arguments |= {"width": width, "places_b": places.stride(0), "places_n": places.stride(1), "SCATTER": scatter}
    arguments |= _strides("source", source) | {"ZEROS": source is None, "ROWS": _LENGTH, "BLOCK_C": _block(width)}
    _go(copy_rows, batch * -(-rows // _LENGTH) * -(-width // _block(width)), arguments)


def _check_below(places: Tensor, count: int) -> None:
    """On a GPU a place that is too large stops the program, as PyTorch's own indexing does, without waiting for it."""
    if places.is_cuda and places.numel():
        torch._assert_async((places < count).all(), f"a place or group is not below {count}")


def _strides(name: str, tensor: Tensor | None) -> dict[str, int]:
    return {f"{name}_{axis}": 0 if tensor is None else tensor.stride(at) for at, axis in enumerate("bnc")}


def _block(width: int) -> int:
    return min(64, max(16, 1 << (max(width, 1) - 1).bit_length()))


def _go(kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
    if programs:
        launch(kernel, programs, arguments, num_warps=_WARPS, num_stages=2)


def cases() -> Iterator[str]:
    """Runs everything on meta tensors of every kind that has kernels of its own; yields what it was."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for width in (32, 320):
            tokens = torch.empty(2, width, 4096, dtype=dtype, device="meta").transpose(1, 2)
            places = torch.empty(2, 4096, dtype=torch.long, device="meta")
            few = gather_triton(tokens, places[:, ::4])
            scatter_triton(few, places[:, :1024], 4096, None, few)
            scatter_triton(None, places[:, :1024], 4096, tokens, few)
            sum_triton(few, places[:, :1024], 4096)
            for weights in (None, torch.empty(2, 4096, device="meta")):
                means, sizes = merge_triton(tokens, places, weights, 1024)
                merge_backward_triton(means, sizes, tokens, places, weights, means, sizes)
            yield f"token_merge {str(dtype).removeprefix('torch.')} C={width}"

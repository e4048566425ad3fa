"""Top-k selection with a fixed order of ties: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.tensor_checks import FLOATS, check_tensor, check_whole, readable
from petground.kernels.topk.ops import cannot_serve, topk_op
from petground.kernels.topk.reference import topk_indices_reference, topk_mask_reference

__all__ = ["TOPK_BACKENDS", "topk_indices", "topk_mask"]

TOPK_BACKENDS = ("reference", "triton")
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def topk_indices(
    scores: Tensor, k: int | Tensor, mask: Tensor | None = None, *, size: int | None = None, backend: str = "auto"
) -> Tensor:
    """Where the k highest scores of each row are: [B, size] long, ascending, -1 at the end where a row has fewer.

    Args:
        scores: [B, N] floats. Equal scores: the lower place wins. NaN, -inf and the lowest finite number are equal.
        k: how many; one number, or [B] integers when rows differ.
        mask: [B, N] bool, True where a place may be chosen.
        size: columns of the answer; k by default, needed when k is a tensor (its length must not depend on the data).
        backend: "auto", or one of TOPK_BACKENDS, which raises where it cannot serve.

    Raises KernelInputError for shapes and types that do not fit, BackendUnavailableError as above.
    """
    picked = _check("topk_indices", scores, k, mask, backend)
    if size is None:
        if isinstance(k, Tensor):
            raise KernelInputError("topk_indices: size is None, expected a number where k is a tensor")
        size = min(k, scores.shape[1])
    check_whole("topk_indices", "size", size, 0)
    if size > scores.shape[1]:
        raise KernelInputError(f"topk_indices: size is {size}, expected at most {scores.shape[1]}, as many as scores")
    if picked == "triton":
        return _by_triton(scores, k, mask, size, True)
    return topk_indices_reference(scores, k, mask, size)


def topk_mask(scores: Tensor, k: int | Tensor, mask: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """[B, N] bool, True at the k highest scores of each row; arguments as in `topk_indices`."""
    if _check("topk_mask", scores, k, mask, backend) == "triton":
        return _by_triton(scores, k, mask, scores.shape[1], False)
    return topk_mask_reference(scores, k, mask)


def _by_triton(scores: Tensor, k: int | Tensor, mask: Tensor | None, size: int, places: bool) -> Tensor:
    if isinstance(k, Tensor):
        return topk_op(scores.detach(), k.to(torch.long), size, mask, size, places)
    return topk_op(scores.detach(), None, min(k, size), mask, size, places)


def _check(operator: str, scores: Tensor, k: int | Tensor, mask: Tensor | None, backend: str) -> str:
    """The backend to use."""
    check_tensor(operator, "scores", scores, "BN", (None, None), FLOATS, None)
    if isinstance(k, Tensor):
        check_tensor(operator, "k", k, "B", scores.shape[:1], _WHOLE, scores.device)
        if readable(k) and bool((k < 0).any()):
            raise KernelInputError(f"{operator}: k holds {int(k.min())}, expected 0 or more")
    else:
        check_whole(operator, "k", k, 0)
    if mask is not None:
        check_tensor(operator, "mask", mask, "BN", scores.shape, (torch.bool,), scores.device)
    triton = cannot_serve(scores, scores.device)
    if scores.device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        reasons = {"reference": None, "triton": triton}
    else:
        reasons = {"triton": triton, "reference": None}
    return choose(operator, backend, reasons, f"{scores.device.type} {scores.dtype}")

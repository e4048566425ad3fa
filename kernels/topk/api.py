"""Top-k selection with a fixed order of ties: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels.topk.ops import cannot_serve, topk_op
from petground.kernels.topk.reference import topk_indices_reference, topk_mask_reference

__all__ = ["TOPK_BACKENDS", "topk_indices", "topk_mask"]

TOPK_BACKENDS = ("reference", "triton")


def topk_indices(
    scores: Tensor, k: int | Tensor, mask: Tensor | None = None, *, size: int | None = None, backend: str = "auto"
) -> Tensor:
    """Where the k highest scores of each row are: [B, size] long, ascending, -1 at the end where a row has fewer.

    Args:
        scores: [B, N] floats. Equal scores: the lower place wins. NaN ranks below every number.
        k: how many; one number, or [B] integers when rows differ.
        mask: [B, N] bool, True where a place may be chosen.
        size: columns of the answer; k by default, needed when k is a tensor (its length must not depend on the data).
        backend: "auto", or one of TOPK_BACKENDS, which raises where it cannot serve.

    Raises KernelInputError for shapes and types that do not fit, BackendUnavailableError as above.
    """
    picked = _check(scores, k, mask, backend)
    if size is None:
        if isinstance(k, Tensor):
            raise KernelInputError("k differs between rows: say the size of the answer")
        size = min(k, scores.shape[1])
    if not 0 <= size <= scores.shape[1]:
        raise KernelInputError(f"size {size} not in 0..{scores.shape[1]}, the number of scores")
    if picked == "triton":
        return _by_triton(scores, k, mask, size, True)
    return topk_indices_reference(scores, k, mask, size)


def topk_mask(scores: Tensor, k: int | Tensor, mask: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """[B, N] bool, True at the k highest scores of each row; arguments as in `topk_indices`."""
    if _check(scores, k, mask, backend) == "triton":
        return _by_triton(scores, k, mask, scores.shape[1], False)
    return topk_mask_reference(scores, k, mask)


def _by_triton(scores: Tensor, k: int | Tensor, mask: Tensor | None, size: int, places: bool) -> Tensor:
    if isinstance(k, Tensor):
        return topk_op(scores.detach(), k.to(torch.long), size, mask, size, places)
    return topk_op(scores.detach(), None, min(k, size), mask, size, places)


def _check(scores: Tensor, k: int | Tensor, mask: Tensor | None, backend: str) -> str:
    """The backend to use."""
    if scores.ndim != 2 or not scores.is_floating_point():
        raise KernelInputError(f"scores is {tuple(scores.shape)} {scores.dtype}, expected floats [B, N]")
    if isinstance(k, Tensor):
        if k.shape != scores.shape[:1] or k.is_floating_point() or k.dtype == torch.bool or k.device != scores.device:
            raise KernelInputError(f"k is {tuple(k.shape)} {k.dtype} on {k.device}, expected integers [B], as scores")
    elif k < 0:
        raise KernelInputError(f"k is {k}, expected 0 or more")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != scores.shape or mask.device != scores.device):
        raise KernelInputError(
            f"mask is {mask.dtype} {tuple(mask.shape)} on {mask.device}, expected bool {tuple(scores.shape)} on "
            f"{scores.device}"
        )
    triton = cannot_serve(scores, scores.device)
    if scores.device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        reasons = {"reference": None, "triton": triton}
    else:
        reasons = {"triton": triton, "reference": None}
    return choose("topk", backend, reasons, f"{scores.device.type} {scores.dtype}")

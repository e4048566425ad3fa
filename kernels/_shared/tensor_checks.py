"""Checks of one argument, said alike by all operators: the operator, the argument, what it is and what it must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from petground.kernels._shared.errors import KernelInputError

__all__ = ["FLOATS", "axes_of", "check_broadcast", "check_tensor", "check_whole", "finite_number", "readable"]

NUMBERS = (float, int, np.floating, np.integer, torch.SymFloat, torch.SymInt)
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def axes_of(operator: str, name: str, tensor: Tensor) -> int:
    """How many axes it has. Raises KernelInputError for anything but a tensor."""
    if not isinstance(tensor, Tensor):
        raise KernelInputError(f"{operator}: {name} is {type(tensor).__name__}, expected a tensor")
    return tensor.ndim


def check_tensor(
    operator: str,
    name: str,
    tensor: Tensor,
    axes: str,
    sizes: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    device: torch.device | None,
) -> None:
    """Raises KernelInputError unless `tensor` has these sizes, one of the types, and lies on the device; None is any.

    axes: a letter for each, for the message: "BHND".
    """
    fits = axes_of(operator, name, tensor) == len(sizes)
    for have, want in zip(tensor.shape, sizes, strict=False):
        fits = fits and (want is None or have == want)
    if not fits or tensor.dtype not in dtypes or device not in (None, tensor.device):
        wanted = _wanted(axes, sizes, dtypes, device)
        raise KernelInputError(f"{operator}: {name} is {_told(tensor)}, expected {wanted}")


def check_broadcast(
    operator: str,
    name: str,
    tensor: Tensor,
    axes: str,
    full: Sequence[int],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
) -> Tensor:
    """With all axes of `full`. Raises KernelInputError unless `tensor` can be broadcast to it, or as `check_tensor`."""
    fits = axes_of(operator, name, tensor) <= len(full)
    for have, want in zip(tensor.shape[::-1], full[::-1], strict=False):
        fits = fits and have in (1, want)
    if not fits or tensor.dtype not in dtypes or tensor.device != device:
        wanted = _wanted(axes, full, dtypes, device)
        raise KernelInputError(f"{operator}: {name} is {_told(tensor)}, expected, or broadcastable to, {wanted}")
    return tensor[(None,) * (len(full) - tensor.ndim)]


def check_whole(operator: str, name: str, value: int, least: int) -> None:
    """Raises KernelInputError unless `value` is an int of at least `least`."""
    # True counts as 1 in Python; a compiler that leaves a size open hands over a SymInt
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)) or value < least:
        raise KernelInputError(f"{operator}: {name} is {value!r}, expected an int of at least {least}")


def finite_number(value: Any) -> bool:
    """Whether it is a finite number of Python's or numpy's, or one that a compiler leaves open."""
    if type(value) is bool or not isinstance(value, NUMBERS):
        return False
    number: Any = value
    return bool(number - number == 0.0)  # no function of `math`: they break a compiled graph


def readable(tensor: Tensor) -> bool:
    """Whether values may be looked at: on a GPU that would wait for its queue, and it would break a compiled graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _told(tensor: Tensor) -> str:
    return f"{_short(tensor.dtype)} {tuple(tensor.shape)} on {tensor.device}"


def _wanted(axes: str, sizes: Sequence[int | None], dtypes: Sequence[torch.dtype], device: torch.device | None) -> str:
    each = ", ".join(axis if size is None else f"{axis}={size}" for axis, size in zip(axes, sizes, strict=True))
    where = "" if device is None else f" on {device}"
    return f"{' or '.join(map(_short, dtypes))} [{each}]{where}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

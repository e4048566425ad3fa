"""Autocast kept out of what is to be computed in the types that it was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, infer_schema

__all__ = ["autocast_off", "operator", "widened"]


def autocast_off(like: Tensor) -> torch.autocast:
    """No autocast on the tensor's device, for a `with`."""
    kind = like.device.type
    return torch.autocast("cpu" if kind == "meta" else kind, enabled=False)  # a meta tensor's device has no autocast


def widened(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A torch.library.custom_op petground::`name` that changes no argument and whose body knows no autocast.

    PyTorch leaves autocast on inside: products in float32 would be rounded to 16 bits, and in a forward alone, so that
    the backward, which computes scores again, would take others than those that the saved sums were made of.
    """

    def made(body: Callable[..., Any]) -> Any:
        @wraps(body)
        def run(*args: Any) -> Any:
            with autocast_off(next(one for one in args if isinstance(one, Tensor))):
                return body(*args)

        # of the body: its types are written as its own module knows them
        return custom_op(f"petground::{name}", run, mutates_args=(), schema=infer_schema(body, mutates_args=()))

    return made

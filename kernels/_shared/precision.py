"""Autocast kept out of what is to be computed in the types that it was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.library import custom_op, infer_schema

__all__ = ["autocast_off", "operator", "unrounded", "widened"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def autocast_off(like: Tensor) -> torch.autocast:
    """No autocast on the tensor's device, for a `with`."""
    kind = like.device.type
    return torch.autocast("cpu" if kind == "meta" else kind, enabled=False)  # a meta tensor's device has no autocast


def widened(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unrounded(choice: Callable[_P, _R]) -> Callable[_P, _R]:
    """What chooses by likeness gets its floating tensors in float32 at least, and no autocast.

    Of scores of 16 bits most are equal within one tissue, and the place would choose. Tensors within tuples or lists
    are left as they are.
    """

    def wide(one: Any) -> Any:
        return widened(one) if isinstance(one, Tensor) and one.is_floating_point() else one

    @wraps(choice)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with autocast_off(next(one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))):
            unnarrowed = cast(Callable[..., _R], choice)
            return unnarrowed(*map(wide, args), **{name: wide(one) for name, one in kwargs.items()})

    return run


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

"""A block's `backend`: what its kernels say of one that cannot be had names the block."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

from torch import nn

from petground.kernels._shared.errors import BackendUnavailableError

__all__ = ["Backend", "BlockBackendError", "TokenBackend", "served_by", "tells_backend"]

Backend = Literal["auto", "chunked", "reference", "sdpa", "triton"]  # of attention between streams
TokenBackend = Literal["auto", "reference", "triton"]  # of choosing, gathering and merging tokens


class BlockBackendError(BackendUnavailableError):
    """A block's `backend` that cannot be had here; the message names the block, the argument and what serves."""


_P = ParamSpec("_P")
_R = TypeVar("_R")


def served_by(backend: str, block: nn.Module) -> None:
    """What has a `backend` in the block runs by this one."""
    for one in block.modules():
        if hasattr(one, "backend"):
            cast(Any, one).backend = backend


def tells_backend(
    key: str = "",
) -> Callable[[Callable[Concatenate[Any, _P], _R]], Callable[Concatenate[Any, _P], _R]]:
    """For the forward of a block with a `backend`: what its kernels say of it names the block; "" is its `key`."""

    def told(forward: Callable[Concatenate[Any, _P], _R]) -> Callable[Concatenate[Any, _P], _R]:
        @wraps(forward)
        def run(self: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return forward(self, *args, **kwargs)
            except BlockBackendError:  # of a block within, which has said it
                raise
            except BackendUnavailableError as error:
                raise BlockBackendError(f"{key or self.key}: backend is not available: {error}") from error

        return run

    return told

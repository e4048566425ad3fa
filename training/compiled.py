"""torch.compile of a training step's network; inference and validation, whose shapes change, stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from petground.labeling.errors import ConfigError

__all__ = ["compiled_steps"]

BACKEND = "inductor"
Steps = tuple[Callable[..., Any], Callable[..., Any]]


def compiled_steps(net: nn.Module) -> Steps:
    """The network's encode and decode, compiled at their first call; the module and its state_dict stay as they are.

    Raises ConfigError at the first call when there is no compiler for this device.
    """
    # shapes of training are fixed; only the number of tokens changes, for which a general graph is made
    encode = torch.compile(net.encode, backend=BACKEND, dynamic=None)
    decode = torch.compile(net.decode, backend=BACKEND, dynamic=None)
    return _told(encode), _told(decode)


def _told(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*given: Any) -> Any:
        try:
            return call(*given)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error.inner_exception).strip().splitlines()[0]
            raise ConfigError(
                f"torch.compile failed: {reason}", fix="install a C++ compiler, or leave out model.compile"
            ) from error

    return run

"""Choosing a backend: what "auto" picks is said once in the log, what was asked for by name never falls back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache

import torch

from petground.kernels._shared.errors import BackendUnavailableError

__all__ = ["choose"]

_log = logging.getLogger("petground.kernels")


def choose(operator: str, asked: str, reasons: Mapping[str, str | None], where: str) -> str:
    """The backend to use. `reasons`: {backend: why it cannot serve these tensors, or None}, the preferred first.

    Raises BackendUnavailableError where `asked` does not exist or cannot serve.
    """
    if asked == "auto":
        picked = next(name for name, reason in reasons.items() if reason is None)
        if not torch.compiler.is_compiling():
            _say_once(operator, picked, where)
        return picked
    if asked not in reasons:
        names = ", ".join(sorted(reasons))
        raise BackendUnavailableError(f"{operator}: no backend '{asked}'; there are auto, {names}")
    reason = reasons[asked]
    if reason is not None:
        serving = ", ".join(name for name, why in reasons.items() if why is None)
        raise BackendUnavailableError(f"{operator}: backend '{asked}' {reason}; serving here: auto, {serving}")
    return asked


@cache
def _say_once(operator: str, backend: str, where: str) -> None:
    _log.info("%s on %s: backend %s", operator, where, backend)

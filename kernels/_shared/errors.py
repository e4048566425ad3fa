"""Errors of the operators."""

from __future__ import annotations

__all__ = ["BackendUnavailableError", "KernelInputError"]


class KernelInputError(ValueError):
    """Tensors do not fit together; the message names the axis."""


class BackendUnavailableError(RuntimeError):
    """The backend asked for does not exist here or cannot serve these tensors; the message says what would."""

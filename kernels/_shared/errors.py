"""Errors of the operators."""

from __future__ import annotations

__all__ = ["BackendUnavailableError", "KernelInputError"]


class KernelInputError(ValueError):
    """An argument does not fit; the message names the operator, the argument and what it must be."""


class BackendUnavailableError(RuntimeError):
    """The backend asked for does not exist here or cannot serve these tensors; the message says what would."""

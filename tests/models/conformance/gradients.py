"""Gradients against finite differences, of inputs and of the block's own parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["check_gradients"]


def check_gradients(run: Callable[..., Any], module: nn.Module, *inputs: Tensor) -> None:
    """`run` maps the inputs, in float64, to a tensor or several, by the module and its parameters as they stand."""
    leaves = (*inputs, *module.parameters())  # gradcheck moves them in place: the module sees it
    assert torch.autograd.gradcheck(lambda *x: run(*x[: len(inputs)]), leaves, atol=1e-5, rtol=1e-3, fast_mode=True)

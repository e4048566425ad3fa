"""Activations of attention scores, for the paths written in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["elementwise", "elementwise_", "slope"]


def elementwise(scores: Tensor, activation: str) -> Tensor:
    """Weights of "sigmoid" or "softplus"; these are not normalised."""
    return torch.sigmoid(scores) if activation == "sigmoid" else softplus(scores)


def elementwise_(scores: Tensor, activation: str) -> Tensor:
    """The same in place, where PyTorch has it in place."""
    return scores.sigmoid_() if activation == "sigmoid" else torch.nn.functional.softplus(scores)


def slope(scores: Tensor, weights: Tensor, activation: str) -> Tensor:
    """D weights / d scores."""
    return weights * (1.0 - weights) if activation == "sigmoid" else torch.sigmoid(scores)

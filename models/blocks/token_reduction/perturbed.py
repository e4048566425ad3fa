"""A differentiable top-k: the mean of hard selections under Gaussian noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["hard_topk", "perturbed_topk"]


def _ordered(scores: Tensor, k: int) -> Tensor:
    """The k highest of the last axis, by place: [..., k] long; equal scores: the lower place."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :k].sort(-1).values


def _indicator(places: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """[B, S, k] -> the mean of the one-hot rows over S: [B, k, count]; the S x k x count rows are not held."""
    batch, samples, k = places.shape
    total = torch.zeros(batch, k, count, dtype=dtype, device=places.device)
    share = torch.full((batch, k, samples), 1.0 / samples, dtype=dtype, device=places.device)
    return total.scatter_add(2, places.transpose(1, 2), share)


def hard_topk(scores: Tensor, k: int) -> Tensor:
    """Scores [B, T] -> one-hot rows [B, k, T] of the k highest, in the order of their places."""
    return _indicator(_ordered(scores, k)[:, None], scores.shape[1], scores.dtype)


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, noise: Tensor, k: int, sigma: float) -> Tensor:
        places = _ordered(scores[:, None] + sigma * noise, k)
        ctx.save_for_backward(places, noise)
        ctx.sigma = sigma
        return _indicator(places, scores.shape[1], scores.dtype)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        places, noise = ctx.saved_tensors
        (rows,) = grad
        # E[<one-hot rows, grad> noise] / sigma: the gradient of a Gaussian mean, without a map of T x T
        picked = rows.gather(2, places.transpose(1, 2)).sum(1)  # [B, S]
        return torch.einsum("bs,bst->bt", picked, noise) / (ctx.sigma * noise.shape[1]), None, None, None


def perturbed_topk(scores: Tensor, k: int, samples: int, sigma: float, noise: Tensor | None = None) -> Tensor:
    """E over z ~ N(0, 1) of the one-hot rows of top-k(scores + sigma z): scores [B, T] -> [B, k, T], rows sum to 1.

    Estimated from `samples` draws, gradient (1 / sigma) E[<rows, grad> z] from the same ones (Berthet et al. 2020;
    Differentiable Patch Selection, arXiv 2104.03059, section 3.2). noise: the draws [B, S, T], for tests.
    """
    if noise is None:
        noise = torch.randn(scores.shape[0], samples, scores.shape[1], dtype=scores.dtype, device=scores.device)
    rows: Tensor = _PerturbedTopK.apply(scores, noise, k, sigma)  # type: ignore[no-untyped-call]
    return rows

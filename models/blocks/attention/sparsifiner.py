"""Sparsifiner: a cheap low-rank guess says which keys a query is connected to; exact softmax over those alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from petground.models.blocks.attention.grouping import Lattice, lattice
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.attention.teacher import softmax_rows, some_rows
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.chunks import by_rows
from petground.models.blocks.contract import Grid, check_attention
from petground.models.blocks.own_losses import Calls, hold

__all__ = ["SparsifinerAttention"]

AT_ONCE = 1 << 22  # guessed scores held at a time, and a quarter of the picked numbers


class SparsifinerAttention(nn.Module):
    """softmax over the k keys of the best guessed connection (Sparsifiner, arXiv 2303.13755, section 3.2 and 3.3).

    q', k' = Linear(q), Linear(k), half as wide, shared by the heads; W_down brings the keys down from N to n_down,
    A = softmax(q' (W_down k')^T / sqrt(D')), entries of at most `coefficient_threshold` set to 0; the guess is
    A |W_up|, entries of |W_up| of at most `basis_threshold` set to 0. Each query keeps the `keep` keys of the best
    guess: out = softmax(q k^T / sqrt(D)) v over them. The choice has no gradient, as in the paper: the predictor learns
    from its own loss, in training, by which the guess is to come close to the attention of a dense teacher (squared
    error, section 3.4). The teacher is the softmax of the block's own q and k, which get no gradient of it; the errors
    are summed over a row's keys, as a mean would vanish with N, and the mean is over 64 queries drawn at each step.

    W_down and W_up are [n_down, N] in the paper, for images of one size. Here they are learned on a small lattice and
    brought to the grid of the exam (trilinear; a line: linear, over the lattice's entries in raster order).

    Guess and attention are worked out for some queries at a time, so that neither N x N nor all picked keys are held;
    the time for the guess is N N n_down.

    Args:
        channels: of all heads together.
        num_heads: heads.
        keep: keys of a query; at least as many as tokens: softmax attention.
        n_down: keys after the down-projection.
        lattice_zyx: on which W_down and W_up are learned.
        coefficient_threshold: of A.
        basis_threshold: of |W_up|.
        loss_weight: of the predictor's loss.
    """

    key = "sparsifiner"
    own_losses: Calls = None

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        *,
        keep: int = 64,
        n_down: int = 32,
        lattice_zyx: Sequence[int] = (8, 8, 8),
        coefficient_threshold: float = 0.0,
        basis_threshold: float = 0.0,
        loss_weight: float = 1.0,
    ):
        super().__init__()
        if keep < 1 or n_down < 1 or loss_weight < 0:
            raise ValueError(f"keep={keep}, n_down={n_down}: at least 1, loss_weight={loss_weight}: at least 0")
        self.loss_weight = loss_weight
        width = channels // num_heads
        self.num_heads, self.head_channels, self.keep = num_heads, width, keep
        self.coefficient_threshold, self.basis_threshold = coefficient_threshold, basis_threshold
        small = triple("lattice_zyx", lattice_zyx)
        self.to_query = nn.Linear(width, max(1, width // 2))
        self.to_key = nn.Linear(width, max(1, width // 2))
        self.down = nn.Parameter(nn.init.trunc_normal_(torch.empty(n_down, *small), std=0.02))
        self.up = nn.Parameter(nn.init.trunc_normal_(torch.empty(n_down, *small), std=0.02))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        grid: Grid | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q, k [B, H, N, D], v [B, H, N, E], mask [B, N] bool True = real -> [B, H, N, E] and the map [B, H, N, N]."""
        check_attention(
            "sparsifiner",
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            patterns=("self",),
            takes_bias=False,
        )
        check_heads("sparsifiner", q, self.num_heads, self.head_channels)
        if self.training and self.loss_weight:
            hold(self, guess=self.loss_weight * self._guess_error(q.detach(), k.detach(), mask, grid))
        chosen, there = self.connected(q, k, mask=mask, grid=grid)
        if need_weights:
            out, weights = _on_picked(q, k, v, chosen, there)
            return out, weights.new_zeros(*q.shape[:3], k.shape[2]).scatter(-1, chosen, weights)

        def some(first: int, last: int) -> Tensor:
            rows = slice(first, last)
            return _on_picked(q[:, :, rows], k, v, chosen[:, :, rows], there[:, :, rows])[0]

        rows = max(1, 4 * AT_ONCE // (q.shape[0] * q.shape[1] * chosen.shape[-1] * max(k.shape[-1], v.shape[-1])))
        return by_rows(some, q.shape[2], rows), None

    @torch.no_grad()
    def connected(
        self, q: Tensor, k: Tensor, *, mask: Tensor | None = None, grid: Grid | None = None
    ) -> tuple[Tensor, Tensor]:
        """The keys that each query keeps, [B, H, N, keep], and whether they are real."""
        coefficients, basis = self._low_rank(q, k, mask, grid)
        count = k.shape[2]
        keep = min(self.keep, count)

        def some(first: int, last: int) -> Tensor:
            guess = coefficients[:, :, first:last] @ basis
            if mask is not None:
                guess = guess.masked_fill(~mask[:, None, None, :], float("-inf"))
            return guess.topk(keep, dim=-1).indices

        index = by_rows(some, count, max(1, AT_ONCE // (count * q.shape[0] * q.shape[1])))
        if mask is None:
            return index, torch.ones_like(index, dtype=torch.bool)
        return index, mask[:, None, None, :].expand(*index.shape[:3], -1).gather(-1, index)

    def guess(self, q: Tensor, k: Tensor, *, mask: Tensor | None = None, grid: Grid | None = None) -> Tensor:
        """The guessed attention of any of the queries, [B, H, R, N] for q [B, H, R, D], with gradients."""
        coefficients, basis = self._low_rank(q, k, mask, grid)
        return coefficients @ basis

    def _guess_error(self, q: Tensor, k: Tensor, mask: Tensor | None, grid: Grid | None) -> Tensor:
        """Squared error of the guess, summed over keys that count, the mean over heads and some real rows: [B]."""
        rows = some_rows(q.shape[2], q.device)
        teacher, keep = softmax_rows(q, k, rows, mask)
        error = (self.guess(q[:, :, rows], k, mask=mask, grid=grid).to(teacher.dtype) - teacher).square()
        if mask is None or keep is None:
            return error.sum(dim=-1).mean(dim=(1, 2))
        real = mask[:, rows].sum(dim=1).clamp(min=1) * q.shape[1]
        return error.masked_fill(~keep, 0.0).sum(dim=(1, 2, 3)) / real

    def _low_rank(self, q: Tensor, k: Tensor, mask: Tensor | None, grid: Grid | None) -> tuple[Tensor, Tensor]:
        """[B, H, N, n_down] and [n_down, N], whose product is the guess."""
        shape = lattice(k.shape[2], grid)
        queries, keys = self.to_query(q), self.to_key(k)
        if mask is not None:
            keys = keys.masked_fill(~mask[:, None, :, None], 0.0)
        scores = queries @ (_resized(self.down, shape) @ keys).transpose(-1, -2) * queries.shape[-1] ** -0.5
        coefficients = _above(scores.softmax(dim=-1), self.coefficient_threshold)
        return coefficients, _above(_resized(self.up, shape).abs(), self.basis_threshold)


def _on_picked(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention of some queries [B, H, n, D] to their chosen keys [B, H, n, keep] -> [B, H, n, E], weights."""
    scores = (q[:, :, :, None, :] @ _pick(k, chosen).transpose(-1, -2)).squeeze(-2) * q.shape[-1] ** -0.5
    weights = masked_softmax(scores, there)
    return (weights[..., None, :] @ _pick(v, chosen)).squeeze(-2), weights


def _resized(basis: Tensor, shape: Lattice) -> Tensor:
    """[n, z, y, x] -> [n, N], each on the lattice of the tokens."""
    if shape[0] == shape[1] == 1:
        return interpolate(basis.flatten(1)[None], math.prod(shape), mode="linear", align_corners=False)[0]
    return interpolate(basis[None], shape, mode="trilinear", align_corners=False)[0].flatten(1)


def _above(x: Tensor, threshold: float) -> Tensor:
    return torch.where(x > threshold, x, torch.zeros_like(x)) if threshold > 0 else x


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """[B, H, N, D] by [B, H, N, k] -> [B, H, N, k, D]."""
    flat = index.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
    return torch.unflatten(x.gather(2, flat), 2, index.shape[2:])

"""Spans for each head from a few calibration exams: how much each key matters, and the best spans within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from petground.models.blocks.attention.grouping import Lattice
from petground.models.blocks.attention.headwise import radii

__all__ = ["SpanCandidate", "change_without", "choose_spans", "influence", "kept_share", "loss_of_span", "span_keeps"]


@dataclass(frozen=True)
class SpanCandidate:
    """A span that a head may have: `base` tokens or voxels plus `growth` sides, as the options of `moa_spans`."""

    base: float
    growth: float


def change_without(weights: Tensor, key: int) -> Tensor:
    """What masking one key changes: weights [..., N, M] of a softmax -> their change dA, [..., N, M].

    dA_ij = -A_ij for the key j and dA_in = A_in A_ij / (1 - A_ij) for the others (MoA, arXiv 2406.14909, equation 4 and
    appendix): exact, each row sums to 0. A key that has all of a row's weight cannot be masked: NaN there.
    """
    lost = weights[..., key : key + 1]
    change = weights * lost / (1.0 - lost)
    return change.index_copy(-1, torch.tensor([key], device=weights.device), -lost)


def influence(weights: Tensor, gradient: Tensor) -> Tensor:
    """E_ij = sum_n (dL / dA_in) dA_in|j, the change of the loss to first order when query i loses key j.

    Weights A and gradient dL / dA [..., N, M] -> [..., N, M]. Where one key has all of a row's weight, masking it has
    no first-order effect that could be told: E is -dL/dA A there, as if its weight went nowhere.
    """
    mean = (gradient * weights).sum(dim=-1, keepdim=True)
    left = 1.0 - weights
    spread = torch.where(left > 0, weights / left.where(left > 0, torch.ones_like(left)), torch.zeros_like(left))
    return spread * (mean - gradient * weights) - gradient * weights


def span_keeps(candidate: SpanCandidate, shape: Lattice, sinks: int, *, causal: bool = False) -> Tensor:
    """[N, N] bool: which keys a span keeps on a lattice, as `moa_spans` sees it (voxels; a line is (1, 1, N))."""
    reach = radii(candidate.base, candidate.growth, shape)
    places = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, 3)
    apart = places[None] - places[:, None]  # key minus query
    near = (apart.abs() <= torch.tensor(reach)).all(dim=-1)
    keep = near | (torch.arange(len(places)) < sinks)
    return keep & (apart[..., 2] <= 0) if causal else keep


def loss_of_span(influences: Tensor, keep: Tensor) -> Tensor:
    """Influence E [..., N, M] of the keys that a span leaves out, summed over queries and keys (section 4.3)."""
    return influences.masked_fill(keep, 0.0).sum(dim=(-2, -1))


def kept_share(candidate: SpanCandidate, shape: Lattice, sinks: int, *, causal: bool = False) -> float:
    """Share of the entries of the map, of its lower half when causal, that a span keeps."""
    keep = span_keeps(candidate, shape, sinks, causal=causal)
    count = math.prod(shape)
    return float(keep.sum()) / (count * (count + 1) / 2 if causal else count * count)


def choose_spans(
    losses: Mapping[Lattice, np.ndarray], shares: Mapping[Lattice, Sequence[float]], budget: float
) -> list[int]:
    """One candidate for each head: the least total loss with at most `budget` of the entries kept, at every size.

    A mixed-integer program (MoA, section 4.3): losses {lattice: [heads, candidates]}, shares {lattice: of each
    candidate, 0 to 1} -> the number of each head's candidate. Losses of different sizes are each divided by their
    largest and summed. Raises ValueError when even the smallest candidates pass the budget.
    """
    sizes = list(losses)
    heads, candidates = losses[sizes[0]].shape
    cost = np.zeros((heads, candidates))
    for size in sizes:
        largest = np.abs(losses[size]).max()
        cost += losses[size] / largest if largest > 0 else 0.0
    if any(min(shares[size]) > budget for size in sizes):
        raise ValueError(f"budget={budget}: the smallest candidate keeps {max(min(s) for s in shares.values()):.3f}")
    one_each = LinearConstraint(np.kron(np.eye(heads), np.ones(candidates)), 1, 1)
    density = LinearConstraint(np.stack([np.tile(shares[size], heads) / heads for size in sizes]), ub=budget)
    found = milp(cost.ravel(), constraints=[one_each, density], integrality=np.ones(cost.size), bounds=Bounds(0, 1))
    if found.x is None:
        raise ValueError(f"no spans found within budget={budget}: {found.message}")
    return [int(n) for n in found.x.reshape(heads, candidates).argmax(axis=1)]

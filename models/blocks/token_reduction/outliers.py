"""Thresholds from the data: local outlier factor of scores, and density peaks to cluster what is left."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.models.blocks.chunks import by_rows
from petground.models.blocks.token_reduction.bipartite import CHUNK

__all__ = ["assign_nearest", "density_peaks", "high_outliers", "local_outlier_factor"]


@torch.no_grad()
def local_outlier_factor(values: Tensor, mask: Tensor, neighbours: int) -> Tensor:
    """LOF (Breunig et al., SIGMOD 2000) of numbers: values [B, N], mask [B, N] bool -> [B, N], about 1 in the bulk.

    lrd(i) = 1 / mean over the k neighbours j of max(k-distance(j), |v_i - v_j|); LOF(i) = mean of lrd(j) / lrd(i).
    Exact, in O(N k): the neighbours of a number are among the k to either side in sorted order. Equal values have
    LOF 1. Padding gets 0.
    """
    count = values.shape[1]
    if count == 1:
        return mask.to(values.dtype)
    near = min(neighbours, count - 1)
    ordered, order = values.masked_fill(~mask, float("inf")).sort(1)
    there = mask.gather(1, order)
    ordered = ordered.masked_fill(~there, 0.0)
    window = torch.arange(count, device=values.device)[:, None] + torch.arange(-near, near + 1, device=values.device)
    inside = (window >= 0) & (window < count) & (torch.arange(-near, near + 1, device=values.device) != 0)
    window = window.clamp(0, count - 1)
    real = inside & there[:, window] & there[..., None]  # [B, N, 2k + 1]
    apart = (ordered[..., None] - ordered[:, window]).abs().masked_fill(~real, float("inf"))
    distance, which = apart.topk(near, dim=2, largest=False)
    used = distance.isfinite()
    neighbour = window.expand_as(apart).gather(2, which)
    reach_of = distance.masked_fill(~used, 0.0).amax(2)  # the k-distance, of fewer neighbours where there are fewer
    reach = torch.maximum(reach_of.gather(1, neighbour.flatten(1)).view_as(distance), distance)
    width = ordered.masked_fill(~there, float("-inf")).amax(1, keepdim=True) - ordered[:, :1]
    smallest = torch.finfo(values.dtype).eps * width.clamp(min=torch.finfo(values.dtype).tiny ** 0.5)
    number = used.sum(2).clamp(min=1)
    mean_reach = reach.masked_fill(~used, 0.0).sum(2) / number
    density = 1.0 / (mean_reach + smallest)
    around = density.gather(1, neighbour.flatten(1)).view_as(distance).masked_fill(~used, 0.0).sum(2) / number
    factor = torch.where(used.any(2), around / density, 1.0)
    return torch.zeros_like(values).scatter(1, order, factor.masked_fill(~there, 0.0))


@torch.no_grad()
def high_outliers(values: Tensor, mask: Tensor, neighbours: int, factor: float) -> Tensor:
    """[B, N] bool: at or above the lowest outlier on the high side.

    An outlier has LOF > factor and lies in the upper quarter. What lies above it counts, too: a group of more than
    `neighbours` like values is dense, and no outlier by itself.
    """
    ordered = values.masked_fill(~mask, float("inf")).sort(1).values
    upper = ordered.gather(1, (3 * mask.sum(1, keepdim=True)) // 4)  # never past the end: 3 n // 4 < n
    found = mask & (local_outlier_factor(values, mask, neighbours) > factor) & (values >= upper)
    threshold = values.masked_fill(~found, float("inf")).amin(1, keepdim=True)
    return mask & (values >= threshold)


def _squared(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """[B, S, C], [B, K, C], mask [B, K] -> squared distances [B, S, K], inf where masked."""
    return torch.cdist(a, b).square().masked_fill(~mask[:, None], float("inf"))


@torch.no_grad()
def density_peaks(points: Tensor, mask: Tensor, clusters: int, neighbours: int) -> Tensor:
    """Centres of clusters by DPC-KNN: points [B, S, C], mask [B, S] bool -> indices [B, min(clusters, S)] long.

    rho_i = exp(-mean squared distance to the k nearest); delta_i = distance to the nearest denser point (to the
    farthest, for the densest); the centres have the largest rho_i delta_i (Du, Ding and Jia 2016). Equal densities: the
    lower place counts as denser. S^2 time, 1024 S memory. A row with fewer points repeats none: -1 at the end.
    """
    count = points.shape[1]

    def density(first: int, last: int) -> Tensor:
        near = _squared(points[:, first:last], points, mask).topk(min(neighbours + 1, count), largest=False)
        used = near.values.isfinite()
        return -near.values.masked_fill(~used, 0.0).sum(2) / (used.sum(2) - 1).clamp(min=1)

    log_rho = by_rows(density, count, CHUNK, dim=1).masked_fill(~mask, float("-inf"))
    rank = log_rho.argsort(dim=1, descending=True, stable=True).argsort(1)

    def apart(first: int, last: int) -> Tensor:
        squared = _squared(points[:, first:last], points, mask)
        denser = rank[:, None, :] < rank[:, first:last, None]
        nearest = squared.masked_fill(~denser, float("inf")).amin(2)
        farthest = squared.masked_fill(squared.isinf(), 0.0).amax(2)
        return torch.where(nearest.isfinite(), nearest, farthest)

    delta = by_rows(apart, count, CHUNK, dim=1).sqrt()
    peak = (log_rho - log_rho.amax(1, keepdim=True)).nan_to_num(float("-inf")).exp() * delta
    chosen = peak.masked_fill(~mask, -1.0).argsort(dim=1, descending=True, stable=True)[:, : min(clusters, count)]
    return chosen.masked_fill(~mask.gather(1, chosen), -1)


@torch.no_grad()
def assign_nearest(points: Tensor, centres: Tensor, mask: Tensor) -> Tensor:
    """The nearest centre of each point: [B, N, C], [B, G, C], mask [B, G] bool -> [B, N] long."""

    def some(first: int, last: int) -> Tensor:
        return _squared(points[:, first:last], centres, mask).argmin(2)

    return by_rows(some, points.shape[1], CHUNK, dim=1)

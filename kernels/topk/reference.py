"""The truth: selection by one stable sort, so that equal scores go to the lower index on every device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["topk_indices_reference", "topk_mask_reference"]


def topk_indices_reference(scores: Tensor, k: int | Tensor, mask: Tensor | None, size: int) -> Tensor:
    """Scores [B, N], k one number or [B], mask [B, N] bool (True = may be chosen) -> places [B, size], ascending.

    The k highest real scores of each row in the order of their places, then -1 where a row has fewer than `size`.
    Of equal scores the lower place is chosen; NaN, -inf and the lowest finite number are equal; padding is
    never chosen.
    """
    count = scores.shape[1]
    lowest = torch.finfo(scores.dtype).min
    ranked = torch.where(scores.isnan(), lowest, scores.clamp(min=lowest))
    available = torch.full_like(scores[:, :1], count, dtype=torch.long)
    if mask is not None:
        ranked = ranked.masked_fill(~mask, float("-inf"))  # below the lowest real score
        available = mask.sum(dim=1, keepdim=True)
    wanted = k[:, None].to(available) if isinstance(k, Tensor) else torch.full_like(available, k)
    chosen = ranked.argsort(dim=1, descending=True, stable=True)[:, :size]
    missing = torch.arange(size, device=scores.device) >= torch.minimum(wanted, available)
    places = chosen.masked_fill(missing, count).sort(dim=1).values
    return places.masked_fill(places == count, -1)


def topk_mask_reference(scores: Tensor, k: int | Tensor, mask: Tensor | None) -> Tensor:
    """As `topk_indices_reference`, told as a mask: [B, N] bool, True where a score is chosen."""
    count = scores.shape[1]
    places = topk_indices_reference(scores, k, mask, count)
    chosen = torch.zeros(scores.shape[0], count + 1, dtype=torch.bool, device=scores.device)
    return chosen.scatter(1, places + 1, True)[:, 1:]  # column 0 takes the -1

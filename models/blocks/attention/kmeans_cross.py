"""Cross-attention as a step of k-means: every key goes to its best query."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from petground.models.blocks.chunks import by_rows
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["KMeansCrossAttention", "assign"]

_BUDGET = 1 << 21  # scores held at once, near what caches hold


class KMeansCrossAttention(nn.Module):
    """out_i = sum of v_j over the keys j whose best query is i: onehot(argmax over queries of q . k) v.

    kMaX-DeepLab, arXiv 2207.04044, section 3, without the residual "C +" of its update, which is the caller's. The
    assignment has no gradient; q and k are trained by their scores as mask logits, `scores`. Heads cluster apart.
    In self-attention the mask is the queries', too: padding is nobody's centre. In cross-attention every query may be
    one; a bias of -inf takes it out.

    Args:
        channels: of all heads together.
        num_heads: heads.
    """

    def __init__(self, channels: int, num_heads: int = 1):
        super().__init__()

    @staticmethod
    def scores(q: Tensor, k: Tensor) -> Tensor:
        """Q k^T [B, H, N, M]: the logits of each query's mask, to be trained against it."""
        return q @ k.transpose(-1, -2)

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
        cross: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E] and the map.

        The map [B, H, N, M] holds ones where a key goes to a query; each real key's column sums to one.
        """
        check_attention("kmeans_cross", q, k, v, mask=mask, bias=bias, grid=grid, causal=causal, cross=cross)
        best, taken = assign(q.detach(), k.detach(), bias, None if cross else mask)
        real = taken if mask is None else taken & mask[:, None]
        values = v.masked_fill(~real[..., None], 0.0)
        wide = torch.promote_types(v.dtype, torch.float32)
        out = torch.zeros(*q.shape[:3], v.shape[3], dtype=wide, device=v.device)
        out = out.scatter_add(2, best[..., None].expand_as(values), values.to(wide)).to(v.dtype)
        if not need_weights:
            return out, None
        return out, (one_hot(best, q.shape[2]) * real[..., None]).transpose(-1, -2).to(q.dtype)


@torch.no_grad()
def assign(q: Tensor, k: Tensor, bias: Tensor | None, centres: Tensor | None) -> tuple[Tensor, Tensor]:
    """The best query of each key [B, H, M] long, and whether it has one at all; some keys at a time.

    centres: [B, N] bool, the queries that may be chosen. On a tie the first query wins.
    """
    step = max(1, _BUDGET // (q.shape[0] * q.shape[1] * q.shape[2]))

    def some(first: int, last: int) -> Tensor:
        part = slice(first, last)
        scores = KMeansCrossAttention.scores(k[:, :, part], q)  # the other way round: rows are read faster
        if bias is not None:
            scores = scores + (bias if bias.shape[3] == 1 else bias[..., part]).transpose(-1, -2)
        if centres is not None:
            scores = scores.masked_fill(~centres[:, None, None, :], float("-inf"))
        top, which = scores.max(dim=-1)
        return which.masked_fill(top == float("-inf"), -1)

    best = by_rows(some, k.shape[2], step)
    return best.clamp(min=0), best >= 0

"""Scored attention: one formula with a score, a temperature and a normaliser; its presets are published systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.scores import (
    Additive,
    Selective,
    dot,
    length_scale,
    reweight,
    softplus_shares,
)
from petground.models.blocks.attention.softmax import SoftmaxAttention, masked_softmax
from petground.models.blocks.chunks import by_rows
from petground.models.blocks.contract import BlockInputError, Grid, check_attention

__all__ = ["ScoredAttention"]

_BUDGET = 1 << 21  # numbers held at once, near what caches hold: more rows than fit are worked out in turn


class ScoredAttention(nn.Module):
    """out = normalise(temperature * score(q, k) + bias) v, exact, some rows at a time: no N x M in memory.

    Going backward the rows are worked out again, so that training does not hold N x M either. With dot products,
    softmax and no map asked for PyTorch's fused attention does it: the temperature is a factor on q.

    Args:
        channels: of all heads together.
        num_heads: heads.
        key: the registered name, for messages.
        score: "dot": q . k / sqrt(D); "additive": w . tanh(W_1 k + W_2 q).
        normaliser: "softmax"; "softplus": softplus(s) / row sum, then `reweight`.
        temperature: "fixed": 1; "length": length_factor log(D) log(n) with n the keys that a row sees; "selective":
            learned from query and n, and values have a gate of their own, see `Selective`.
        power: of the re-weighting, at least 1.
        offset: of the re-weighting, in mean shares 1/n, at least 0; power 1 and offset 0 switch it off. Softplus only.
        length_factor: see temperature.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        key: str = "scored",
        score: Literal["dot", "additive"] = "dot",
        normaliser: Literal["softmax", "softplus"] = "softmax",
        temperature: Literal["fixed", "length", "selective"] = "fixed",
        power: float = 3.0,
        offset: float = 1.0,
        length_factor: float = 1.0,
    ):
        super().__init__()
        if power < 1 or offset < 0:
            raise ValueError(f"power={power} must be at least 1 and offset={offset} at least 0")
        dim = channels // num_heads
        self.num_heads, self.head_channels = num_heads, dim
        self.key = key
        self.normaliser = normaliser
        self.power = power
        self.offset = offset
        self.length_factor = length_factor if temperature == "length" else None
        self.additive = Additive(num_heads, dim) if score == "additive" else None
        self.selective = Selective(dim) if temperature == "selective" else None
        self.fused = SoftmaxAttention(channels, num_heads) if score == "dot" and normaliser == "softmax" else None

    @staticmethod
    def without(score: str = "dot", normaliser: str = "softmax", **_: object) -> set[str]:
        """Operators that the code names and a preset does not call."""
        return set() if score == "dot" and normaliser == "softmax" else {"torch_sdpa"}

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
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E] and the map."""
        check_attention(
            self.key,
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            cross=cross,
            patterns=("self", "cross", "causal"),
        )
        check_heads(self.key, q, self.num_heads, self.head_channels)
        if self.selective is not None and v.shape[-1] != q.shape[-1]:
            raise BlockInputError(self.key, "v", f"is {v.shape[-1]} wide", f"give as many as q: {q.shape[-1]}")
        if mask is not None:
            v = v.masked_fill(~mask[:, None, :, None], 0.0)
        count = _seen(k, mask, causal)
        if self.selective is not None:
            q, v = q * self.selective(q, count), self.selective.values(v)
        elif self.length_factor is not None:
            q = q * length_scale(count, q.shape[-1], self.length_factor).to(q.dtype)
        if self.fused is not None:
            out, weights = self.fused(
                q, k, v, mask=mask, bias=bias, causal=causal, cross=cross, need_weights=need_weights
            )
            return out, weights
        weights_of = self._rows(k, mask, bias, count, causal)
        if need_weights:
            weights = weights_of(q, 0)
            return weights @ v, weights
        step = max(1, _BUDGET // (q.shape[0] * q.shape[1] * k.shape[2] * (1 if self.additive is None else k.shape[3])))
        return by_rows(lambda first, last: weights_of(q[:, :, first:last], first) @ v, q.shape[2], step), None

    def _rows(
        self, k: Tensor, mask: Tensor | None, bias: Tensor | None, count: Tensor, causal: bool
    ) -> Callable[[Tensor, int], Tensor]:
        """A function of some of the queries and of the number of the first: their rows of the map."""

        def weights(rows: Tensor, first: int) -> Tensor:
            part = slice(first, first + rows.shape[2])
            scores = dot(rows, k) if self.additive is None else self.additive(rows, k)
            if bias is not None:
                scores = scores + (bias if bias.shape[2] == 1 else bias[:, :, part])
            keep = None if mask is None else mask[:, None, None, :]
            if causal:
                places = torch.arange(k.shape[2], device=k.device)
                before = places <= places[part, None]
                keep = before if keep is None else keep & before
            if self.normaliser == "softmax":
                return masked_softmax(scores, keep)
            seen = count if count.shape[2] == 1 else count[:, :, part]
            return reweight(softplus_shares(scores, keep), seen, self.power, self.offset)

        return weights


def _seen(k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """How many keys a row sees, [B or 1, 1, N or 1, 1], in float32 at least."""
    wide = torch.promote_types(k.dtype, torch.float32)
    real = torch.ones(1, k.shape[2], dtype=wide, device=k.device) if mask is None else mask.to(wide)
    count = real.cumsum(dim=-1) if causal else real.sum(dim=-1, keepdim=True)
    return count[:, None, :, None]

"""Softmax attention in which heads differ: in how far they see, and in how much they count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels.sdpa import masked_sdpa
from petground.models.blocks.attention.grouping import BoxBackend, Lattice, box_attention, lattice
from petground.models.blocks.attention.head_gates import HeadGates, check_heads, load_balance, per_head
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import Grid, check_attention
from petground.models.blocks.own_losses import Calls, hold

__all__ = ["HeadwiseAttention", "radii"]

Reach = Literal["full", "mixed", "spans"]


class HeadwiseAttention(nn.Module):
    """out_h = g_h (a_h Full_h + (1 - a_h) Span_h), Full = softmax(q k^T / sqrt(D)) v over all keys, Span over few.

    Span_h sees the first `sinks` tokens and the tokens near the query: in a grid those of the box that reaches
    `radius_h / spacing + growth_h * side` voxels to either side along each axis (rounded down), else those at most
    `span_h + growth_h * N` places away in the order of the tokens; causal: before the query, itself included.

    - duo (DuoAttention, arXiv 2410.10819, section 3): g = 1, a_h learned in [0, 1] from 1, growth 0. `full_heads`
      names the heads that stay full once a is decided; the others stream only, and a is no more.
    - moa_spans (MoA, arXiv 2406.14909, section 4): g = 1, a = 0, S_h(N) = span_h + growth_h N.
    - moh (MoH, arXiv 2410.11842, section 3): a = 1, g from `HeadGates` of the token's query, all heads together.

    Own losses, in training: duo, sum_h |a_h| while a is learned (its distance to the full model's states is the task's
    loss here, which is there already); moh, `load_balance` of the routed heads.

    Args:
        channels: of all heads together.
        num_heads: heads.
        name: for errors.
        reach: "full", a = 1; "spans", a = 0; "mixed", a learned.
        gated: g from HeadGates; else g = 1.
        sinks: first tokens that every span holds.
        span: tokens, of an order without a grid; one number or one for each head.
        radius: of the box in a grid, in `unit`; one number or one for each head.
        growth: what a span grows by, as a share of the order's length, or of the grid's side; likewise.
        unit: "voxel", or "mm" by the grid's spacing.
        full_heads: "mixed" only: heads that are full, the others being spans; none given: learned.
        shared_heads: "gated" only: heads that every token uses; a quarter by default.
        active_heads: "gated" only: heads in use of a token, shared ones included; three quarters by default.
        rescale: "gated" only: gates of about one, see `HeadGates`.
        loss_weight: of the block's own loss; by default the papers', 0.05 for duo and 0.01 for moh.
        backend: of the spans' kernel, which has no sinks and no order: needs `sinks: 0`; "auto" takes what serves.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        *,
        name: str,
        reach: Reach,
        gated: bool,
        sinks: int = 64,
        span: Sequence[float] | float = 256,
        radius: Sequence[float] | float = 4,
        growth: Sequence[float] | float = 0.0,
        unit: Literal["voxel", "mm"] = "voxel",
        full_heads: Sequence[int] | None = None,
        shared_heads: int | None = None,
        active_heads: int | None = None,
        rescale: bool = False,
        loss_weight: float | None = None,
        backend: BoxBackend = "auto",
    ):
        super().__init__()
        if sinks < 0 or (loss_weight or 0.0) < 0:
            raise ValueError(f"sinks={sinks}, loss_weight={loss_weight}: one is negative")
        if full_heads is not None and any(head not in range(num_heads) for head in full_heads):
            raise ValueError(f"full_heads={full_heads} not all in 0..{num_heads - 1}")
        self.key, self.reach, self.num_heads, self.head_channels = name, reach, num_heads, channels // num_heads
        self.sinks, self.unit, self.backend = sinks, unit, backend
        self.loss_weight = (0.01 if gated else 0.05) if loss_weight is None else loss_weight
        self.span, self.radius, self.growth = (
            per_head(value, num_heads, word) for value, word in ((span, "span"), (radius, "radius"), (growth, "growth"))
        )
        self.full_heads = None if full_heads is None else frozenset(full_heads)
        self.alpha = nn.Parameter(torch.ones(num_heads)) if reach == "mixed" and full_heads is None else None
        self.gates: HeadGates | None = None
        if gated:
            shared = -(-num_heads // 4) if shared_heads is None else shared_heads
            active = max(-(-3 * num_heads // 4), shared) if active_heads is None else active_heads
            if not 0 <= shared <= active <= num_heads or not active:
                raise ValueError(
                    f"shared_heads={shared}, active_heads={active}: 0 <= shared_heads <= active_heads <= {num_heads}, "
                    "at least one active"
                )
            self.gates = HeadGates(channels, num_heads, shared, active - shared, rescale=rescale)

    own_losses: Calls = None

    @tells_backend()
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

        The map [B, H, N, M] is what v is multiplied by, gates and mixture included: a row sums to its gate.
        """
        dense = self.reach == "full"
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
            patterns=("self", "cross", "causal") if dense else ("self", "causal"),
            takes_bias=dense,
        )
        check_heads(self.key, q, self.num_heads, None if self.gates is None else self.head_channels)
        out = self._out(q, k, v, mask, bias, grid, causal)
        if self.training and self.loss_weight:
            self._hold_loss(q, None if cross else mask)
        if not need_weights:
            return out, None
        unit = torch.eye(k.shape[2], dtype=v.dtype, device=v.device).expand(*k.shape[:2], -1, -1)
        return out, self._out(q, k, unit, mask, bias, grid, causal)  # linear in v: applied to the unit vectors

    def _hold_loss(self, q: Tensor, mask: Tensor | None) -> None:
        if self.alpha is not None:
            hold(self, full_heads=self.loss_weight * self._shares(self.alpha).abs().sum())
        elif self.gates is not None and self.gates.top:
            routed = self.gates.routes(q.transpose(1, 2).flatten(2))
            hold(self, balance=self.loss_weight * load_balance(*routed, mask))

    @staticmethod
    def _shares(alpha: Tensor) -> Tensor:
        """In [0, 1]: the value is clamped, its gradient is not, so that a head that left can come back."""
        return alpha + (alpha.clamp(0.0, 1.0) - alpha).detach()

    def full_heads_at(self, sparsity: float) -> list[int]:
        """The heads to keep full when this share of them is to stream: those of the largest a (duo, section 3.3)."""
        if self.alpha is None:
            return sorted(self.full_heads or ())
        kept = self.num_heads - round(sparsity * self.num_heads)
        return sorted(self.alpha.detach().topk(kept).indices.tolist())

    def _out(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        grid: Grid | None,
        causal: bool,
    ) -> Tensor:
        if self.reach == "full":
            out = _everywhere(q, k, v, mask, bias, causal)
        elif self.alpha is not None:
            share = self._shares(self.alpha).to(v.dtype)[:, None, None]
            full = _everywhere(q, k, v, mask, None, causal)
            out = share * full + (1.0 - share) * self._spans(q, k, v, mask, grid, causal, list(range(self.num_heads)))
        else:
            out = self._split_heads(q, k, v, mask, grid, causal)
        if self.gates is None:
            return out
        gates: Tensor = self.gates(q.transpose(1, 2).flatten(2))
        return out * gates.transpose(1, 2)[..., None].to(out.dtype)

    def _split_heads(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grid: Grid | None, causal: bool
    ) -> Tensor:
        """Each head by one branch only: those of full_heads see everything, the others their span."""
        full = sorted(self.full_heads or ())
        near = [head for head in range(self.num_heads) if head not in full]
        parts = []
        if full:
            parts.append(_everywhere(_of(q, full), _of(k, full), _of(v, full), mask, None, causal))
        if near:
            parts.append(self._spans(q, k, v, mask, grid, causal, near))
        order = [*full, *near]
        return _of(torch.cat(parts, dim=1), [order.index(head) for head in range(self.num_heads)])

    def _spans(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grid: Grid | None, causal: bool, heads: list[int]
    ) -> Tensor:
        """The spans of `heads`, in their order; heads that see equally far run together."""
        shape = lattice(q.shape[2], grid, causal=causal)
        base = self.span if grid is None or causal else self.radius
        spacing = grid.spacing_zyx_mm if grid is not None and not causal and self.unit == "mm" else (1.0, 1.0, 1.0)
        alike: dict[Lattice, list[int]] = {}
        for head in heads:
            alike.setdefault(radii(base[head], self.growth[head], shape, spacing), []).append(head)
        parts, order = [], []
        for reach, group in alike.items():
            some = _of(q, group), _of(k, group), _of(v, group)
            near = box_attention(
                *some, shape, reach, mask=mask, sinks=self.sinks, causal=causal, block=self.key, backend=self.backend
            )
            parts.append(near)
            order += group
        return _of(torch.cat(parts, dim=1), [order.index(head) for head in heads])


def radii(base: float, growth: float, shape: Lattice, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Lattice:
    """Tokens to either side, along z, y, x, of a span of `base` (in the unit of `spacing`) plus `growth` sides."""
    z, y, x = (
        min(int(base / step + growth * side + 1e-6), side - 1) for step, side in zip(spacing, shape, strict=True)
    )
    return z, y, x


def _everywhere(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, causal: bool) -> Tensor:
    return masked_sdpa(q, k, v, None if mask is None else mask[:, None, None, :], bias=bias, causal=causal)


def _of(x: Tensor, heads: list[int]) -> Tensor:
    """The heads, without a copy where they are all of them in order."""
    return x if heads == list(range(x.shape[1])) else x[:, heads]

"""Attention of voxels to their windows: one operator whose cut, score and bias make Swin, Swin V2, HaloNet and LSDA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from petground.kernels.window_attention import window_attention
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.relative_bias import AxialEmbedding, LogSpacedBias, OffsetBias, TableBias
from petground.models.blocks.attention.windows import (
    Cut,
    cut,
    dense_map,
    join,
    regions,
    split,
    split_halo,
    triple,
)
from petground.models.blocks.attention.within import attend
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, check_attention

__all__ = ["WindowAttention", "fused", "unit", "window_mask"]

MAX_LOG_SCALE = math.log(100.0)  # tau >= 0.01 (Swin V2, arXiv 2111.09883, section 3.2)


class WindowAttention(nn.Module):
    """softmax(score(q, k) + B) v over the keys of the query's window.

    score: "dot" q.k / sqrt(D); "cosine" cos(q, k) / tau with tau >= 0.01 learned per head, 0.1 at the start.
    B: "table", a number per offset in voxels; "log_mm", 16 sigmoid(MLP(log-spaced mm)); "mlp_mm", MLP(mm);
    "query", q . (r_z + r_y + r_x); "none".
    Windows: `window` voxels at a stretch. `shift`: cut anew half a window further on, the grid taken as a ring, voxels
    from its two sides masked from each other. `distance`: voxels `interval` apart. `halo`: keys reach so much further
    than their window's queries. Places outside the grid never count.

    Papers alternate two cuts from layer to layer. Where a stage has a single block, "pair" does both in it: the second
    cut attends to what the first gave, A2(q, k, A1(q, k, v)), each with a bias and tau of its own. "plain", "shifted"
    ("short", "long") are one layer of the alternation each, for networks that stack blocks.

    Args:
        channels: of all heads together.
        num_heads: heads.
        key: its name in messages.
        score: see above.
        position: B, see above.
        window: voxels [z, y, x]; 4 each are 64 keys, about the 49 of the papers' 7 x 7.
        shift: "plain", "shifted" or "pair".
        distance: "short" (neighbours), "long" (`interval` apart) or "pair".
        interval: [z, y, x] of the long distance; less where the axis is shorter than window times interval.
        halo: [z, y, x] voxels.
        unit_mm: the distance that counts as one in a bias in mm.
        hidden: width of the MLP of a bias in mm; 0: 512 for "log_mm" and channels / 4 for "mlp_mm", as in the papers.
        post_norm: LayerNorm over the heads' channels of the result (Swin V2's residual post-norm).
        backend: of the kernel; "auto" takes PyTorch's attention on copied windows where that is faster.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        key: str = "window",
        score: Literal["dot", "cosine"] = "dot",
        position: Literal["none", "table", "log_mm", "mlp_mm", "query"] = "table",
        window: Sequence[int] = (4, 4, 4),
        shift: Literal["plain", "shifted", "pair"] = "pair",
        distance: Literal["short", "long", "pair"] = "pair",
        interval: Sequence[int] = (2, 2, 2),
        halo: Sequence[int] = (2, 2, 2),
        unit_mm: float = 4.0,
        hidden: int = 0,
        post_norm: bool = False,
        backend: Literal["auto", "chunked", "reference", "triton"] = "auto",
    ):
        super().__init__()
        self.key, self.num_heads, self.backend = key, num_heads, backend
        self.head_channels = channels // num_heads if position == "query" else None  # its embeddings are a head's
        self.window, self.interval = triple("window", window), triple("interval", interval)
        self.halo = triple("halo", halo, least=0)
        if unit_mm <= 0 or hidden < 0:
            raise ValueError(f"unit_mm={unit_mm} must be above 0 and hidden={hidden} no less than 0")
        if any(self.halo) and (shift != "plain" or distance != "short"):
            raise ValueError("a halo goes with plain windows of neighbours only")
        shifts = {"plain": (False,), "shifted": (True,), "pair": (False, True)}[shift]
        far = {"short": (False,), "long": (True,), "pair": (False, True)}[distance]
        self.passes = list(product(shifts, far))
        self.positions = nn.ModuleList()
        for _ in self.passes:
            self.positions.append(self._position(position, channels, num_heads, unit_mm, hidden))
        self.log_scale = (
            nn.Parameter(torch.full((len(self.passes), num_heads, 1, 1), math.log(10.0))) if score == "cosine" else None
        )
        self.norm = nn.LayerNorm(channels) if post_norm else None

    def _position(self, kind: str, channels: int, num_heads: int, unit_mm: float, hidden: int) -> nn.Module:
        if kind == "table":
            return TableBias(num_heads, self.window, self.halo)
        if kind == "query":
            return AxialEmbedding(channels // num_heads, self.window, self.halo)
        if kind == "log_mm":
            return LogSpacedBias(num_heads, hidden or 512, unit_mm)
        if kind == "mlp_mm":
            return OffsetBias(num_heads, hidden or max(channels // 4, 4), unit_mm)
        return nn.Identity()

    def cuts(self, grid: Grid) -> list[Cut]:
        """How each pass cuts this grid."""
        return [
            cut(
                grid.shape_zyx,
                self.window,
                shifted=shifted,
                interval=self.interval if far else (1, 1, 1),
                halo=self.halo,
            )
            for shifted, far in self.passes
        ]

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
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q, k [B, H, N, D], v [B, H, N, E] of a grid, mask [B, N] bool True = real -> [B, H, N, E] and the map.

        The map [B, H, N, N], that of both passes multiplied, only when asked for; otherwise N x N is never held.
        """
        check_attention(
            self.key,
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            patterns=("self",),
            takes_bias=False,
            needs_grid=True,
        )
        assert grid is not None
        check_heads(self.key, q, self.num_heads, self.head_channels)
        if self.norm is not None and v.shape[1] * v.shape[3] != self.norm.normalized_shape[0]:
            raise BlockInputError(self.key, "v", f"is {tuple(v.shape)}", f"all heads: {self.norm.normalized_shape[0]}")
        whole: Tensor | None = None
        for number, one in enumerate(self.cuts(grid)):
            v, weights = self._pass(number, one, q, k, v, mask, grid.spacing_zyx_mm, need_weights=need_weights)
            if weights is not None:
                dense = dense_map(weights, one)
                whole = dense if whole is None else dense @ whole
        if self.norm is not None:
            wide = torch.promote_types(v.dtype, self.norm.weight.dtype)
            weight, shift = self.norm.weight.to(wide), self.norm.bias.to(wide)
            states = layer_norm(v.transpose(1, 2).flatten(2).to(wide), self.norm.normalized_shape, weight, shift)
            v = torch.unflatten(states.to(v.dtype), -1, (v.shape[1], -1)).transpose(1, 2)
        return v, whole

    def _pass(
        self,
        number: int,
        cut: Cut,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        spacing_zyx_mm: tuple[float, float, float],
        *,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        if self.log_scale is None:
            scaled = q * q.shape[-1] ** -0.5
        else:
            scale = self.log_scale[number].clamp(max=MAX_LOG_SCALE).exp()
            q, k = unit(q), unit(k)
            scaled = (q * scale).to(q.dtype)
        position = self.positions[number]
        if isinstance(position, AxialEmbedding):
            scaled, k = position.widen(q, scaled, k, cut)
        # on CPUs PyTorch's fused attention is the faster where windows need not be copied with their rims
        if not need_weights and (self.backend != "auto" or q.device.type != "cpu" or any(cut.halo)):
            return fused(scaled, k, v, mask, position, cut, spacing_zyx_mm, self.backend), None
        asking, keys, values = split(scaled, cut), split_halo(k, cut), split_halo(v, cut)
        bias = None
        if not isinstance(position, (AxialEmbedding, nn.Identity)):
            bias = _beside(position(cut, spacing_zyx_mm), q)
        real = window_mask(mask, cut, q)
        parts = regions(cut, q.device)
        if parts is not None:
            parts = parts.repeat(q.shape[0], 1)
        out, weights = attend(asking, keys, values, bias=bias, keys=real, parts=parts, need_weights=need_weights)
        return join(out, cut), weights


def fused(
    scaled: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    position: nn.Module,
    cut: Cut,
    spacing_zyx_mm: tuple[float, float, float],
    backend: str = "auto",
) -> Tensor:
    """The same attention by the kernels, which copy nothing into windows; q carries its scale."""
    bias: Tensor | None = None
    if isinstance(position, (TableBias, LogSpacedBias, OffsetBias)):
        bias = _beside(position.of_offsets(cut, spacing_zyx_mm), scaled)
    return window_attention(
        scaled,
        k,
        v,
        grid=cut.grid,
        window=cut.window,
        shift=cut.shift,
        halo=cut.halo,
        interval=cut.interval,
        mask=mask,
        bias=bias,
        temperature=scaled.shape[-1] ** -0.5,
        backend=backend,
    )


def _beside(bias: Tensor, q: Tensor) -> Tensor:
    """The bias in q's type; one of float32 stays beside a narrower q, to be added in 32 bits."""
    return bias if bias.dtype == torch.float32 and q.element_size() == 2 else bias.to(q.dtype)


def window_mask(mask: Tensor | None, cut: Cut, like: Tensor) -> Tensor | None:
    """Mask [B, N] -> [B * W, K] of each window's keys: False outside the grid, too. None where all keys count."""
    if mask is None and not cut.filled:
        return None
    batch = like.shape[0]
    if mask is None:
        mask = torch.ones(1, math.prod(cut.grid), dtype=torch.bool, device=like.device)
    real = split_halo(mask[:, None, :, None], cut)[:, 0, :, 0]
    return real if real.shape[0] == batch * cut.count else real.repeat(batch, 1)


def unit(x: Tensor) -> Tensor:
    """Vectors of length one along the last axis; zero stays zero, in half precision, too."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-6).to(x.dtype)

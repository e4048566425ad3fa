"""SparseFormer: a few dozen tokens whose boxes move over the volume, in place of the dense voxels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.kernels._shared.precision import autocast_off
from petground.kernels.cross_attention import cross_attention
from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.latents import Mlp, Read, sentence
from petground.models.blocks.token_reduction.maps import masked_mean
from petground.models.blocks.token_reduction.roi import (
    AdaptiveMixing,
    adjust_roi,
    lattice_offsets,
    roi_grid,
    sample_points,
    sampling_places,
)

__all__ = ["SparseFormer"]

KEY = "sparseformer_roi"


class SparseFormer(nn.Module):
    """SparseFormer's focusing transformer (arXiv 2304.03768, section 3.2; bootstrapped: arXiv 2312.01987), in 3D.

    L tokens t with boxes (c, s), `repeats` times with the same weights:
    t <- t + SelfAttention(t); (c, s) <- (c + d_c s, s exp(d_s)) with d = Linear(LayerNorm(t)), zero at first;
    t <- t + AdaptiveMixing(trilinear samples at `points` places of the box, t); t <- t + MLP(t).
    The sentence's mean token is added to every token at the start. Places are in 0..1 of the grid's extent; samples
    take only real voxels. Un-merge (the paper has none): voxel n gets sum_l a_nl v_l with
    a = softmax over l of (q(x_n) . k(t_l) / sqrt(d) - ||(p_n - c_l) / s_l||^2 / 2): by likeness, and by boxes that
    cover it. Cost L (P C^2 + L C) + N L C. The teacher and the frozen ViT of the second paper are no part of it.

    Args:
        channels: of the tokens.
        latents: L; fewer where there are fewer voxels.
        points: samples of each token.
        repeats: of the focusing layer.
        heads: must divide channels.
        out_points: points after mixing (the released code has 32).
        backend: of the attention's kernels.
    """

    text_use: TextUse = "reads"

    def __init__(
        self,
        channels: int,
        latents: int = 49,
        points: int = 16,
        repeats: int = 4,
        heads: int = 1,
        out_points: int = 32,
        backend: Backend = "auto",
    ):
        super().__init__()
        if min(latents, points, repeats, out_points) < 1:
            raise ValueError("latents, points, repeats and out_points must be 1 or more")
        self.repeats = repeats
        self.token = nn.Parameter(0.02 * torch.randn(latents, channels))
        self.roi = nn.Parameter(roi_grid(latents, torch.get_default_dtype(), torch.device("cpu")))
        self.words = nn.Linear(channels, channels)
        self.mix = Read(channels, heads)
        self.offset = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 3 * points, bias=False))
        self.base = nn.Parameter(torch.tensor(lattice_offsets(points), dtype=torch.get_default_dtype()))
        self.move = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 6, bias=False))
        for last in (self.offset[-1], self.move[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
        self.sampled = AdaptiveMixing(channels, points, out_points)
        self.mlp = Mlp(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.backend = backend
        served_by(backend, self)

    @tells_backend(KEY)
    def forward(
        self,
        tokens: Tensor,
        *,
        scores: Tensor | None = None,
        mask: Tensor | None = None,
        grid: Grid | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Reduced:
        """Tokens [B, N, C], mask [B, N] bool, text [B, P, C] -> Reduced with L tokens, `kept` -1."""
        check_tokens(KEY, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        if grid is None:
            raise BlockInputError(KEY, "grid", "is missing", "give the 3D grid of the tokens")
        words = sentence(KEY, tokens, text, text_mask)
        real = real_voxels(tokens, mask)
        count = min(len(self.token), tokens.shape[1])
        state = self.token[:count].expand(len(tokens), -1, -1)
        if words is not None:
            state = state + self.words(masked_mean(*words))[:, None]
        state, roi = self.focus(tokens, real, grid, state, self.roi[:count].expand(len(tokens), -1, -1))
        there = real.any(1, keepdim=True).expand(-1, count)
        state = state.to(tokens.dtype)
        clear = tokens.masked_fill(~real[..., None], 0.0)
        query, key = self._with_places(clear, state, roi, grid)

        def unmerge(values: Tensor) -> Tensor:
            one_head = (part[:, None] for part in (query, key, values.to(query.dtype)))
            with autocast_off(query):  # the squares of places cancel in its scores
                back = cross_attention(*one_head, temperature=query.shape[-1] ** -0.5, backend=self.backend)[:, 0]
            return back.to(values.dtype).masked_fill(~real[..., None], 0.0)

        return Reduced(state, there, torch.full_like(there, -1, dtype=torch.long), unmerge)

    def focus(self, tokens: Tensor, real: Tensor, grid: Grid, state: Tensor, roi: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, N, C] of the volume, state [B, L, C], roi [B, L, 6] -> both after `repeats` rounds."""
        weight = real[..., None].to(tokens.dtype)
        dense = grid.dense(torch.cat([tokens.masked_fill(~real[..., None], 0.0), weight], -1))
        for _ in range(self.repeats):
            state = state + self.mix(state, state, None)
            roi = adjust_roi(roi, self.move(state).to(roi.dtype))
            offsets = self.base + self.offset(state).unflatten(-1, (-1, 3)).to(roi.dtype)
            found = sample_points(dense, sampling_places(roi, offsets))
            features, share = found[..., :-1], found[..., -1:]
            features = features / torch.where(share > 1e-6, share, 1.0) * (share > 1e-6)
            state = state + self.sampled(features.to(state.dtype), state)
            state = state + self.mlp(state)
        return state, roi

    def _with_places(self, tokens: Tensor, state: Tensor, roi: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Queries and keys whose dot product is the score of the un-merge.

        -||(p - c) / s||^2 / 2 = sum over axes of (p^2, p, 1) . (-1 / 2s^2, c / s^2, -c^2 / 2s^2): nine more channels
        say it exactly, and nothing of N x L is held.
        """
        axes = [(torch.arange(n, device=tokens.device, dtype=roi.dtype) + 0.5) / n for n in grid.shape_zyx]
        place = torch.cartesian_prod(*axes).reshape(-1, 3) - 0.5
        centre, size = roi.chunk(2, -1)
        centre, narrow = centre - 0.5, size.square().clamp(min=1e-6).reciprocal()
        query = self.query(tokens) * tokens.shape[-1] ** -0.5
        by_place = torch.cat([place.square(), place, torch.ones_like(place)], -1).expand(len(tokens), -1, -1)
        by_box = torch.cat([-0.5 * narrow, centre * narrow, -0.5 * centre.square() * narrow], -1)
        wide = torch.promote_types(query.dtype, torch.float32)  # the squares cancel: bfloat16 would not do
        return (
            torch.cat([query.to(wide), by_place.to(wide)], -1),
            torch.cat([self.key(state).to(wide), by_box.to(wide)], -1),
        )

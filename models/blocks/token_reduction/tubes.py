"""StimuVAR's tubes: the sub-volumes of highest score, chosen with a gradient while training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petground.kernels._shared.precision import autocast_off, widened
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.maps import masked_mean
from petground.models.blocks.token_reduction.perturbed import hard_topk, perturbed_topk
from petground.models.blocks.token_reduction.rest import keep_and_drop, width_of

__all__ = ["PerturbedTubes", "peak_slices", "tube_places"]

KEY = "perturbed_topk_tubes"


def tube_places(grid: Grid, kernel_zyx: Sequence[int], stride_zyx: Sequence[int], device: torch.device) -> Tensor:
    """The voxels of each tube: [T, kernel volume] long. A kernel longer than the grid is cut to it.

    The last tube of an axis ends at the grid's end, so that every voxel lies in a tube.
    """
    shape = grid.shape_zyx
    axes = []
    for n, wanted, step in zip(shape, kernel_zyx, stride_zyx, strict=True):
        length = min(wanted, n)
        starts = sorted({*range(0, n - length + 1, step), n - length})
        axes.append(torch.tensor(starts, device=device)[:, None] + torch.arange(length, device=device))
    z, y, x = axes
    place = (z[:, None, None, :, None, None] * shape[1] + y[None, :, None, None, :, None]) * shape[2]
    return (place + x[None, None, :, None, None, :]).flatten(3).flatten(0, 2)


def peak_slices(profile: Tensor, peaks: int, reach: int) -> Tensor:
    """Slices within `reach` of the `peaks` highest local maxima of a profile [B, Z], smoothed by 1-2-1: [B, Z] bool."""
    edge = torch.cat([profile[:, :1], profile, profile[:, -1:]], 1)
    smooth = 0.25 * edge[:, :-2] + 0.5 * edge[:, 1:-1] + 0.25 * edge[:, 2:]
    low = torch.full_like(smooth[:, :1], float("-inf"))
    top = (smooth >= torch.cat([smooth[:, 1:], low], 1)) & (smooth > torch.cat([low, smooth[:, :-1]], 1))
    rank = smooth.masked_fill(~top, float("-inf"))
    best = rank.argsort(dim=1, descending=True, stable=True)[:, :peaks]  # [B, peaks]
    there = rank.gather(1, best).isfinite()
    apart = (torch.arange(profile.shape[1], device=profile.device)[None, :, None] - best[:, None]).abs()
    return ((apart <= reach) & there[:, None]).any(2)


class PerturbedTubes(nn.Module):
    """StimuVAR's token selection (arXiv 2408.16990, section 3.2), on sub-volumes of the grid.

    1. score_n = MLP([local half ; mean over the volume of the other half]) of Linear(LayerNorm(x_n)).
    2. Tubes of kernel_zyx at every stride_zyx; a tube's score is its voxels' mean, scaled to 0..1 over the tubes.
    3. The `tubes` highest stay. Training: perturbed top-k, I = E over z ~ N(0, 1) of the one-hot rows of
       top-k(scores + sigma z), tokens sum_t I[k, t] tube_t, which stand for no voxel
       (`kept` -1), un-merged by the same indicator with overlaps averaged. Evaluation: the hard top-k, the voxels of
       the chosen tubes, each once, as they are.

    Video to volume: frames are axial slices, a tube is a box of voxels. The paper first keeps frames around the peaks
    of the optical flow; here, with `peaks` above 0, tubes may only touch slices around the peaks of the axial profile
    of `scores` (the highest SUV of each slice), or of the predicted scores where none are given.

    Args:
        channels: of the tokens.
        tubes: how many stay.
        kernel_zyx, stride_zyx: of the tubes.
        samples, sigma: draws and standard deviation of the noise.
        peaks: highest peaks of the axial profile; 0: every slice.
        reach: slices to either side of a peak.
        backend: of the kernels that choose and gather tokens.
    """

    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        tubes: int = 4,
        kernel_zyx: Sequence[int] = (2, 4, 4),
        stride_zyx: Sequence[int] = (1, 3, 3),
        samples: int = 500,
        sigma: float = 0.05,
        peaks: int = 0,
        reach: int = 2,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        if len(kernel_zyx) != 3 or len(stride_zyx) != 3 or min(*kernel_zyx, *stride_zyx) < 1:
            raise ValueError(
                f"kernel_zyx={list(kernel_zyx)}, stride_zyx={list(stride_zyx)}: three numbers of 1 or more"
            )
        if any(s > k for s, k in zip(stride_zyx, kernel_zyx, strict=True)):
            raise ValueError(f"stride_zyx={list(stride_zyx)} leaves gaps between tubes of {list(kernel_zyx)}")
        if tubes < 1 or samples < 1 or sigma <= 0.0 or peaks < 0 or reach < 0:
            raise ValueError("tubes and samples must be 1 or more, sigma positive, peaks and reach not negative")
        self.tubes = tubes
        self.kernel_zyx = tuple(kernel_zyx)
        self.stride_zyx = tuple(stride_zyx)
        self.samples = samples
        self.sigma = sigma
        self.peaks = peaks
        self.reach = reach
        half = -(-channels // 2)
        self.inward = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2 * half), nn.GELU())
        self.outward = nn.Sequential(nn.Linear(2 * half, half), nn.GELU(), nn.Linear(half, 1))
        self.backend = backend

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
        """Tokens [B, N, C], scores [B, N] (for the slices), mask [B, N] bool -> Reduced; text is not read."""
        check_tokens(KEY, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        if grid is None:
            raise BlockInputError(KEY, "grid", "is missing", "give the 3D grid of the tokens")
        real = real_voxels(tokens, mask)
        clear = tokens.masked_fill(~real[..., None], 0.0)
        places = tube_places(grid, self.kernel_zyx, self.stride_zyx, tokens.device)
        voxel_scores = self.predict(clear, real)
        allowed = self._allowed(voxel_scores if scores is None else widened(scores), real, grid, places)
        score = tube_scores(voxel_scores, real, places, allowed)
        k = min(self.tubes, len(places))
        if self.training:
            return _soft(clear, real, places, perturbed_topk(score, k, self.samples, self.sigma), allowed)
        chosen = (hard_topk(score, k) > 0).any(1) & allowed  # [B, T]
        inside = chosen.long().repeat_interleave(places.shape[1], 1)  # [B, T * V]
        touched = torch.zeros_like(real, dtype=torch.long).index_add(1, places.flatten(), inside)
        keep = (touched > 0) & real
        return keep_and_drop(tokens, keep, width_of(keep), self.backend)

    def predict(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Score of each voxel [B, N], in the weights' type: of scores rounded by autocast the place would choose."""
        with autocast_off(tokens):
            local, whole = self.inward(tokens.to(next(self.inward.parameters()).dtype)).chunk(2, -1)
            mean = masked_mean(whole, real)[:, None].expand_as(local)
            score: Tensor = self.outward(torch.cat([local, mean], -1))[..., 0]
        return score

    @torch.no_grad()
    def _allowed(self, scores: Tensor, real: Tensor, grid: Grid, places: Tensor) -> Tensor:
        """[B, T] bool: tubes with a real voxel, and, with `peaks`, with a slice near a peak."""
        there = real[:, places].any(2)
        if not self.peaks:
            return there
        plane = grid.shape_zyx[1] * grid.shape_zyx[2]
        profile = torch.unflatten(scores.masked_fill(~real, float("-inf")), 1, (-1, plane)).amax(2)
        profile = profile.masked_fill(profile.isinf(), torch.finfo(profile.dtype).min / 4)
        near = peak_slices(profile, self.peaks, self.reach).repeat_interleave(plane, 1)
        return there & (near & real)[:, places].any(2)


def tube_scores(scores: Tensor, real: Tensor, places: Tensor, allowed: Tensor) -> Tensor:
    """Voxel scores [B, N] -> mean of each tube's real voxels, scaled to 0..1 over the allowed tubes: [B, T].

    Tubes that are not allowed lie far below.
    """
    inside = real[:, places]
    mean = scores[:, places].masked_fill(~inside, 0.0).sum(2) / inside.sum(2).clamp(min=1)
    low = mean.masked_fill(~allowed, float("inf")).amin(1, keepdim=True)
    high = mean.masked_fill(~allowed, float("-inf")).amax(1, keepdim=True)
    width = torch.where(high > low, high - low, 1.0)
    return ((mean - low) / width).masked_fill(~allowed, -100.0)


def _soft(tokens: Tensor, real: Tensor, places: Tensor, indicator: Tensor, allowed: Tensor) -> Reduced:
    """The expected tubes under an indicator [B, k, T], and the way back."""
    batch, count = real.shape
    volume = places.shape[1]
    share = indicator * allowed[:, None]  # a row with fewer allowed tubes than k has empty places
    soft = torch.einsum("bkt,btvc->bkvc", share, tokens[:, places]).flatten(1, 2)
    there = torch.einsum("bkt,btv->bkv", share.detach(), real[:, places].to(share.dtype)).flatten(1) > 0
    spread = places.flatten()
    covered = share.sum(1).repeat_interleave(volume, 1)  # [B, T * V]
    total = torch.zeros(batch, count, dtype=covered.dtype, device=covered.device)
    total = total.index_add(1, spread, covered).clamp(min=1.0)

    def unmerge(values: Tensor) -> Tensor:
        own = torch.einsum("bkt,bkve->btve", share.to(values.dtype), torch.unflatten(values, 1, (-1, volume)))
        back = values.new_zeros(batch, count, values.shape[2]).index_add(
            1,
            spread,
            own.flatten(1, 2).to(values.dtype),  # autocast narrows the sum
        )
        return (back / total[..., None].to(values.dtype)).masked_fill(~real[..., None], 0.0)

    return Reduced(soft, there, torch.full_like(there, -1, dtype=torch.long), unmerge)

"""SparseFormer's region tokens in three dimensions: sampling, mixing and moving of boxes, as functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample

__all__ = ["AdaptiveMixing", "adjust_roi", "roi_grid", "sample_points", "sampling_places"]


def roi_grid(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Boxes that start spread over the volume: [count, 6], centre and size (z, y, x) in 0..1 of the grid's extent.

    Centres of a lattice of at least `count` cells, evenly thinned; sides of half the volume's, so that they overlap.
    """
    side = 1
    while side**3 < count:
        side += 1
    axis = (torch.arange(side, dtype=dtype, device=device) + 0.5) / side
    cells = torch.cartesian_prod(axis, axis, axis).reshape(-1, 3)
    chosen = (torch.arange(count, device=device) * len(cells)) // count
    return torch.cat([cells[chosen], torch.full_like(cells[chosen], 0.5)], -1)


def adjust_roi(roi: Tensor, change: Tensor) -> Tensor:
    """C' = c + t_c s, s' = s exp(t_s): roi and change [..., 6] -> [..., 6] (SparseFormer, arXiv 2304.03768, eq. 2)."""
    centre, size = roi.chunk(2, -1)
    move, scale = change.chunk(2, -1)
    return torch.cat([centre + move * size, size * scale.exp()], -1)


def sampling_places(roi: Tensor, offsets: Tensor) -> Tensor:
    """Where P points of each box lie: roi [B, L, 6], offsets [B, L, P, 3] -> [B, L, P, 3] in 0..1.

    The offsets are centred and divided by three standard deviations over the P points, whatever their scale, so that
    nearly all lie within the box.
    """
    centre, size = roi.chunk(2, -1)
    apart = offsets - offsets.mean(2, keepdim=True)
    spread = (apart.square().sum(2, keepdim=True) / max(1, offsets.shape[2] - 1) + 1e-10).sqrt()
    return centre[:, :, None] + apart / (3.0 * spread) * size[:, :, None]


def sample_points(dense: Tensor, places: Tensor) -> Tensor:
    """Trilinear values of [B, C, Z, Y, X] at places [B, L, P, 3] (z, y, x in 0..1) -> [B, L, P, C].

    0 and 1 are the grid's outer faces: voxel i of n has its centre at (i + 1/2) / n. Outside: the border's value.
    """
    xyz = 2.0 * places.flip(-1)[:, None] - 1.0  # [B, 1, L, P, 3]
    found = grid_sample(dense, xyz.to(dense.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, :, 0].permute(0, 2, 3, 1)


class AdaptiveMixing(nn.Module):
    """What a token makes of its P sampled features: channels, then points mixed by weights that the token generates.

    F <- gelu(F M_c + b_c), F <- gelu(M_p F + b_p), out = Linear(flat F); M_c [C, C] and M_p [P', P] from the token
    (AdaMixer, arXiv 2203.16507, as in SparseFormer, arXiv 2304.03768, section 3.2).

    Args:
        channels: C.
        points: P.
        out_points: P'.
    """

    def __init__(self, channels: int, points: int, out_points: int):
        super().__init__()
        self.shape = (channels, points, out_points)
        self.generate = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, max(1, channels // 4)),
            nn.Linear(max(1, channels // 4), channels**2 + points * out_points),
        )
        last = self.generate[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            nn.init.xavier_uniform_(last.bias[: channels**2].view(channels, channels))
            nn.init.xavier_uniform_(last.bias[channels**2 :].view(out_points, points))
        self.channel_bias = nn.Parameter(torch.zeros(channels))
        self.point_bias = nn.Parameter(torch.zeros(out_points, 1))
        self.out = nn.Linear(channels * out_points, channels)

    def forward(self, sampled: Tensor, token: Tensor) -> Tensor:
        """Sampled [B, L, P, C], token [B, L, C] -> [B, L, C]."""
        channels, points, out_points = self.shape
        by_channel, by_point = self.generate(token).split([channels**2, points * out_points], -1)
        mixed = gelu(sampled @ by_channel.unflatten(-1, (channels, channels)) + self.channel_bias)
        mixed = gelu(by_point.unflatten(-1, (out_points, points)) @ mixed + self.point_bias)
        out: Tensor = self.out(mixed.flatten(2))
        return out


def lattice_offsets(points: int) -> Sequence[list[float]]:
    """Points spread over a box: (z, y, x) in -1/2..1/2, [points, 3]."""
    centres = roi_grid(points, torch.float64, torch.device("cpu"))[:, :3] - 0.5
    rows: list[list[float]] = centres.tolist()
    return rows

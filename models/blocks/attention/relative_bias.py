"""What a score gains by where key and query lie to each other: learned tables, and functions of the offset in mm.

Every bias here is a module (cut, spacing in mm) -> [H, Q, K] for all windows of the cut; an offset is the query's
place less the key's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.kernels._shared.precision import autocast_off
from petground.models.blocks.attention.windows import Cut, Triple

__all__ = ["AxialEmbedding", "LogSpacedBias", "OffsetBias", "TableBias", "log_spaced"]

Spacing = tuple[float, float, float]


class TableBias(nn.Module):
    """A number per head and offset in voxels: B[h, dz, dy, dx] (Swin, arXiv 2103.14030, equation 4)."""

    def __init__(self, num_heads: int, window: Triple, halo: Triple = (0, 0, 0)):
        super().__init__()
        self.reach = tuple(w - 1 + h for w, h in zip(window, halo, strict=True))
        self.table = nn.Parameter(torch.zeros(num_heads, *(2 * r + 1 for r in self.reach)))
        nn.init.trunc_normal_(self.table, std=0.02)

    def of_offsets(self, cut: Cut, spacing_zyx_mm: Spacing) -> Tensor:
        """[H, offsets]; a window smaller than the table takes its middle."""
        part: Tensor = self.table
        for axis, (whole, reach) in enumerate(zip(self.reach, cut.reach, strict=True)):
            part = part.narrow(1 + axis, whole - reach, 2 * reach + 1)
        return part.flatten(1)

    def forward(self, cut: Cut, spacing_zyx_mm: Spacing) -> Tensor:
        """[H, Q, K]."""
        return _of_pairs(self.of_offsets(cut, spacing_zyx_mm), cut)


class LogSpacedBias(nn.Module):
    """B = 16 sigmoid(MLP(log-spaced offset)) (Swin V2, arXiv 2111.09883, section 3.3, and its code for the 16).

    Args:
        num_heads: heads.
        hidden: width of the two-layer MLP; the last layer has no constant.
        unit_mm: the distance that counts as one in log(1 + distance).
    """

    def __init__(self, num_heads: int, hidden: int = 512, unit_mm: float = 4.0):
        super().__init__()
        self.unit_mm = unit_mm
        self.inward = nn.Linear(3, hidden)
        self.outward = nn.Linear(hidden, num_heads, bias=False)

    def of_offsets(self, cut: Cut, spacing_zyx_mm: Spacing) -> Tensor:
        """[H, offsets]. The same mm give the same bias, whatever window and spacing."""
        offsets = log_spaced(_offsets_mm(cut, spacing_zyx_mm, self.inward.weight) / self.unit_mm)
        with autocast_off(offsets):  # about 8, of which bfloat16 would leave steps of 1/32
            return 16 * torch.sigmoid(self.outward(self.inward(offsets).relu())).T

    def forward(self, cut: Cut, spacing_zyx_mm: Spacing) -> Tensor:
        """[H, Q, K]."""
        return _of_pairs(self.of_offsets(cut, spacing_zyx_mm), cut)


class OffsetBias(nn.Module):
    """B = MLP(offset): three hidden layers with norm and ReLU (CrossFormer's DPB, arXiv 2108.00154, section 3.3).

    Args:
        num_heads: heads.
        hidden: width of the hidden layers, D / 4 in the paper.
        unit_mm: the distance that counts as one.
    """

    def __init__(self, num_heads: int, hidden: int, unit_mm: float = 4.0):
        super().__init__()
        self.unit_mm = unit_mm
        self.inward = nn.Linear(3, hidden)
        layers: list[nn.Module] = []
        for outputs in (hidden, hidden, num_heads):
            layers += [nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
        self.mlp = nn.Sequential(*layers)

    def of_offsets(self, cut: Cut, spacing_zyx_mm: Spacing) -> Tensor:
        """[H, offsets]."""
        offsets = _offsets_mm(cut, spacing_zyx_mm, self.inward.weight) / self.unit_mm
        values: Tensor = self.mlp(self.inward(offsets))
        return values.T

    def forward(self, cut: Cut, spacing_zyx_mm: Spacing) -> Tensor:
        """[H, Q, K]."""
        return _of_pairs(self.of_offsets(cut, spacing_zyx_mm), cut)


class AxialEmbedding(nn.Module):
    """A vector per axis and offset in voxels, asked by the query: q . (r_z[dz] + r_y[dy] + r_x[dx]).

    As HaloNet has it (arXiv 2103.12731, equation 2, after Shaw et al. 2018), one set for all heads, here along each of
    three axes. `widen` folds it into the dot product: logits of [q, q . r] with [k, one-hot of the key's place], so
    that no map of offsets is ever held.
    """

    def __init__(self, head_dim: int, window: Triple, halo: Triple = (0, 0, 0)):
        super().__init__()
        self.reach = tuple(w - 1 + h for w, h in zip(window, halo, strict=True))
        self.axes = nn.ParameterList(nn.Parameter(torch.zeros(2 * r + 1, head_dim)) for r in self.reach)
        for axis in self.axes:
            nn.init.trunc_normal_(axis, std=head_dim**-0.5)

    def widen(self, q: Tensor, scaled: Tensor, k: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
        """Both sides wider by the keys' extents; `q` asks the embedding, `scaled` asks k, all [B, H, N, D].

        A window's keys stand side by side along an axis, so that their step modulo the extent tells them apart: what
        is added belongs to the voxel, whichever windows it is a key of.
        """
        queries, keys = [scaled], [k]
        for axis, (table, whole) in enumerate(zip(self.axes, self.reach, strict=True)):
            extent = cut.window[axis] + 2 * cut.halo[axis]
            place = torch.arange(cut.grid[axis], device=q.device) - cut.shift[axis]
            step = torch.div(place, cut.interval[axis], rounding_mode="floor")
            first = torch.div(step, cut.window[axis], rounding_mode="floor") * cut.window[axis] - cut.halo[axis]
            ahead = (torch.arange(extent, device=q.device) - first[:, None]) % extent  # of the key with each remainder
            offset = (step - first)[:, None] - ahead + whole  # [places, extent]
            asked = q @ table.to(q.dtype).T  # [B, H, N, 2 whole + 1]
            by_place = torch.unflatten(asked, 2, cut.grid).movedim(2 + axis, -2)
            picked = by_place.gather(-1, offset.expand(*by_place.shape[:-2], *offset.shape))
            queries.append(picked.movedim(-2, 2 + axis).flatten(2, 4))
            one_hot = torch.eye(extent, dtype=k.dtype, device=k.device)[step % extent]
            shape = [1, 1, 1, extent]
            shape[axis] = len(step)
            places = one_hot.reshape(shape).expand(*cut.grid, -1).reshape(-1, extent)
            keys.append(places.expand(*k.shape[:2], -1, -1))
        return torch.cat(queries, dim=-1), torch.cat(keys, dim=-1)


def log_spaced(offset: Tensor) -> Tensor:
    """sign(d) log(1 + |d|)."""
    return offset.sign() * offset.abs().log1p()


def _axis_offsets(cut: Cut, axis: int, device: torch.device) -> Tensor:
    """Query's place less key's along one axis, in steps, [window, window + 2 halo]."""
    window, halo = cut.window[axis], cut.halo[axis]
    queries = torch.arange(window, device=device)
    return queries[:, None] + halo - torch.arange(window + 2 * halo, device=device)


def _offsets_mm(cut: Cut, spacing_zyx_mm: Spacing, like: Tensor) -> Tensor:
    """Every offset that occurs in a cut, in mm, [(2 rz + 1)(2 ry + 1)(2 rx + 1), 3]."""
    axes = [
        torch.arange(-r, r + 1, device=like.device, dtype=like.dtype) * (step * mm)
        for r, step, mm in zip(cut.reach, cut.interval, spacing_zyx_mm, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def _of_pairs(values: Tensor, cut: Cut) -> Tensor:
    """Values per offset [H, offsets] -> per query and key of a window [H, Q, K]."""
    queries, keys = 1, 1
    index = torch.zeros((1, 1, 1, 1, 1, 1), dtype=torch.long, device=values.device)
    for axis, reach in enumerate(cut.reach):
        offset = _axis_offsets(cut, axis, values.device) + reach
        shape = [1] * 6
        shape[axis], shape[3 + axis] = offset.shape
        index = index * (2 * reach + 1) + offset.reshape(shape)
        queries, keys = queries * offset.shape[0], keys * offset.shape[1]
    return torch.unflatten(values.index_select(1, index.flatten()), 1, (queries, keys))

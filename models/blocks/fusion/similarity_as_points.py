"""READ's similarity as points: where the sentence and the voxels are alike becomes prompt points of the decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contextual_gate import voxel_places
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.cells import cell_grid, pooled
from petground.models.blocks.fusion.parts import Attend, dense, flat

__all__ = ["Points", "SimilarityAsPoints", "points_of", "similarity", "soft_places"]


class Points(NamedTuple):
    """places [B, K, 3] (z, y, x in voxels of the grid); labels [B, K], 1 positive, 0 negative, -1 neutral."""

    places: Tensor
    labels: Tensor


def similarity(voxels: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """Voxels [B, N, C], words [B, P, C], mask [B, P] bool -> map [B, N] in 0..1; a constant map is 0.5 everywhere.

    s_n = sum_p w_p <v_n, t_p> of unit vectors, w = softmax_p(2 <mean v, t_p>), then min-max normalised.
    """
    v, t = normalize(voxels, dim=-1), normalize(words, dim=-1)
    logits = 2.0 * torch.einsum("bc,bpc->bp", normalize(voxels.mean(dim=1), dim=-1), t)
    weights = masked_softmax(logits[:, None, None], mask[:, None, None])[:, 0, 0].to(t.dtype)
    raw = torch.einsum("bnc,bc->bn", v, torch.einsum("bp,bpc->bc", weights, t))
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    low, high = raw.amin(dim=1, keepdim=True), raw.amax(dim=1, keepdim=True)
    span = high - low
    same = span <= 8 * torch.finfo(raw.dtype).eps  # rounding alone makes no point
    return torch.where(same, torch.full_like(raw, 0.5), (raw - low) / torch.where(same, torch.ones_like(span), span))


def soft_places(alike: Tensor, hard: Tensor, shape_zyx: tuple[int, int, int]) -> Tensor:
    """Soft places c = sum_g g w_g, w_g ~ softmax(s)_g exp(-|g - p|^2): differentiable in the map.

    alike s [B, N] on the grid, whose voxels are g, hard p [B, K, 3] in voxels -> [B, K, 3].
    """
    axes = [torch.arange(n, device=hard.device).to(hard.dtype) for n in shape_zyx]
    z, y, x = ((hard[..., axis, None] - places).square() for axis, places in enumerate(axes))
    distance = (z[..., :, None, None] + y[..., None, :, None] + x[..., None, None, :]).flatten(2)
    return (alike[:, None] - distance).softmax(dim=-1) @ _indices(shape_zyx, alike)


def points_of(
    alike: Tensor, shape_zyx: tuple[int, int, int], count: int, positive: float, negative: float, smooth: int
) -> Points:
    """Map [B, N] on the grid -> at most `count` points: the positives, highest first, the negatives, lowest first, then
    neutral ones in the grid's order; chosen on a grid `smooth` times coarser, at the cells' centres.
    """
    cells = cell_grid(shape_zyx, smooth)
    coarse = pooled(torch.unflatten(alike.detach(), 1, (1, *shape_zyx)), cells).flatten(1)
    low, high = coarse.amin(dim=1, keepdim=True), coarse.amax(dim=1, keepdim=True)
    same = low == high
    coarse = torch.where(same, torch.full_like(coarse, 0.5), (coarse - low) / torch.where(same, 1.0, high - low))
    labels = torch.where(coarse >= positive, 1, torch.where(coarse <= negative, 0, -1))
    order = torch.arange(coarse.shape[1], device=coarse.device).to(coarse.dtype) / coarse.shape[1]
    key = torch.where(labels == 1, 2.0 + coarse, torch.where(labels == 0, 1.0 - coarse, -order))
    top = key.topk(min(count, key.shape[1]), dim=1).indices
    centres = _indices(cells, coarse)
    size = coarse.new_tensor([n / k for n, k in zip(shape_zyx, cells, strict=True)])
    hard = ((centres + 0.5) * size - 0.5)[top]
    return Points(soft_places(alike, hard, shape_zyx), labels.gather(1, top))


def _indices(shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """[N, 3]: z, y, x of each voxel."""
    axes = [torch.arange(n, device=like.device).to(like.dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


class SimilarityAsPoints(nn.Module):
    """Text-voxel similarity -> point prompts -> the gate (arXiv 2412.17741, section 3.3, and the released code).

        s = minmax(sum_p w_p <v, t_p>)          points with s >= positive are 1, s <= negative 0, the rest -1
        c = sum_g g w_g,  w_g ~ softmax(s)_g exp(-|g - p|^2)
        e = fourier(c) + embedding(label);  a neutral point is an embedding without place
        A = MHA(q = voxels + fourier(places), k = v = [tokens; e]),   x' = x (1 + tanh A) + A

    v are the stage's voxels, t the sentence's tokens, both through linear maps. The paper has one <SEG> token, whose
    weight is 1; with the tokens of a sentence w is the code's background-corrected softmax, taken at the mean voxel
    where the code takes the first image token. Vectors are of unit length. The mask decoder that reads the points is
    cross-attention into the gate here, Segment Anything's two-way transformer there. A starts at zero: the identity at
    the start. Tokens stay as they came. A constant map, also that of an empty sentence, has no positive point.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        points: how many at the most; 30 as in the 7B model.
        positive: threshold from which a point is positive.
        negative: threshold up to which a point is negative.
        smooth: points are chosen on a grid so many times coarser.
        backend: of the attention's kernels.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        points: int = 30,
        positive: float = 0.8,
        negative: float = 0.2,
        smooth: int = 2,
        backend: Backend = "auto",
    ):
        super().__init__()
        if points < 1 or smooth < 1 or not 0 <= negative < positive <= 1:
            raise ValueError(
                f"points={points}, smooth={smooth} at least 1, negative={negative} < positive={positive} in 0..1"
            )
        self.channels, self.text_channels = channels, text_channels
        self.points, self.positive, self.negative, self.smooth = points, positive, negative, smooth
        self.text = nn.Linear(text_channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.alike = nn.Linear(channels, channels)
        self.words = nn.Linear(channels, channels)
        self.register_buffer("frequencies", torch.randn(3, 16))
        self.place = nn.Linear(32, channels)
        self.label = nn.Embedding(3, channels)
        self.attend = Attend(channels, num_heads, zero=True)
        served_by(backend, self)

    @tells_backend("similarity_as_points")
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3] -> x, gated, and the tokens."""
        check_fusion(
            "similarity_as_points", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels
        )
        z, y, width = x.shape[2:]
        voxels, text = self.norm(flat(x)), self.text(tokens)
        found = self.find(voxels, text, mask, (z, y, width))
        prompts = self._prompts(found, (z, y, width), box).to(text.dtype)
        places = self._fourier(voxel_places((z, y, width), box, x.device).reshape(-1, z * y * width, 3))
        queries = (torch.unflatten(voxels, 0, (len(places), -1)) + places[:, None].to(voxels.dtype)).flatten(0, 1)
        real = torch.cat([mask, mask.new_ones(prompts.shape[:2])], dim=1)
        answer = dense(self.attend(queries, torch.cat([text, prompts], dim=1), real), x)
        return x * (1.0 + torch.tanh(answer)) + answer, tokens

    def find(self, voxels: Tensor, text: Tensor, mask: Tensor, shape_zyx: tuple[int, int, int]) -> Points:
        """Voxels [B, N, C], text [B, P, C], mask [B, P] bool -> the points, in voxels of the grid."""
        alike = similarity(self.alike(voxels), self.words(text), mask)
        return points_of(alike, shape_zyx, self.points, self.positive, self.negative, self.smooth)

    def _prompts(self, found: Points, shape_zyx: tuple[int, int, int], box: Tensor | None) -> Tensor:
        places = (2.0 * found.places + 1.0) / found.places.new_tensor(shape_zyx) - 1.0
        if box is not None:
            corners = box.to(places.dtype).repeat_interleave(len(places) // len(box), dim=0)
            low, high = corners[:, :1], corners[:, 1:]
            places = low + (places + 1.0) * 0.5 * (high - low)
        is_point = (found.labels >= 0)[..., None]
        fourier = self._fourier(places)
        return torch.where(is_point, fourier, torch.zeros_like(fourier)) + self.label(found.labels + 1)

    def _fourier(self, places: Tensor) -> Tensor:
        """[..., 3] in -1..1 of the exam -> [..., C]: sine and cosine at random frequencies, as in Segment Anything."""
        angles = (2.0 * torch.pi) * (places.to(self.frequencies.dtype) @ self.frequencies)
        out: Tensor = self.place(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return out

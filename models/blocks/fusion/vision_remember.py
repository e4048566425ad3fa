"""Vision Remember: coarse tokens that met the text re-read the fine features, each only those of its own cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.cells import cell_grid, stacked, unstacked
from petground.models.blocks.fusion.parts import Attend, Coordinates, Places, zeroed

__all__ = ["VisionRemember"]


class VisionRemember(nn.Module):
    """Local cross-attention from a cell to its own r^3 voxels of several levels (arXiv 2506.03928, section 3).

        t_c = mean of x over cell c,   t_c' = t_c + Attn(t_c; tokens)                  coarse tokens meet the text
        a_cj = softmax_j(q(t_c') k(f_j) / sqrt(d)),  j in cell c                        f_j: all levels of voxel j
        x_j' = x_j + W_o sum_i a_ci v(f_i)   for every voxel j of c

    Levels are the encoder's features of the stage (the skip) and the decoder's own x; keys and values of their
    concatenation are written as a sum over levels, so that the encoder's are worked out once per exam. Without a skip
    x is the only level. The paper's levels are layers 13, 18 and 23 of one image encoder, its tokens those between the
    layers of a language model. W_o starts at zero: the block starts as the identity. Tokens stay as they came.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        stride: r, edge of a cell in voxels; 1 makes the second line a pointwise projection.
        coordinates: places added to the coarse tokens where they ask the text.
        backend: of the attention's kernels.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        stride: int = 2,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride={stride} must be at least 1")
        self.channels, self.text_channels, self.stride, self.num_heads = channels, text_channels, stride, num_heads
        self.text = nn.Linear(text_channels, channels)
        self.places = Places(channels, coordinates)
        self.norm = nn.LayerNorm(channels)
        self.meet = Attend(channels, num_heads)
        self.norm_query = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.norms = nn.ModuleDict({level: nn.LayerNorm(channels) for level in ("x", "skip")})
        self.keys = nn.ModuleDict({level: nn.Linear(channels, channels) for level in ("x", "skip")})
        self.values = nn.ModuleDict({level: nn.Linear(channels, channels) for level in ("x", "skip")})
        self.out = zeroed(nn.Linear(channels, channels))
        served_by(backend, self)

    @tells_backend("vision_remember")
    def forward(
        self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None, *, skip: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3], skip [E, C, Z, Y, X] -> x, tokens."""
        check_fusion(
            "vision_remember", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels, skip=skip
        )
        cells = stacked(x, self.stride)
        real = stacked(torch.ones_like(x[:1, :1]), self.stride)  # [1, cells, r^3, 1]
        coarse = cells.sum(dim=2) / real.sum(dim=2)
        asked = self.places(self.norm(coarse), x, box, cell_grid(x.shape, self.stride))
        coarse = coarse + self.meet(asked, self.text(tokens), mask)
        read = self.remember(coarse, cells, None if skip is None else stacked(skip, self.stride), real[..., 0] > 0)
        z, y, width = x.shape[2:]
        added = self.out(read)[:, :, None].expand(-1, -1, self.stride**3, -1)
        return x + unstacked(added, self.stride, (z, y, width)).to(x.dtype), tokens

    def remember(self, coarse: Tensor, cells: Tensor, skip: Tensor | None, real: Tensor) -> Tensor:
        """Coarse [B, N, C], cells [B, N, r^3, C], skip [E, N, r^3, C], real [1, N, r^3] bool -> [B, N, C]."""
        k, v = self._heads("keys", cells, skip), self._heads("values", cells, skip)
        q = self.query(self.norm_query(coarse)).unflatten(-1, (self.num_heads, -1))
        scores = torch.einsum("bnhd,bnjhd->bnhj", q, k) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~real[:, :, None], float("-inf")).softmax(dim=-1)
        return torch.einsum("bnhj,bnjhd->bnhd", weights.to(v.dtype), v).flatten(2)

    def _heads(self, name: str, cells: Tensor, skip: Tensor | None) -> Tensor:
        layers = self.keys if name == "keys" else self.values
        out: Tensor = layers["x"](self.norms["x"](cells))
        if skip is not None:
            part = layers["skip"](self.norms["skip"](skip))
            out = (torch.unflatten(out, 0, (len(part), -1)) + part[:, None]).flatten(0, 1)
        return torch.unflatten(out, -1, (self.num_heads, -1))

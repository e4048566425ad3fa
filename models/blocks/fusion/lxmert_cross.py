"""LXMERT's cross-modality layer: text and voxels read each other at the same time, then each thinks for itself."""

from __future__ import annotations

from torch import Tensor, nn

from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.cells import cell_grid, pooled, spread
from petground.models.blocks.fusion.parts import Attend, Coordinates, FeedForward, Places, dense, flat, updated

__all__ = ["LxmertCross"]


class LxmertCross(nn.Module):
    """Bidirectional cross-attention, then self-attention and feed-forward in each stream (arXiv 1908.07490, 2.2).

        h' = h + Cross(h; v)      v' = v + Cross(v; h)           both from the states before
        h'' = h' + Self(h')       v'' = v' + Self(v')
        h''' = h'' + FF(h'')      v''' = v'' + FF(v'')

    Layers are normalised before, not after, and what they add starts at zero, so that the block starts as the
    identity; the paper normalises after. Voxel tokens are the stage's features, text tokens the sentence's, projected
    to their width; the change of the text goes back to its own width.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        layers: cross-modality layers; the paper has 5.
        shared_cross: both directions of the cross-attention have the same weights, as in the released code.
        pool: voxel tokens are means over cells of pool^3 voxels, and what is added is spread back; the self-attention
            among N voxel tokens costs N^2, so fine stages want more than 1.
        coordinates: places added to the voxel tokens where they are looked at; the paper adds the boxes of objects.
        backend: of the attention's kernels.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        layers: int = 1,
        shared_cross: bool = True,
        pool: int = 1,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if layers < 1 or pool < 1:
            raise ValueError(f"layers={layers} and pool={pool} must be at least 1")
        self.channels, self.text_channels, self.pool = channels, text_channels, pool
        self.text = nn.Linear(text_channels, channels)
        self.back = nn.Linear(channels, text_channels, bias=False)
        self.places = Places(channels, coordinates)
        self.layers = nn.ModuleList(CrossModalityLayer(channels, num_heads, shared_cross) for _ in range(layers))
        served_by(backend, self)

    @tells_backend("lxmert_cross")
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3] -> both streams, of the same shapes."""
        check_fusion("lxmert_cross", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        grid = cell_grid(x.shape, self.pool)
        cells = pooled(x, grid)
        voxels, words = flat(cells), self.text(tokens)
        where = self.places(voxels.new_zeros(voxels.shape), x, box, grid)
        v, h = voxels, words
        for layer in self.layers:
            h, v = layer(h, v, mask, where)
        z, y, width = x.shape[2:]
        added = spread(dense(v - voxels, cells), (z, y, width))
        return x + added, updated(tokens, mask, self.back(h - words))


class CrossModalityLayer(nn.Module):
    """One layer; see `LxmertCross`."""

    def __init__(self, channels: int, num_heads: int, shared_cross: bool):
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(channels) for name in ("h", "v", "h_self", "v_self")})
        self.cross_h = Attend(channels, num_heads, zero=True)
        self.cross_v = self.cross_h if shared_cross else Attend(channels, num_heads, zero=True)
        self.self_h = Attend(channels, num_heads, zero=True)
        self.self_v = Attend(channels, num_heads, zero=True)
        self.think_h = FeedForward(channels, zero=True)
        self.think_v = FeedForward(channels, zero=True)

    def forward(self, h: Tensor, v: Tensor, mask: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Text h [B, P, C], voxels v [B, N, C], mask [B, P] bool, places [B, N, C] -> both, changed."""
        said, seen = self.norms["h"](h), self.norms["v"](v) + where
        h, v = h + self.cross_h(said, seen), v + self.cross_v(seen, said, mask)
        said, seen = self.norms["h_self"](h), self.norms["v_self"](v) + where
        h, v = h + self.self_h(said, said, mask), v + self.self_v(seen, seen)
        return h + self.think_h(h), v + self.think_v(v)

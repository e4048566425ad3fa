"""DeepStack: fine features enter a coarse fusion stack group by group, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.cells import cell_grid, stacked, unstacked
from petground.models.blocks.fusion.parts import Coordinates, Places, TransformerLayer, updated, zeroed

__all__ = ["DeepStack"]


class DeepStack(nn.Module):
    """H_vis += X^s before layer start + s * interval of a stack over [H_vis; T] (arXiv 2406.04334, section 3.2).

    The fine features (the encoder's of the stage, the skip; x itself without one) are split by 3D dilated sampling with
    stride r into S = r^3 groups X^1..X^S, each as long as the coarse tokens H_vis, the means of x over cells of r^3
    voxels. Layers are transformer layers over cells and text together; the sequence never grows. The paper's layers are
    those of a language model, its groups high-resolution image tokens. What the stack says goes back to the voxels by
    the inverse of the split: Linear(C, r^3 C) of a cell, un-stacked, added to x; it starts at zero, and so does the
    text's way back: the block starts as the identity.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        stride: r; there are start + (r^3 - 1) interval + 1 layers.
        start: layer before which the first group is added.
        interval: layers from one group to the next.
        ratio: width of the layers' feed-forward over the channels.
        coordinates: places added to the coarse tokens.
        backend: of the attention's kernels.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        stride: int = 2,
        start: int = 1,
        interval: int = 1,
        ratio: int = 2,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if stride < 1 or start < 0 or interval < 1 or ratio < 1:
            raise ValueError(
                f"stride={stride}, interval={interval}, ratio={ratio} at least 1, start={start} at least 0"
            )
        self.channels, self.text_channels = channels, text_channels
        self.stride, self.start, self.interval = stride, start, interval
        self.groups = stride**3
        self.text = nn.Linear(text_channels, channels)
        self.back = zeroed(nn.Linear(channels, text_channels, bias=False))
        self.places = Places(channels, coordinates)
        self.fine = nn.Linear(channels, channels, bias=False)
        count = start + (self.groups - 1) * interval + 1
        self.layers = nn.ModuleList(TransformerLayer(channels, num_heads, ratio) for _ in range(count))
        self.norm = nn.LayerNorm(channels)
        self.out = zeroed(nn.Linear(channels, self.groups * channels))
        served_by(backend, self)

    @tells_backend("deepstack")
    def forward(
        self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None, *, skip: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3], skip [E, C, Z, Y, X] -> both."""
        check_fusion(
            "deepstack", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels, skip=skip
        )
        real = stacked(torch.ones_like(x[:1, :1]), self.stride).sum(dim=2)
        coarse = stacked(x, self.stride).sum(dim=2) / real
        coarse = self.places(coarse, x, box, cell_grid(x.shape, self.stride))
        words = self.text(tokens)
        fine = stacked(x if skip is None else skip, self.stride).repeat_interleave(
            1 if skip is None else len(x) // len(skip), dim=0
        )
        states = self.stack(coarse, words, mask, fine)
        count = coarse.shape[1]
        z, y, width = x.shape[2:]
        cells = self.out(self.norm(states[:, :count])).unflatten(-1, (self.groups, -1))
        said = updated(tokens, mask, self.back(states[:, count:] - words))
        return x + unstacked(cells, self.stride, (z, y, width)).to(x.dtype), said

    def group(self, layer: int) -> int | None:
        """Which group enters before this layer; None for none."""
        s, rest = divmod(layer - self.start, self.interval)
        return s if rest == 0 and 0 <= s < self.groups else None

    def stack(self, coarse: Tensor, words: Tensor, mask: Tensor, fine: Tensor) -> Tensor:
        """Coarse [B, N, C], words [B, P, C], mask [B, P] bool, fine [B, N, S, C] -> [B, N + P, C]."""
        count = coarse.shape[1]
        real = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
        states = torch.cat([coarse, words], dim=1)
        for number, layer in enumerate(self.layers):
            s = self.group(number)
            if s is not None:
                states = torch.cat([states[:, :count] + self.fine(fine[:, :, s]), states[:, count:]], dim=1)
            states = layer(states, real)
        return states

"""What the reductions with latent tokens share: the sentence's state, and tokens that read other tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import Backend
from petground.models.blocks.between import attend_between
from petground.models.blocks.contract import check_text
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.maps import split_heads

__all__ = ["Mlp", "Read", "sentence"]


def sentence(block: str, tokens: Tensor, text: Tensor | None, text_mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """The sentence's tokens [B, P, C], padding zeroed, and their mask [B, P]; None without text.

    Raises BlockInputError unless they go with the voxel tokens [B, N, C].
    """
    if text is None:
        return None
    check_text(block, tokens, text, text_mask)
    real = real_voxels(text, None) if text_mask is None else text_mask
    return text.masked_fill(~real[..., None], 0.0), real


class Read(nn.Module):
    """Linear(softmax(q k^T / sqrt(d)) v): what `x` gathers from `y`, both layer-normalised first.

    Args:
        channels: of both.
        heads: must divide channels.
        zero: the last layer starts at zero, so that nothing is added at first.

    `backend` of its kernels is "auto"; `served_by` sets it.
    """

    backend: Backend = "auto"

    def __init__(self, channels: int, heads: int, *, zero: bool = False):
        super().__init__()
        split_heads("read", channels, heads)
        self.count = heads
        self.norm_x = nn.LayerNorm(channels)
        self.norm_y = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        if zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def heads(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, H, N, C / H]."""
        return torch.unflatten(tokens, -1, (self.count, -1)).transpose(1, 2)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """X [B, Q, C], y [B, M, C], mask [B, M] bool of y -> [B, Q, C]; memory linear in Q and M."""
        key, value = self.key_value(self.norm_y(y)).chunk(2, -1)
        query = self.heads(self.query(self.norm_x(x)))
        read = attend_between(query, self.heads(key), self.heads(value), mask, self.backend)
        added: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return added


class Mlp(nn.Module):
    """Linear(GELU(Linear(LayerNorm(x)))), `ratio` times as wide inside; what is to be added to x."""

    def __init__(self, channels: int, ratio: float = 2.0):
        super().__init__()
        hidden = max(1, int(ratio * channels))
        self.layers = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        added: Tensor = self.layers(x)
        return added

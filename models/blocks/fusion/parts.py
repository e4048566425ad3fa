"""What several fusions are built of: attention between streams, a feed-forward, places, and the way back to tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import Backend
from petground.models.blocks.between import attend_between
from petground.models.blocks.contextual_gate import voxel_places
from petground.models.blocks.fusion.cells import pooled

__all__ = [
    "Attend",
    "Coordinates",
    "FeedForward",
    "Places",
    "TransformerLayer",
    "dense",
    "flat",
    "updated",
    "zeroed",
]

Coordinates = Literal["none", "linear", "fourier"]


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer, starting at zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def flat(x: Tensor) -> Tensor:
    """[B, C, Z, Y, X] -> [B, Z*Y*X, C]."""
    return x.flatten(2).transpose(1, 2)


def dense(h: Tensor, like: Tensor) -> Tensor:
    """[B, Z*Y*X, C] -> [B, C, Z, Y, X] on the grid and in the type of `like`."""
    return torch.unflatten(h.transpose(1, 2), 2, like.shape[2:]).to(like.dtype)


def updated(tokens: Tensor, mask: Tensor, change: Tensor) -> Tensor:
    """Tokens [B, P, D] with `change` [B, P, D] added where mask [B, P] is True; padding stays as it came."""
    return torch.where(mask[..., None], tokens + change.to(tokens.dtype), tokens)


class Attend(nn.Module):
    """Multi-head attention from one stream to another, Linear(softmax(q k^T / sqrt(d)) v), N x M never held.

    Args:
        channels: of both streams; d = channels / num_heads.
        num_heads: must divide channels.
        zero: the output projection starts at zero.
        full_width: divides by sqrt(channels) in place of sqrt(d).

    `backend` of its kernels is "auto"; `served_by` sets that of all in a block.
    """

    backend: Backend = "auto"

    def __init__(self, channels: int, num_heads: int, *, zero: bool = False, full_width: bool = False):
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide channels={channels}")
        self.num_heads = num_heads
        self.shrink = num_heads**-0.5 if full_width else 1.0
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        if zero:
            zeroed(self.out)

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Query [B, N, C], source [B, M, C], mask [B, M] bool (True = real) -> [B, N, C]."""
        return self.read(self.heads(self.query(query)), *self.keys(source, source), mask)

    def heads(self, h: Tensor) -> Tensor:
        """[B, N, C] -> [B, H, N, C/H]."""
        return torch.unflatten(h, -1, (self.num_heads, -1)).transpose(1, 2)

    def keys(self, source: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys of `source` and values of `values`, both [B, M, C], as [B, H, M, C/H]."""
        return self.heads(self.key(source)), self.heads(self.value(values))

    def read(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Q [B, H, N, C/H], k and v [B, H, M, C/H], mask [B, M] bool -> [B, N, C]."""
        out: Tensor = self.out(attend_between(q * self.shrink, k, v, mask, self.backend).transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Linear(GELU(Linear(LayerNorm(h)))), to be added to h."""

    def __init__(self, channels: int, ratio: int = 4, *, zero: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inner = nn.Linear(channels, ratio * channels)
        self.out = nn.Linear(ratio * channels, channels)
        if zero:
            zeroed(self.out)

    def forward(self, h: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        out: Tensor = self.out(nn.functional.gelu(self.inner(self.norm(h))))
        return out


class TransformerLayer(nn.Module):
    """Pre-normalised self-attention and feed-forward, each with its residual."""

    def __init__(self, channels: int, num_heads: int, ratio: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attend = Attend(channels, num_heads)
        self.think = FeedForward(channels, ratio)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """H [B, N, C], mask [B, N] bool of the tokens that may be looked at -> [B, N, C]."""
        states = self.norm(h)
        h = h + self.attend(states, states, mask)
        out: Tensor = h + self.think(h)
        return out


class Places(nn.Module):
    """Where a voxel or a cell lies in the exam, as features to add: so that "left" can mean a place.

    Args:
        channels: of the features.
        coordinates: "none"; "linear", a linear layer over z, y, x in -1..1; "fourier", over them and the sine and
            cosine of pi, 2 pi and 4 pi times them. As in `contextual_gate`.
    """

    def __init__(self, channels: int, coordinates: Coordinates):
        super().__init__()
        self.coordinates = coordinates
        self.turn = nn.Linear(3 if coordinates == "linear" else 21, channels) if coordinates != "none" else None

    def forward(self, h: Tensor, x: Tensor, box: Tensor | None, grid: tuple[int, int, int] | None = None) -> Tensor:
        """H [B, N, C], the voxels of x [B, C, Z, Y, X], or its cells pooled to `grid` -> h with their places added."""
        if self.turn is None:
            return h
        z, y, width = x.shape[2:]
        places = voxel_places((z, y, width), box, x.device).reshape(-1, z * y * width, 3)
        if grid is not None:
            places = flat(pooled(torch.unflatten(places.transpose(1, 2), 2, (z, y, width)), grid))
        if self.coordinates == "fourier":
            angles = torch.cat([places * (torch.pi * 2.0**octave) for octave in range(3)], dim=-1)
            places = torch.cat([places, angles.sin(), angles.cos()], dim=-1)
        added = self.turn(places.to(self.turn.weight.dtype)).to(h.dtype)
        return (torch.unflatten(h, 0, (len(added), -1)) + added[:, None]).flatten(0, 1)

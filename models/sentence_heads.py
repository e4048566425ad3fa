"""What a sentence draws from where it looks: a filter over shared features, and whether the thing is there."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["PresenceHead", "SentenceFilter", "look"]


def look(x: Tensor, logits: Tensor) -> Tensor:
    """Features x [N, C, z, y, x] and logits [N, 1, z, y, x] -> [N, C + 2] float32.

    The features' mean, weighted by the softmax of the logits over all voxels; the largest logit; and the mean logit
    under the same weights.
    """
    flat = logits.float().flatten(1)
    weight = flat.softmax(dim=-1)
    features = torch.einsum("ncv,nv->nc", x.flatten(2), weight.to(x.dtype))  # in 16 bits if x is, as autocast would
    return torch.cat([features.float(), flat.amax(dim=-1, keepdim=True), (flat * weight).sum(-1, keepdim=True)], dim=-1)


class SentenceFilter(nn.Module):
    """A sentence's own 1x1x1 convolution over text-free features; it starts as the plain head."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.turn = nn.Linear(channels, features + 1)
        nn.init.zeros_(self.turn.weight)
        nn.init.zeros_(self.turn.bias)
        self.channels = channels

    def forward(self, features: Tensor, looked: Tensor, head: nn.Conv3d) -> Tensor:
        """Features [B, F, Z, Y, X], looked [B, S, C + 2] of `look`, the plain head -> logits [B, S, Z, Y, X]."""
        change = self.turn(self.norm(looked[..., : self.channels]))
        weight = head.weight.reshape(1, 1, -1) + change[..., :-1]
        bias = cast(Tensor, head.bias) + change[..., -1]
        grid, weight, bias = features.shape[2:], weight.to(features.dtype), bias[..., None].to(features.dtype)
        if features.is_contiguous(memory_format=torch.channels_last_3d):  # so is the gradient then: nothing is copied
            voxels = features.permute(0, 2, 3, 4, 1).flatten(1, 3)
            flat = torch.matmul(voxels, weight.mT).mT + bias
        else:
            flat = torch.matmul(weight, features.flatten(2)) + bias
        return flat.unflatten(-1, grid)


class PresenceHead(nn.Module):
    """Is the thing there at all? From what `look` saw."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inner = nn.Linear(channels + 2, channels)
        self.out = nn.Linear(channels, 1)
        self.channels = channels

    def forward(self, looked: Tensor) -> Tensor:
        """Looked [N, C + 2] -> logits [N]."""
        features = torch.cat([self.norm(looked[:, : self.channels]), looked[:, self.channels :]], dim=-1)
        answer: Tensor = self.out(nn.functional.leaky_relu(self.inner(features), 0.01))
        return answer[:, 0]

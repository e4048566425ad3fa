"""Feature maps of linear attention: x [B, H, N, D] -> phi(x) [B, H, N, F], so that phi(q) . phi(k) is the weight."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, silu

__all__ = ["FeatureMap", "HedgehogFeatures", "TaylorFeatures", "make_features", "taylor"]

FeatureMap = Literal["identity", "silu", "elu", "taylor", "hedgehog"]
NON_NEGATIVE = ("elu", "taylor", "hedgehog")


def make_features(name: FeatureMap, num_heads: int, dim: int, feature_dim: int) -> nn.Module:
    """The map by name; feature_dim is what "taylor" projects to, 0: no projection."""
    if name == "taylor":
        return TaylorFeatures(num_heads, dim, feature_dim)
    if name == "hedgehog":
        return HedgehogFeatures(num_heads, dim)
    return _Pointwise(name)


def taylor(x: Tensor) -> Tensor:
    """X [..., d] -> [..., 1 + d + d (d + 1) / 2], so that phi(q) . phi(k) = 1 + s + s^2 / 2 with s = q . k / sqrt(d).

    It is the second-order Taylor polynomial of exp (Based, arXiv 2402.18668), at least 1/2 everywhere.
    Of the d^2 products those that come twice are held once, times sqrt(2): the same weight from half the state.
    """
    x = x * x.shape[-1] ** -0.25
    rows, cols = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    once = (rows == cols).to(x.dtype)
    pairs = x[..., rows] * x[..., cols] * (1.0 - (1.0 - 0.5**0.5) * once)
    return torch.cat([torch.ones_like(x[..., :1]), x, pairs], dim=-1)


class TaylorFeatures(nn.Module):
    """taylor(W x), W [H, feature_dim, D] per head (Based: q and k of 16 numbers, so that the state stays small)."""

    def __init__(self, num_heads: int, dim: int, feature_dim: int):
        super().__init__()
        self.project = nn.Parameter(torch.randn(num_heads, feature_dim, dim) * dim**-0.5) if feature_dim else None

    def forward(self, x: Tensor) -> Tensor:
        """X [B, H, N, D] -> [B, H, N, F]."""
        return taylor(x if self.project is None else x @ self.project.to(x.dtype).transpose(-1, -2))


class HedgehogFeatures(nn.Module):
    """phi(x) = softmax([W x + b, -(W x + b)]) over the 2 D features, W [H, D, D] the identity and b zero at the start.

    Hedgehog, arXiv 2402.04347: [exp(W x + b), exp(-W x - b)]; the softmax divides both by their sum, as the
    released code does against overflow. In float32 at least, and not below FLOOR: of a query and a key that share no
    large feature the weight would else underflow, and the gradient of a row's shares divides by its sum of them.
    """

    FLOOR = torch.finfo(torch.float32).tiny ** 0.75  # some 1e-29: below usual features, and 1e9 of it are no overflow

    def __init__(self, num_heads: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim).repeat(num_heads, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """X [B, H, N, D] -> [B, H, N, 2 D] in float32 at least, positive, each row sums to one."""
        y = x @ self.weight.to(x.dtype).transpose(-1, -2) + self.bias.to(x.dtype)
        y = y.to(torch.promote_types(y.dtype, torch.float32))
        return torch.cat([y, -y], dim=-1).softmax(dim=-1).clamp(min=self.FLOOR)


class _Pointwise(nn.Module):
    """identity: x; silu: x sigmoid(x); elu: elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236, equation 7)."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """X [B, H, N, D] -> the same shape."""
        if self.name == "silu":
            return silu(x)
        return elu(x) + 1.0 if self.name == "elu" else x

"""Mixture of depths: a router sends a share of the voxels through a layer, the others stay in place."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from petground.kernels._shared.precision import autocast_off, widened
from petground.kernels.token_merge import gather_tokens, scatter_tokens
from petground.kernels.topk import topk_indices
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.choose import real_voxels

__all__ = ["MixtureOfDepths", "attention_rank", "cosine_share", "routed_count"]


def cosine_share(layer: int, layers: int, lowest: float) -> float:
    """max(lowest, cos(pi l / (L - 1)) / 2 + 1/2): all in the first layer, `lowest` in the last; 1 when L is 1."""
    if layers == 1:
        return 1.0
    return max(lowest, 0.5 * math.cos(math.pi * layer / (layers - 1)) + 0.5)


def routed_count(share: float, real: Tensor, *, up: bool) -> Tensor:
    """How many of the real voxels [B, N] a share is: [B], rounded down or up, one at least where there is any."""
    there = real.sum(1)
    exact = share * there.double()
    count = (exact - 1e-6).ceil() if up else (exact + 1e-6).floor()  # 0.1 * 30 is three, not four
    return torch.minimum(count.long().clamp(min=1), there)


def attention_rank(weights: Tensor) -> Tensor:
    """ARank: the mean rank of attention maps [..., N, M] over samples and heads (gamma-MoD, section 3.2).

    1 where every query looks alike, N where each looks somewhere else; layers of low rank are those to route.
    """
    return torch.linalg.matrix_rank(weights.double()).double().mean()


class MixtureOfDepths(nn.Module):
    """y_i = c_i x_i + g_i T(x)_i for the share R of voxels with the highest router scores, y_i = c_i x_i for the rest.

    T is the layer, run on the routed voxels alone. With s_i = router(x_i):
    - "tanh" (p-MoD, arXiv 2412.04449, section 3.2): w_i = 0.2 tanh(s_i) + 1; g_i = w_i for the routed, c_i = w_i for
      the others (symmetric reweighting); the router starts at zero, so that w is 1.
    - "probability" (gamma-MoD, arXiv 2410.13859, section 3.3): w_i = softmax(s_i)[1] of a two-way router, g_i = w_i,
      c_i = 1.
    - "one": w_i = 1.
    R is `capacity` ("constant", rounded up), or max(lowest, cos(pi l / (L - 1)) / 2 + 1/2) in layer l of L ("cosine",
    progressive ratio decay, rounded down); above `dense_above` the layer is dense: all voxels, no weights.

    The sentence's tokens are no voxels here and always take part. Scores and text are not read.

    Args:
        channels: of the tokens.
        key: the name in messages.
        weight: see above.
        schedule: see above.
        capacity: share of the voxels routed, with the constant schedule.
        layer, layers: place in the network, with the cosine schedule.
        lowest, dense_above: bounds of the cosine schedule.
        scale: of the tanh.
        backend: of the kernels that choose and gather tokens.
    """

    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        key: str,
        weight: Literal["tanh", "probability", "one"],
        schedule: Literal["cosine", "constant"],
        capacity: float = 0.5,
        layer: int = 1,
        layers: int = 3,
        lowest: float = 0.15,
        dense_above: float = 0.85,
        scale: float = 0.2,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        if not (0.0 < capacity <= 1.0 and 0.0 < lowest <= 1.0):
            raise ValueError(f"capacity={capacity} and lowest={lowest} must be in (0, 1]")
        if not 0 <= layer < layers:
            raise ValueError(f"layer={layer} is none of layers={layers}, which count from 0")
        self.key = key
        self.weight = weight
        self.schedule = schedule
        self.share = cosine_share(layer, layers, lowest) if schedule == "cosine" else capacity
        self.dense = schedule == "cosine" and self.share > dense_above
        self.scale = scale
        self.router = None if self.dense else nn.Linear(channels, 2 if weight == "probability" else 1)
        if weight == "tanh" and self.router is not None:
            nn.init.zeros_(self.router.weight)
            nn.init.zeros_(self.router.bias)
        self.backend = backend

    @tells_backend()
    def forward(
        self,
        tokens: Tensor,
        *,
        scores: Tensor | None = None,
        mask: Tensor | None = None,
        grid: Grid | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Reduced:
        """Tokens [B, N, C], mask [B, N] bool -> Reduced with the routed voxels, in their order; the others get zeros.

        `gain` is w of the routed, `carry` (tanh only) w of the others.
        """
        check_tokens(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        count = tokens.shape[1]
        real = real_voxels(tokens, mask)
        if self.router is None:
            places = torch.arange(count, device=tokens.device).expand(len(tokens), -1)
            return Reduced(tokens, real, places, lambda values: values.masked_fill(~real[..., None], 0.0))
        with autocast_off(tokens):  # of scores of 16 bits many are equal, and the place would choose
            logits = linear(widened(tokens), widened(self.router.weight), widened(self.router.bias))
        score, weight = self._route(logits)
        weight = None if weight is None else weight.to(tokens.dtype)
        wanted = routed_count(self.share, real, up=self.schedule == "constant")
        exact = self.share * count  # of an exam without padding, the most that any routes
        most = math.ceil(exact - 1e-6) if self.schedule == "constant" else math.floor(exact + 1e-6)
        places = topk_indices(score.detach(), wanted, real, size=max(1, most), backend=self.backend)
        routed = places >= 0
        gain = None if weight is None else gather_tokens(weight[..., None], places, backend=self.backend)[..., 0]
        carry = None
        if self.weight == "tanh" and weight is not None:
            ones = routed[..., None].to(weight.dtype)
            inside = scatter_tokens(ones, places, count, backend=self.backend)[..., 0] > 0
            carry = weight.masked_fill(inside | ~real, 1.0)
        return Reduced(
            gather_tokens(tokens, places, backend=self.backend),
            routed,
            places,
            lambda v: scatter_tokens(v, places, count, backend=self.backend),
            gain,
            carry,
        )

    def _route(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.weight == "probability":
            chance = logits.softmax(-1)[..., 1]
            return chance, chance
        score = logits[..., 0]
        return score, self.scale * torch.tanh(score) + 1.0 if self.weight == "tanh" else None

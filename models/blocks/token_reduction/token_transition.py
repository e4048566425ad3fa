"""How much a voxel is changed by attention: what a block turns and stretches is worth keeping."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from petground.kernels._shared.precision import unrounded
from petground.kernels.topk import topk_mask
from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse
from petground.models.blocks.token_reduction.choose import budget, check_keep, most, real_voxels
from petground.models.blocks.token_reduction.maps import (
    check_layers,
    in_heads,
    normalised,
    split_heads,
    text_attention,
)
from petground.models.blocks.token_reduction.rest import keep_and_drop

__all__ = ["TokenTransition", "transition_variation"]


def transition_variation(before: Tensor, after: Tensor, mask: Tensor | None = None) -> Tensor:
    """w_n = (|y_n| / |x_n|) exp(1 - cos(x_n, y_n)) / sum_m exp(1 - cos(x_m, y_m)), x and y [B, N, C] -> [B, N].

    TransPrune's Token Transition Variation of one module, from its input to its output. Padding: zero.
    """
    length = before.norm(dim=-1)
    ratio = after.norm(dim=-1) / torch.where(length > 0, length, 1.0)
    turned = (1 - cosine_similarity(before, after, dim=-1)).exp()
    return ratio * normalised(turned, mask)


class TokenTransition(nn.Module):
    """score = (1 - lambda) TTV / sum TTV + lambda IGA / sum IGA; the top ceil(keep * N) stay.

        TTV_n = sum over modules of (|y_n| / |x_n|) exp(1 - cos(x_n, y_n)) / sum_m exp(1 - cos(x_m, y_m))
        IGA_n = mean over words and heads of softmax_n(t^h . x_n^h / sqrt(D))

    TransPrune, arXiv 2507.20630, section 3; the variation as in its public code. The modules' inputs and outputs are
    not at hand here: y = softmax(x x^T / sqrt(D)) x, attention without parameters, stands for the module that follows.
    `scores` [B, N], or [B, L, N] of L modules, are the variations of the real ones (`transition_variation`) and take
    its place. Without a sentence, or with lambda 0, the text has no say. The dropped get zeros back. No parameters. The
    stand-in attention costs as much as the attention that the reduction spares: give scores where time matters.

    Args:
        channels: of the tokens.
        keep: share of the real voxels that stays, above 0, at most 1.
        text_weight: lambda, 0..1.
        heads: of the attention; must divide channels.
        backend: of the kernels that choose and gather tokens.
    """

    key = "token_transition"

    def __init__(
        self,
        channels: int,
        keep: float = 0.5,
        text_weight: float = 0.5,
        heads: int = 1,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(self.key, channels, heads)
        if not 0 <= text_weight <= 1:
            raise ValueError(f"{self.key}: text_weight={text_weight} not in 0..1")
        self.keep = check_keep(self.key, keep)
        self.text_weight = text_weight
        self.text_use: TextUse = "reads" if text_weight else "ignores"
        self.heads = heads
        self.attention = SoftmaxAttention(channels, heads)
        self.backend = backend

    @unrounded
    def score(
        self, tokens: Tensor, mask: Tensor | None, layers: Tensor | None, text: Tensor | None, text_mask: Tensor | None
    ) -> Tensor:
        """[B, N], sums to one over the real voxels."""
        if layers is None:
            x = in_heads(tokens, self.heads)
            after = self.attention(x, x, x, mask=mask)[0].transpose(1, 2).flatten(2)
            layers = transition_variation(tokens, after, mask)[:, None]
        own = normalised(layers.sum(dim=1), mask)
        if text is None or self.text_weight == 0:
            return own
        asked = normalised(text_attention(text, text_mask, tokens, mask, self.heads), mask)
        has_word = asked.sum(dim=1, keepdim=True) > 0
        return torch.where(has_word, (1 - self.text_weight) * own + self.text_weight * asked, own)

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
        """Tokens [B, N, C], scores [B, N] or [B, L, N], mask [B, N] bool, text [B, P, C] -> Reduced."""
        layers = check_layers(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        with torch.no_grad():
            rank = self.score(tokens, mask, layers, text, text_mask)
            wanted = budget(self.keep, real_voxels(tokens, mask))
            chosen = topk_mask(rank, wanted, mask, backend=self.backend)
        return keep_and_drop(tokens, chosen, most(self.keep, tokens.shape[1]), self.backend)

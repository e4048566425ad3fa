"""No reduction: what every reduction must equal at a keep rate of one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Grid, Reduced, TextUse, check_tokens

__all__ = ["KeepAll"]


class KeepAll(nn.Module):
    """Every token stays where it is."""

    text_use: TextUse = "ignores"

    def __init__(self, channels: int):
        super().__init__()

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
        """Tokens [B, N, C], scores [B, N] (higher stays), mask [B, N] bool, text [B, P, C] -> Reduced with K = N."""
        check_tokens("none", tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        batch, count = tokens.shape[:2]
        real = torch.ones(batch, count, dtype=torch.bool, device=tokens.device) if mask is None else mask
        places = torch.arange(count, device=tokens.device).expand(batch, -1)
        return Reduced(tokens, real, places, lambda values: values)

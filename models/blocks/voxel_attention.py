"""Self-attention among the voxels of a decoder stage: any attention block, on any reduction of the tokens."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from petground.models.blocks.contract import BlockError, Grid, Reduced, TextUse

__all__ = ["VoxelAttention"]


class VoxelAttention(nn.Module):
    """x + Linear(attention(q, k, v)) over the voxels, pre-normalised; the identity at the start.

    With a reduction the attention runs on its tokens alone, and what it adds goes back to the voxels by its un-merge.
    A routed reduction also weighs what is added (`gain`) and what goes past (`carry`).

    Args:
        channels: of the features.
        text_channels: of the sentence's tokens, which a reduction may ask; None: the stage has none.
        num_heads: must divide channels.
        attention: the operator on heads, from the registry.
        reduction: of the tokens; None keeps all.
        needs_grid: the operator works on the dense 3D grid, so that nothing can be reduced before it.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int | None,
        num_heads: int,
        attention: nn.Module,
        reduction: nn.Module | None,
        *,
        needs_grid: bool,
    ):
        super().__init__()
        if needs_grid and reduction is not None:
            raise BlockError("attention on the dense grid cannot follow a token_reduction: use one of the two")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(channels)
        self.inward = nn.Linear(channels, 3 * channels)
        self.outward = nn.Linear(channels, channels)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)
        self.attention = attention
        self.reduction = reduction
        reads = reduction is not None and cast(TextUse, reduction.text_use) != "ignores"
        self.text = nn.Linear(text_channels, channels) if reads and text_channels is not None else None

    def forward(
        self,
        x: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        spacing_zyx_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Tensor:
        """X [B, C, Z, Y, X] -> the same shape; the sentence's tokens [B, P, D], mask [B, P] bool for a reduction.

        spacing_zyx_mm: of x's voxels, for blocks that work in mm.
        """
        z, y, width = x.shape[2:]
        grid = Grid((z, y, width), spacing_zyx_mm)
        voxels = self.norm(grid.flat(x))
        reduced: Reduced | None = None
        if self.reduction is not None:
            words: dict[str, Tensor | None] = {}
            if self.text is not None and tokens is not None:  # autocast norms wider than it maps
                words = {"text": self.text(tokens).to(voxels.dtype), "text_mask": mask}
            reduced = self.reduction(voxels, grid=grid, **words)
        states = voxels if reduced is None else reduced.tokens
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.inward(states).chunk(3, -1)
        )
        if reduced is None:
            out, _ = self.attention(q, k, v, grid=grid)
        else:
            out, _ = self.attention(q, k, v, mask=reduced.mask)
        added = self.outward(out.transpose(1, 2).flatten(2))
        if reduced is not None:
            added = reduced.unmerge(added if reduced.gain is None else added * reduced.gain[..., None])
            if reduced.carry is not None:
                x = x * grid.dense(reduced.carry[..., None])
        return x + grid.dense(added)

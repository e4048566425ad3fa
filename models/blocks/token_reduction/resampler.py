"""TextMonkey's token resampler: the voxels that are least like any other, which gather from all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from petground.kernels._shared.precision import autocast_off, widened
from petground.kernels.cross_attention import cross_attention
from petground.kernels.token_merge import gather_tokens, scatter_tokens
from petground.kernels.topk import topk_indices
from petground.models.blocks.backend import TokenBackend, served_by, tells_backend
from petground.models.blocks.chunks import by_rows
from petground.models.blocks.contract import Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.token_reduction.bipartite import CHUNK
from petground.models.blocks.token_reduction.choose import budget, check_keep, most, real_voxels
from petground.models.blocks.token_reduction.latents import Read
from petground.models.blocks.token_reduction.window_link import WindowLink

__all__ = ["SimilarityResampler", "distinctness"]

KEY = "similarity_resampler"


@torch.no_grad()
def distinctness(tokens: Tensor, real: Tensor, against: Literal["all", "later"] = "all") -> Tensor:
    """1 - max over the other real voxels j of cos(x_i, x_j): [B, N, C] -> [B, N]; 1 where there is no other.

    "later" looks at j > i alone, as the released code does: of equal voxels the last then stays. N^2 C time, 1024 N
    memory. In float32 at least: of cosines of 8 bits most are equal, and the place would choose.
    """
    unit = normalize(widened(tokens), dim=-1)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    closed = torch.where(real, 0.0, float("-inf")).to(unit.dtype)[:, None]

    def some(first: int, last: int) -> Tensor:
        cosine = torch.baddbmm(closed, unit[:, first:last], unit.transpose(1, 2))
        if against == "later":
            cosine = cosine.masked_fill_(place <= place[first:last, None], float("-inf"))
        torch.diagonal(cosine, first, 1, 2).fill_(float("-inf"))
        return cosine.amax(2)

    with autocast_off(tokens):
        highest = by_rows(some, tokens.shape[1], CHUNK, dim=1)
    return torch.where(highest.isfinite(), 1.0 - highest, 1.0)


class SimilarityResampler(nn.Module):
    """TextMonkey's token resampler (arXiv 2403.04473, section 3.3).

    importance_i = 1 - max over j != i of cos(x_i, x_j); the share `keep` of highest importance stays and reads all:
    z = x_kept + W_o softmax(q(x_kept) k(x)^T / sqrt(d)) v(x), each row over all N voxels; W_o starts at zero.
    Un-merge: a kept voxel has its own value, a dropped one the mean of the kept values under softmax over them of the
    same scores (the paper's tokens never go back). `links`: before it, windows of window_zyx exchange by shifted window
    attention whose output starts at zero (section 3.2). N^2 time, memory linear in N.

    Args:
        channels: of the tokens.
        keep: share of the voxels.
        heads: must divide channels.
        against: "all", as the paper's algorithm; "later", as the released code (see `distinctness`).
        links: the shifted window attention; needs the grid.
        window_zyx: its windows; the shift is half of it.
        backend: of the kernels, for tokens and for attention.
    """

    text_use: TextUse = "ignores"

    def __init__(
        self,
        channels: int,
        keep: float = 0.25,
        heads: int = 1,
        against: Literal["all", "later"] = "all",
        links: bool = False,
        window_zyx: Sequence[int] = (4, 4, 4),
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        self.keep = check_keep(KEY, keep)
        self.against = against
        self.read = Read(channels, heads, zero=True)
        self.link = WindowLink(KEY, channels, heads, window_zyx) if links else None
        self.backend = backend
        served_by(backend, self)

    @tells_backend(KEY)
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
        """Tokens [B, N, C], mask [B, N] bool -> Reduced with the most distinct voxels; scores and text are not read."""
        check_tokens(KEY, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        real = real_voxels(tokens, mask)
        clear = tokens.masked_fill(~real[..., None], 0.0)
        if self.link is not None:
            clear = clear + self.link(clear, real, grid).to(clear.dtype)
        wanted = budget(self.keep, real)
        rank = distinctness(clear, real, self.against)
        size = most(self.keep, tokens.shape[1])
        places = topk_indices(rank, wanted, real, size=size, backend=self.backend)
        here = places >= 0
        chosen = gather_tokens(clear, places, backend=self.backend)
        resampled = (chosen + self.read(chosen, clear, real).to(chosen.dtype)).masked_fill(~here[..., None], 0.0)

        def unmerge(values: Tensor) -> Tensor:
            query = self.read.heads(self.read.key_value(self.read.norm_y(clear)).chunk(2, -1)[0])
            key = self.read.heads(self.read.query(self.read.norm_x(chosen)))
            spread = values.to(key.dtype)[:, None].expand(-1, key.shape[1], -1, -1)
            around = cross_attention(query, key, spread, mask=here, backend=self.backend).mean(1).to(values.dtype)
            back = scatter_tokens(values, places, real.shape[1], around, backend=self.backend)
            return back.masked_fill(~real[..., None], 0.0)

        return Reduced(resampled, here, places, unmerge)

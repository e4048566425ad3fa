"""The sentence's attention ranks; how many stay depends on the depth at which the block sits."""

from __future__ import annotations

from torch import Tensor, nn

from petground.models.blocks.backend import TokenBackend, served_by, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse
from petground.models.blocks.token_reduction.choose import check_keep
from petground.models.blocks.token_reduction.ranked import RankedReduction
from petground.models.blocks.token_reduction.schedules import fit_p_sigmoid

__all__ = ["ScheduledReduction"]


class ScheduledReduction(nn.Module):
    """keep = the top ceil(r(l) N) by text attention, r(l) = min + (1 - min) sigmoid(steepness (midpoint - l/(L-1))).

    Accelerating MLLMs by Searching Optimal Vision Token Reduction, arXiv 2412.00556: the ranking hardly changes with
    depth, so a schedule that never grows is enough. The midpoint is solved for the mean share `keep` (the paper: by
    Bayesian optimisation under a budget, `search.bayesian_search`); the paper's G-Search, which finds the least counts
    by asking a metric, is `schedules.g_search`. Both are run from Python only; `rates` takes what they find. `scores`
    take the place of the text's attention. The dropped get zeros back. No parameters.

    Args:
        channels: of the tokens.
        keep: mean share over the layers, above 0, at most 1.
        layers: places where the network reduces.
        layer: which of them this is, 0 the shallowest, which keeps nearly all; by default the middle one of three.
        steepness: of the schedule, above 0.
        minimum: share that stays at any depth.
        rates: the layers' shares themselves, never growing, in place of the schedule; null: the schedule.
        heads: of the attention; must divide channels.
        backend: of the kernels that choose and gather tokens.
    """

    key = "gsearch_psigmoid"

    def __init__(
        self,
        channels: int,
        keep: float = 0.5,
        layers: int = 3,
        layer: int = 1,
        steepness: float = 8.0,
        minimum: float = 0.05,
        rates: list[float] | None = None,
        heads: int = 1,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        self.rates = (
            fit_p_sigmoid(layers, check_keep(self.key, keep), steepness, minimum) if rates is None else list(rates)
        )
        if rates is not None and (not rates or not all(0 < share <= 1 for share in rates)):
            raise ValueError(f"{self.key}: rates={rates} are no shares of the voxels; give numbers above 0, at most 1")
        if not 0 <= layer < len(self.rates):
            raise ValueError(f"{self.key}: layer={layer} is none of {len(self.rates)} layers, which count from 0")
        if any(deep > shallow for shallow, deep in zip(self.rates, self.rates[1:], strict=False)):
            raise ValueError(f"{self.key}: rates={self.rates} grow with depth; what is gone does not come back")
        self.ranked = RankedReduction(
            channels, self.key, "class", "drop", self.rates[layer], "text", keep=self.rates[layer], heads=heads
        )
        self.text_use: TextUse = self.ranked.text_use
        served_by(backend, self)

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
        reduced: Reduced = self.ranked(tokens, scores=scores, mask=mask, grid=grid, text=text, text_mask=text_mask)
        return reduced

"""Token reductions: one explicit list. A block's class takes (channels, **options)."""

from __future__ import annotations

from petground.models.blocks.contract import Block
from petground.models.blocks.token_reduction.condensed import CONDENSED
from petground.models.blocks.token_reduction.keep_all import KeepAll
from petground.models.blocks.token_reduction.ranking import RANKING

__all__ = ["BLOCKS"]

BLOCKS = (
    Block(
        "token_reduction",
        "none",
        KeepAll,
        "",
        "Every token stays: the control.",
        cost="0",
        property="Tokens, mask and places come back as they went in.",
    ),
    *RANKING,
    *CONDENSED,
)

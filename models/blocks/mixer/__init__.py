"""Mixers: one explicit list. A block's class takes (channels, **options)."""

from __future__ import annotations

from petground.models.blocks.contract import Block

__all__ = ["BLOCKS"]

BLOCKS: tuple[Block, ...] = ()

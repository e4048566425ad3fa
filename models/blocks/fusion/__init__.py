"""Fusions of voxels and text tokens: one explicit list. A block's class takes (channels, text_channels, **options)."""

from __future__ import annotations

from petground.models.blocks.contextual_gate import ContextualGate, NoFusion
from petground.models.blocks.contract import Block

__all__ = ["BLOCKS"]

BLOCKS = (
    Block(
        "fusion",
        "contextual_gate",
        ContextualGate,
        "ConTEXTual Net 3D, arXiv 2502.00528",
        "Voxels query the sentence's tokens; tanh of the answer gates the features.",
        cost="N P d",
    ),
    Block("fusion", "none", NoFusion, "", "No text: the plain network, as a control.", cost="0"),
)

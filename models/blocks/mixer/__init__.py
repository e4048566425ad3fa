"""Mixers: one explicit list. A block's class takes (channels, **options)."""

from __future__ import annotations

from petground.models.blocks.contract import Block
from petground.models.blocks.mixer.conv_glu import ConvGLU
from petground.models.blocks.mixer.gnconv3d import GnConv3d

__all__ = ["BLOCKS"]

BLOCKS: tuple[Block, ...] = (
    Block(
        "mixer",
        "gnconv3d",
        GnConv3d,
        "HorNet, arXiv 2207.14284",
        "Recursive gated convolution: products of order n of a voxel with its 7x7x7 surroundings.",
        cost="N C (2 K^3 + 11/3 C + 2) at the most",
        form="Section 3.1 and the released code; kernel and grid in 3D, without the global-filter variant.",
        property="Without biases scaling the input by c scales the output by c^(order + 1); away from borders a "
        "shift shifts; order 1 is a gated convolution; multiplications are as in the closed form.",
    ),
    Block(
        "mixer",
        "conv_glu",
        ConvGLU,
        "TransNeXt, arXiv 2311.17132",
        "Gated feed-forward layer whose gate sees the neighbouring voxels.",
        cost="N C ratio (2 C + 18)",
        form="Section 3.4 and the authors' code in 3D; starts as the identity.",
        property="With a kernel that passes values through it is a gated linear unit; only the gate sees "
        "neighbours, one voxel away; it starts as the identity.",
    ),
)

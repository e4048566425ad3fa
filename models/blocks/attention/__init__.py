"""Attention blocks: one explicit list. A block's class takes (channels, num_heads, **options)."""

from __future__ import annotations

from petground.models.blocks.attention.linear_family import LINEAR_FAMILY
from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.attention.sparse_list import SPARSE
from petground.models.blocks.attention.windowed import WINDOWED
from petground.models.blocks.contract import Block

__all__ = ["BLOCKS"]

BLOCKS = (
    Block(
        "attention",
        "softmax",
        SoftmaxAttention,
        "Attention Is All You Need, arXiv 1706.03762",
        "Scaled dot products through PyTorch's fused kernels: what the others are measured against.",
        patterns=frozenset({"self", "cross", "causal"}),
        cost="N M d",
        serves=frozenset({"bias", "weights"}),
        property="Padded keys have no weight and the order of keys no meaning; the map on request makes the output; "
        "causal rows never look ahead; gradients are those of finite differences.",
    ),
    *LINEAR_FAMILY,
    *WINDOWED,
    *SPARSE,
)

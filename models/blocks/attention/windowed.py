"""The entries of attention within windows, over regions and over neighbourhoods: one list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petground.models.blocks.attention.aggregated_attention import AggregatedAttention
from petground.models.blocks.attention.bilevel_routing import BilevelRouting
from petground.models.blocks.attention.dual_window_channel import DualWindowChannel
from petground.models.blocks.attention.window_attention import WindowAttention
from petground.models.blocks.contract import Block

__all__ = ["WINDOWED"]


def _windows(key: str, paper: str, summary: str, cost: str, form: str, *, property: str, **preset: Any) -> Block:
    """A preset of WindowAttention."""
    return Block(
        "attention",
        key,
        WindowAttention,
        paper,
        summary,
        preset={"key": key, **preset},
        patterns=frozenset({"self"}),
        cost=cost,
        serves=frozenset({"grid", "types", "weights"}),
        form=form,
        property=property,
    )


_NEAR: Mapping[str, Any] = {"distance": "short", "interval": (1, 1, 1)}
_NO_HALO: Mapping[str, Any] = {"halo": (0, 0, 0)}

WINDOWED = (
    _windows(
        "swin_window_3d",
        "Swin Transformer, arXiv 2103.14030",
        "Voxels attend within windows, then within windows shifted by half; a learned bias per offset in voxels.",
        "N w^3 d",
        "Section 3.2 in 3D; the two layers of a pair stand in one block unless shift says otherwise. "
        "Axes no longer than the window are not cut or shifted, as in Video Swin.",
        score="dot",
        position="table",
        post_norm=False,
        hidden=0,
        unit_mm=4.0,
        **_NEAR,
        **_NO_HALO,
        property="Cutting and joining are inverse; one window over the grid is full attention with the bias; "
        "across the ring's seam nothing is seen; a pair of cuts reaches the next window, one cut does "
        "not.",
    ),
    _windows(
        "swin_v2_cosine_3d",
        "Swin Transformer V2, arXiv 2111.09883",
        "Shifted windows with cosine scores, a learned temperature, and a bias that is a function of millimetres.",
        "N w^3 d",
        "Sections 3.2 and 3.3; offsets are sign(d) log(1 + |d|) of mm in units of unit_mm, so that the bias carries "
        "over between windows and spacings; the authors' code divides by the window. Its post-norm stands before the "
        "output projection, which is the caller's.",
        score="cosine",
        position="log_mm",
        post_norm=True,
        **_NEAR,
        **_NO_HALO,
        property="Lengths of q and k do not matter and logits are bounded; equal offsets in mm have equal bias at"
        " any window and spacing, axis by axis; a zero gain of the norm adds nothing.",
    ),
    _windows(
        "halo",
        "HaloNet, arXiv 2103.12731",
        "Each block of voxels attends to itself and a rim around it; relative embeddings asked by the query.",
        "N (b + 2h)^3 d",
        "Equation 2 and section 2.1 in 3D, keys outside the grid masked (the paper pads with zeros); `window` is its "
        "block size. Its strided queries belong to down-sampling stages and are not built.",
        score="dot",
        position="query",
        shift="plain",
        post_norm=False,
        hidden=0,
        unit_mm=4.0,
        **_NEAR,
        property="No rim is attention within blocks, one over the grid lets everything be seen, and one block over it "
        "is full attention; nothing beyond the rim is seen; a shift by whole blocks shifts the answer inside.",
    ),
    _windows(
        "lsda",
        "CrossFormer, arXiv 2108.00154",
        "Windows of neighbours, then windows of voxels an interval apart; the bias is an MLP of the offset in mm.",
        "N w^3 d",
        "Sections 3.2 and 3.3 in 3D, groups of fixed size and interval as in the authors' code for dense tasks; "
        "offsets in mm where theirs count steps of the group. The cross-scale embedding layer is a stem of its own.",
        score="dot",
        position="mlp_mm",
        shift="plain",
        post_norm=False,
        **_NO_HALO,
        property="Near and far groups both partition the voxels and go back to their places; a single group is "
        "full attention; the bias depends on the offset in mm alone.",
    ),
    Block(
        "attention",
        "dual_window_channel",
        DualWindowChannel,
        "DaViT, arXiv 2204.03645",
        "Attention among the voxels of a window, then among the channels of the whole grid.",
        patterns=frozenset({"self"}),
        cost="N (w^3 + C_g) d",
        serves=frozenset({"grid"}),
        form="Section 3, equations 2 and 3; both attentions of the pair on one q, k, v, "
        "the depthwise positional encoding between them.",
        property="The channel map follows any order of the voxels, sums to one, stays in its group, does not grow"
        " with the grid and leaves padding out.",
    ),
    Block(
        "attention",
        "bilevel_routing",
        BilevelRouting,
        "BiFormer, arXiv 2303.08810",
        "Each region of the grid attends to the voxels of the few regions most like it; a local convolution on top.",
        patterns=frozenset({"self"}),
        cost="(S^2 + N k N / S) d",
        serves=frozenset({"grid", "weights"}),
        form="Sections 3.2 and 3.3 in 3D, means over real voxels as in the authors' later code; "
        "scores by sqrt of a head's width, so that all regions give softmax attention.",
        property="With all regions it is softmax attention; voxels outside the routed regions have no gradient; "
        "routing does not see the order within a region, nor padding.",
    ),
    Block(
        "attention",
        "aggregated_attention",
        AggregatedAttention,
        "TransNeXt, arXiv 2311.17132",
        "Every voxel sees its neighbours sharply and the whole grid coarsely, in one softmax.",
        patterns=frozenset({"self"}),
        cost="N (w^3 + p^3) d",
        serves=frozenset({"grid", "weights"}),
        form="Section 3 and the authors' code in 3D with a fixed number of cells. The operator is given q, k, v: it "
        "pools k and v, where theirs pools GELU(linear(x)) and normalises before k and v are made. The bias of cells "
        "is taken from the centre of the query's cell, not its voxel.",
        property="Without its learned tokens the shares of neighbours and cells sum to one; places outside the "
        "grid get none; lengths of q and k do not matter; a pool of one cell is one key for all.",
    ),
)

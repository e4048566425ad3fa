"""`stages` tells where attention and mixer go; elsewhere it is an option of the block's, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BlockError

SMALL: dict[str, Any] = {
    "features": [4, 8, 8], "encoder": "plain", "blocks_per_stage": 1, "decoder_convs": 1, "fusion_stages": [1],
}  # fmt: skip
ATTENTION = {"name": "softmax", "num_heads": 2, "stages": [1]}


@pytest.mark.parametrize(
    ("wrong", "way_out"),
    [
        ({"fusion": {"name": "contextual_gate", "stages": [0]}}, "fusion_stages"),
        ({"fusion": {"name": "none", "stages": [1]}}, "fusion_stages"),
        ({"attention": ATTENTION, "token_reduction": {"name": "evit_fuse", "stages": [1]}}, "attention's stages"),
        ({"attention": ATTENTION, "token_reduction": {"name": "vflowopt", "stages": [1]}}, "stages is .*expected int"),
    ],
)
def test_stages_where_there_are_none_are_refused_with_the_way_out(wrong: dict[str, Any], way_out: str) -> None:
    with pytest.raises(BlockError, match=way_out):
        NetConfig(**SMALL, **wrong)


def test_a_blocks_own_option_of_that_name_reaches_it() -> None:
    reduction = {"name": "vflowopt", "stages": 3}
    net = GroundingNet(NetConfig(**SMALL, attention=ATTENTION, token_reduction=reduction), text_channels=6)
    stages = list(net.decoder.stages)
    where = [stage for stage in stages if stage.voxels is not None]  # type: ignore[union-attr]
    assert where == [stages[0]], "attention's stages tell where both go; the first decoder stage is stage 1"
    assert len(where[0].voxels.reduction.ratios) == 3  # type: ignore[union-attr]


def test_attention_and_mixer_go_where_their_stages_say() -> None:
    mixer = {"name": "conv_glu", "stages": [0]}
    net = GroundingNet(NetConfig(**SMALL, attention=ATTENTION, mixer=mixer), text_channels=6)
    coarse, fine = net.decoder.stages
    assert coarse.voxels is not None and fine.voxels is None  # type: ignore[union-attr]  # noqa: PT018
    assert coarse.mixer is None and fine.mixer is not None  # type: ignore[union-attr]  # noqa: PT018


def test_an_option_may_differ_by_stage() -> None:
    """p-MoD's share falls from the coarse stage, which runs first, to the fine; JSON writes stages as words."""
    for names in (int, str):
        reduction = {"name": "p_mod", "layers": 4, "layer": {names(1): 1, names(0): 2}}
        config = NetConfig(**SMALL, attention={**ATTENTION, "stages": [0, 1]}, token_reduction=reduction)
        coarse, fine = GroundingNet(config, text_channels=6).decoder.stages
        assert coarse.voxels.reduction.share == pytest.approx(0.75)  # type: ignore[union-attr]
        assert fine.voxels.reduction.share == pytest.approx(0.25)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "way_out"),
    [
        ({"token_reduction": {"name": "p_mod", "layer": {0: 1}}}, r"layer is told for stages \[0\]; .* each of \[1\]"),
        ({"token_reduction": {"name": "p_mod", "layer": {1: 1, 0: 1}}}, r"give one for each of \[1\]"),
        ({"token_reduction": {"name": "p_mod", "layer": {1: "deep"}}}, "layer is 'deep', expected int"),
        ({"attention": {**ATTENTION, "num_heads": {1: 2}}}, "num_heads is .*expected int"),
        ({"attention": {**ATTENTION, "num_heads": "two"}}, "num_heads is 'two', expected int"),
        ({"attention": {**ATTENTION, "stages": 1}}, "stages is 1, expected a list"),
        ({"attention": {**ATTENTION, "stages": [1.0]}}, "stages is .*expected a list"),
        ({"attention": {"name": {"softmax": 1}}}, "needs a name"),
        ({"attention": {"name": "softmx", "stages": []}}, "softmax"),
        ({"token_reduction": {"name": "gamma_mod", "layer": 1}}, "no option 'layer'"),
    ],
)
def test_options_by_stage_that_do_not_fit_are_refused(wrong: dict[str, Any], way_out: str) -> None:
    with pytest.raises(BlockError, match=way_out):
        NetConfig(**SMALL, **{"attention": ATTENTION, **wrong})

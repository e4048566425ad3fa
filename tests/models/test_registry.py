"""Names in a config: found, or answered with the nearest."""

from __future__ import annotations

import json

import pytest

from petground.models import BlockError, build, list_blocks
from petground.models.blocks.contextual_gate import ContextualGate
from petground.models.net_config import NetConfig
from petground.models.registry import Block, check_options, index

SIZES = {"fusion": {"channels": 8, "text_channels": 4}, "attention": {"channels": 8}}
WITH_HEADS = [(row["slot"], row["key"]) for row in list_blocks() if "num_heads" in row["options"]]


def test_build_by_name() -> None:
    gate = build("fusion", "contextual_gate", channels=8, text_channels=4, num_heads=2)
    assert isinstance(gate, ContextualGate)
    assert gate.num_heads == 2


@pytest.mark.parametrize(
    ("slot", "name", "options", "hint"),
    [
        ("fusoin", "contextual_gate", {}, "fusion"),
        ("fusion", "contextual_gat", {}, "did you mean contextual_gate"),
        ("fusion", "contextual_gate", {"numheads": 2}, "num_heads"),
        ("fusion", "contextual_gate", {"num_heads": "two"}, "expected int"),
        ("fusion", "contextual_gate", {"norm": 1}, "expected bool"),
        ("fusion", "contextual_gate", {"form": "gated"}, "residual_gate"),
        ("fusion", "contextual_gate", {"channels": 9, "text_channels": 4, "num_heads": 2}, "does not divide"),
        ("fusion", "contextual_gate", {"channels": 8}, "needs text_channels"),
        ("token_reduction", "p_mod", {"capacity": 0.5}, "no option 'capacity'"),  # a sibling's
        ("token_reduction", "gamma_mod", {"dense_above": 0.5}, "no option 'dense_above'"),
        ("token_reduction", "dyn_perceiver", {"hidden": 8}, "no option 'hidden'"),
        ("token_reduction", "dyvte_exit", {"latents": 8}, "no option 'latents'"),
        ("token_reduction", "mue_exit", {"threshold": "0.9"}, "expected a finite float or null"),
        ("attention", "core_context", {"near_mm": float("nan")}, "expected a finite float or null"),
        ("attention", "core_context", {"near": [1, 1.5, 1]}, "expected a list of int or null"),
        ("attention", "moh", {"channels": 8, "num_heads": 2, "active_heads": 3}, "active_heads=3"),
        ("token_reduction", "gsearch_psigmoid", {"channels": 8, "rates": [0.5, 0.0, 0.0]}, "rates="),
        ("token_reduction", "aim_merge_prune", {"channels": 8, "slope": -0.5}, "slope=-0.5"),
        *((slot, key, {**SIZES[slot], "num_heads": 3}, "num_heads=3") for slot, key in WITH_HEADS),
        *((slot, key, {**SIZES[slot], "num_heads": 0}, "num_heads=0") for slot, key in WITH_HEADS),
    ],
)
def test_mistakes_are_named(slot: str, name: str, options: dict[str, object], hint: str) -> None:
    with pytest.raises(BlockError, match=hint):
        build(slot, name, **options)


def test_a_duplicate_raises() -> None:
    block = Block("fusion", "twice", ContextualGate, "", "")
    with pytest.raises(BlockError, match="twice"):
        index((block, block))


def test_listing_is_plain_data() -> None:
    rows = list_blocks()
    assert {"key", "slot", "paper", "summary"} <= set(rows[0])
    assert json.loads(json.dumps(rows)) == rows
    assert [row["key"] for row in list_blocks("fusion")][:2] == ["contextual_gate", "none"]
    with pytest.raises(BlockError, match="fusion"):
        list_blocks("fusio")


def test_every_block_tells_all_of_itself() -> None:
    """What the catalogue shows of a block: its equation, a meaning for each option, a property, a source."""
    for row in list_blocks():
        named = f"{row['slot']} {row['key']}"
        assert row["equation"].strip(), named
        assert set(row["meanings"]) == set(row["options"]), named
        assert 20 <= len(row["property"]) <= 260, named
        assert row["cost"], named
        assert row["key"] == "none" or "arXiv" in row["paper"], named
        assert set(row["choices"]) <= set(row["options"]), named


def test_operators_are_those_that_the_code_calls() -> None:
    rows = {(row["slot"], row["key"]): row["operators"] for row in list_blocks()}
    assert set(rows["attention", "agent"]) == {"agent_attention"}
    assert set(rows["attention", "softmax"]) == {"torch_sdpa"}
    assert {"triton", "reference"} <= set(rows["fusion", "contextual_gate"]["cross_attention"])
    assert "topk" in rows["token_reduction", "gsearch_psigmoid"]  # by way of the block that it holds
    assert rows["mixer", "gnconv3d"] == rows["fusion", "none"] == {}


def test_net_config_checks_its_fusion() -> None:
    with pytest.raises(BlockError, match="num_heads"):
        NetConfig(fusion={"name": "contextual_gate", "num_head": 4})
    with pytest.raises(BlockError, match="fusion_stages"):
        NetConfig(features=[8, 16], fusion_stages=[1])
    check_options("fusion", "contextual_gate", {"num_heads": 4})

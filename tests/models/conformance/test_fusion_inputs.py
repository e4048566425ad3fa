"""Streams that do not fit together: every fusion names itself, the argument and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from petground.models.blocks.contract import Block, BlockInputError
from tests.models.conformance.fusion_cases import ALL, BOX, asked, made


@pytest.mark.parametrize("block", ALL)
def test_wrong_inputs_name_block_argument_and_remedy(block: Block) -> None:
    x, tokens, mask = asked()
    wrong: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("x", [x[:, :4], tokens, mask], {}),
        ("x", [x[0], tokens, mask], {}),
        ("x", [x[:, :, :0], tokens, mask], {}),
        ("x", [x.long(), tokens, mask], {}),
        ("tokens", [x, tokens[..., :3], mask], {}),
        ("tokens", [x, tokens[:, :0], mask[:, :0]], {}),
        ("tokens", [x, tokens[:1], mask[:1]], {}),
        ("tokens", [x, tokens.float(), mask], {}),
        ("tokens", [x, tokens.to("meta"), mask], {}),
        ("mask", [x, tokens, mask.double()], {}),
        ("mask", [x, tokens, mask[:, :4]], {}),
        ("mask", [x, tokens, mask.to("meta")], {}),
        ("box", [x, tokens, mask, BOX[0]], {}),
        ("box", [x, tokens, mask, BOX.repeat(2, 1, 1)], {}),
        ("box", [x, tokens, mask, BOX.to("meta")], {}),
    ]
    if "skip" in block.serves:
        wrong += [
            ("skip", [x, tokens, mask], {"skip": x[:, :4]}),
            ("skip", [x, tokens, mask], {"skip": x[..., 1:]}),
            ("skip", [x, tokens, mask], {"skip": x.to("meta")}),
        ]
    module = made(block)
    for argument, streams, keywords in wrong:
        with pytest.raises(BlockInputError, match=f"^{block.key}: {argument} .*; "):
            module(*streams, **keywords)

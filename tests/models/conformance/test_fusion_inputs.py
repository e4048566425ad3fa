"""Streams and backends that do not fit: every fusion names itself, the argument and the way out."""

from __future__ import annotations

from inspect import signature
from typing import Any, get_args, get_type_hints

import pytest
import torch

from petground.kernels._shared.errors import BackendUnavailableError
from petground.models.blocks.contract import Block, BlockError, BlockInputError
from petground.models.blocks.operators import backends_of, operators_of
from tests.models.conformance.fusion_cases import ALL, BOX, asked, built, made, skip_of


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
            ("skip", [x, tokens, mask], {"skip": x.float()}),
            ("skip", [x, tokens, mask], {"skip": x.long()}),
        ]
    module = made(block)
    for argument, streams, keywords in wrong:
        with pytest.raises(BlockInputError, match=f"^{block.key}: {argument} .*; "):
            module(*streams, **keywords)


ON_KERNELS = [p for p in ALL if set(operators_of(p.values[0].cls)) - {"torch_sdpa"}]


@pytest.mark.parametrize("block", ON_KERNELS)
def test_a_backend_by_name(block: Block) -> None:
    """What runs on kernels takes their backends: each says the same, or why it cannot be had, naming the block."""
    assert "backend" in signature(block.cls).parameters
    hint = get_type_hints(block.cls.__init__)["backend"]
    known = {name for kernel in operators_of(block.cls) if kernel != "torch_sdpa" for name in backends_of(kernel)}
    assert set(get_args(hint)) - {"auto"} <= known
    x, tokens, mask = asked(dtype=torch.float32)
    given = skip_of(block, x, 2)
    served, told = [], []
    with torch.no_grad():
        truth = made(block, torch.float32)(x, tokens, mask, BOX.float(), **given)
        for backend in get_args(hint):
            module = made(block, torch.float32, backend=backend)
            try:
                answers = module(x, tokens, mask, BOX.float(), **given)
            except BackendUnavailableError as error:
                told.append(str(error))
                continue
            served.append(backend)
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(answers, truth, strict=True))
    assert {"auto", "reference"} <= set(served)
    assert all(one.startswith(f"{block.key}: backend ") and "; serving here: auto, " in one for one in told)
    assert told or torch.cuda.is_available()  # one by name never falls back
    with pytest.raises(BlockError, match=f"^fusion '{block.key}': backend is 'cuda', expected auto, "):
        built(block, backend="cuda")

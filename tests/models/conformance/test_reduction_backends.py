"""A backend by name in every token reduction: the same choice, or an error that names the block."""

from __future__ import annotations

from inspect import signature
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from petground.kernels._shared.errors import BackendUnavailableError
from petground.models.blocks.contract import Block, Grid
from petground.models.blocks.operators import backends_of, operators_of
from petground.models.registry import BLOCKS, BlockError, build
from tests.models.conformance.examples import TOKEN_REDUCTION as EXAMPLES

ALL = BLOCKS["token_reduction"].values()
ON_KERNELS = [pytest.param(block, id=block.key) for block in ALL if {*operators_of(block.cls)} - {"torch_sdpa"}]
OTHERS = {"lookup": {"back": "softmax"}, "p_mod": {"layer": 2}}  # with what their kernels run


def _made(block: Block, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    given = {**EXAMPLES.get(block.key, {}), **OTHERS.get(block.key, {}), **options}
    return build("token_reduction", block.key, channels=8, **given).eval()


@pytest.mark.parametrize("block", ON_KERNELS)
def test_a_backend_by_name(block: Block) -> None:
    assert "backend" in signature(block.cls).parameters
    hint = get_type_hints(block.cls.__init__)["backend"]
    kernels = [name for name in operators_of(block.cls) if name != "torch_sdpa"]
    assert set(get_args(hint)) - {"auto"} == set.intersection(*({*backends_of(name)} for name in kernels))
    torch.manual_seed(1)
    tokens, grid = torch.randn(2, 60, 8), Grid((3, 4, 5))
    mask = torch.rand(2, 60) > 0.2
    words = {"text": torch.randn(2, 4, 8), "text_mask": torch.ones(2, 4, dtype=torch.bool)}
    answers, told = {}, []
    with torch.no_grad():
        for backend in get_args(hint):
            try:
                reduced = _made(block, backend=backend)(tokens, mask=mask, grid=grid, **words)
                answers[backend] = reduced.tokens, reduced.kept, reduced.unmerge(reduced.tokens)
            except BackendUnavailableError as error:
                told.append(str(error))
    assert {"auto", "reference"} <= set(answers)
    for found in answers.values():
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, answers["auto"], strict=True))
    assert all(one.startswith(f"{block.key}: backend ") and "; serving here: auto, " in one for one in told)
    assert told or torch.cuda.is_available()  # one by name never falls back
    with pytest.raises(BlockError, match=f"^token_reduction '{block.key}': backend is 'cuda', expected auto, "):
        _made(block, backend="cuda")


def test_a_backend_of_what_runs_on_no_kernel_is_refused() -> None:
    with pytest.raises(BlockError, match=r"lookup.*backend=reference is of the kernel behind back: softmax"):
        build("token_reduction", "lookup", channels=8, backend="reference")

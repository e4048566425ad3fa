"""A backend by name in every attention block: the same answer, or an error that names the block."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

import pytest
import torch

from petground.kernels._shared.errors import BackendUnavailableError
from petground.models.blocks.contract import Block, BlockError, BlockInputError
from petground.models.blocks.operators import backends_of, operators_of
from petground.models.registry import BLOCKS, build
from tests.models.conformance.attention_cases import ALL, DIM, HEADS, asked, made

TAKES_BACKEND = [
    p for p in ALL if "backend" in {*inspect.signature(p.values[0].cls).parameters} - {*p.values[0].preset}
]
NO_SINKS = {"duo": {"sinks": 0}, "moa_spans": {"sinks": 0}}  # which their kernel does not have


@pytest.mark.parametrize("block", TAKES_BACKEND)
def test_a_backend_by_name(block: Block) -> None:
    """A block on a kernel takes the kernel's backends: each says the same, or why it cannot be had."""
    qkv, given = asked(block, (2, 3, 2))
    inputs = [one.float() for one in qkv]
    hint = get_type_hints(block.cls.__init__)["backend"]
    known = {name for kernel in operators_of(block.cls) if kernel != "torch_sdpa" for name in backends_of(kernel)}
    assert set(get_args(hint)) - {"auto"} <= known
    served, told, options = [], [], NO_SINKS.get(block.key, {})
    with torch.no_grad():
        truth, _ = made(block, torch.float32, **options)(*inputs, **given)
        for backend in get_args(hint):
            module = made(block, torch.float32, backend=backend, **options)
            try:
                out, _ = module(*inputs, **given)
            except BackendUnavailableError as error:
                told.append(str(error))
                continue
            served.append(backend)
            assert torch.allclose(out, truth, atol=1e-4)
    assert {"auto", "reference"} <= set(served)
    assert all(one.startswith(f"{block.key}: backend ") and "; serving here: auto, " in one for one in told)
    with pytest.raises(BlockError, match=f"^attention '{block.key}': backend is 'cuda', expected auto, "):
        made(block, backend="cuda")


@pytest.mark.parametrize("block", TAKES_BACKEND)
def test_the_list_tells_what_the_kernels_need(block: Block) -> None:
    """A block as it is by default takes a backend by name, or its list says with which option it does."""
    qkv, given = asked(block, (2, 3, 2))

    def run(**options: Any) -> None:
        module = build("attention", block.key, channels=HEADS * DIM, num_heads=HEADS, backend="reference", **options)
        module.double().eval()(*qkv, **given)

    needed = dict(need.split(": ") for need in block.kernels_need.values())
    if needed:
        with pytest.raises(BlockInputError, match=": ".join(next(iter(needed.items())))):
            run()
    run(**{option: int(value) for option, value in needed.items()})


@pytest.mark.parametrize("key", list(NO_SINKS))
def test_a_backend_that_the_sinks_leave_out_is_refused(key: str) -> None:
    """No kernel has sinks or an order: never a wrong number, and no silent other way."""
    block = BLOCKS["attention"][key]
    qkv, given = asked(block)
    with pytest.raises(BlockInputError, match=f"{key}: backend is reference.*sinks: 0"):
        made(block, backend="reference")(*qkv, **given)
    with pytest.raises(BlockInputError, match=f"{key}: backend is reference.*causal"):
        made(block, backend="reference", sinks=0)(*qkv, causal=True)

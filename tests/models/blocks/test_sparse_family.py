"""The sparse family in half precision, at large scores, and worked out some tiles at a time."""

from __future__ import annotations

import pytest
import torch

from petground.models import build
from petground.models.blocks.attention import grouping, sparsifiner
from petground.models.blocks.attention.sparse_list import SPARSE
from petground.models.blocks.contract import Block, Grid
from petground.models.registry import find
from tests.models.conformance.examples import ATTENTION as EXAMPLES

GRID = Grid((3, 5, 7))


def made(block: Block) -> torch.nn.Module:
    torch.manual_seed(0)
    return build("attention", block.key, channels=8, num_heads=2, **EXAMPLES.get(block.key, {})).eval()


@pytest.mark.parametrize("block", [pytest.param(block, id=block.key) for block in SPARSE])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_bf16_is_finite_and_keeps_its_type(block: Block, scale: float) -> None:
    inputs = [(scale * torch.randn(2, 2, GRID.tokens, 4)).bfloat16().requires_grad_() for _ in range(3)]
    mask = torch.ones(2, GRID.tokens, dtype=torch.bool)
    mask[0, 40:] = False
    out, _ = made(block).bfloat16()(*inputs, grid=GRID, mask=mask)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(one.grad).all() for one in inputs)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.key) for block in SPARSE])
def test_autocast_serves_full_precision_weights(block: Block) -> None:
    inputs = [torch.randn(1, 2, GRID.tokens, 4).bfloat16() for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = made(block)(*inputs, grid=GRID)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("key", ["duo", "moa_spans", "combiner", "core_context", "landmark", "routing"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_few_tiles_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch, key: str, causal: bool) -> None:
    block = find("attention", key)
    if causal and "causal" not in block.patterns:
        pytest.skip(f"{key} is not causal")
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, GRID.tokens, 4, dtype=torch.float64) for _ in range(3)]
    mask = torch.rand(2, GRID.tokens) > 0.2
    module, answers = made(block).double(), []
    for at_once in (1 << 25, 20_000, 1):
        monkeypatch.setattr(grouping, "AT_ONCE", at_once)
        leaves = [one.clone().requires_grad_() for one in inputs]
        out, _ = module(*leaves, grid=GRID, mask=mask, causal=causal)
        answers.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
        with torch.no_grad():
            assert torch.allclose(module(*inputs, grid=GRID, mask=mask, causal=causal)[0], out, atol=1e-12)
    for other in answers[1:]:
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(answers[0], other, strict=True))


def test_each_row_of_the_family_is_registered_once_and_says_its_form() -> None:
    keys = [block.key for block in SPARSE]
    assert len(set(keys)) == len(keys) == 8
    for block in SPARSE:
        assert block.form
        assert block.cost
        assert "arXiv" in block.paper


@pytest.mark.slow
@pytest.mark.parametrize("block", [pytest.param(block, id=block.key) for block in SPARSE])
def test_training_in_chunks_compiles_as_one_graph(monkeypatch: pytest.MonkeyPatch, block: Block) -> None:
    monkeypatch.setattr(grouping, "AT_ONCE", 3000)
    monkeypatch.setattr(sparsifiner, "AT_ONCE", 3000)
    grid = Grid((2, 4, 4))
    module = made(block)
    inputs = [torch.randn(1, 2, grid.tokens, 4, requires_grad=True) for _ in range(3)]
    torch._dynamo.reset()
    compiled = torch.compile(lambda *x: module(*x, grid=grid)[0], fullgraph=True, backend="aot_eager")
    wanted = torch.autograd.grad(module(*inputs, grid=grid)[0].square().sum(), inputs)
    told = torch.autograd.grad(compiled(*inputs).square().sum(), inputs)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(told, wanted, strict=True))

"""What every mixer must do. Each block's own property stands in its own test file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petground.models.blocks.contract import Block, BlockInputError
from petground.models.registry import BLOCKS, build
from tests.models.conformance.examples import MIXER as EXAMPLES

CHANNELS = 8
ALL = [pytest.param(block, id=key) for key, block in BLOCKS.get("mixer", {}).items()]


def made(block: Block, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = build("mixer", block.key, channels=CHANNELS, **EXAMPLES.get(block.key, {}))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.double().eval()


@pytest.mark.parametrize("grid", [(7, 9, 11), (1, 1, 1), (1, 6, 4)])
@pytest.mark.parametrize("block", ALL)
def test_shape_type_determinism_and_batch_independence(block: Block, grid: tuple[int, int, int]) -> None:
    module = made(block)
    x = torch.randn(2, CHANNELS, *grid, dtype=torch.float64)
    with torch.no_grad():
        out = module(x)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert torch.isfinite(out).all()
        assert torch.equal(out, module(x))
        assert torch.allclose(module(x[1:])[0], out[1], atol=1e-9)


@pytest.mark.parametrize("block", ALL)
def test_gradients(block: Block) -> None:
    module = made(block)
    x = torch.randn(1, CHANNELS, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), atol=1e-5, rtol=1e-3, fast_mode=True)
    module(x).square().sum().backward()
    without = [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert [name for name in without if not name.endswith("bias")] == []


@pytest.mark.parametrize("block", ALL)
def test_state_survives_a_round_trip(block: Block) -> None:
    module, other = made(block), made(block, seed=1)
    other.load_state_dict(module.state_dict())
    x = torch.randn(1, CHANNELS, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(module(x), other(x))


@pytest.mark.parametrize("block", ALL)
def test_wrong_inputs_are_named(block: Block) -> None:
    for shape in ((2, CHANNELS + 1, 3, 4, 5), (CHANNELS, 3, 4, 5), (1, CHANNELS, 0, 2, 2)):
        with pytest.raises(BlockInputError, match=f"^{block.key}: x"):
            made(block)(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(BlockInputError, match=f"^{block.key}: x is on meta"):
        made(block)(torch.zeros(1, CHANNELS, 2, 2, 2, dtype=torch.float64, device="meta"))


@pytest.mark.slow
@pytest.mark.parametrize("block", ALL)
def test_compiles_as_one_graph(block: Block) -> None:
    module, x = made(block), torch.randn(2, CHANNELS, 3, 4, 5, dtype=torch.float64)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
        assert torch.allclose(compiled, module(x), atol=1e-9)

"""What every mixer must do. Each block's own property stands in its own test file."""

from __future__ import annotations

import pytest
import torch

from petground.models.blocks.contract import Block, BlockInputError
from tests.models.conformance.gradients import check_gradients
from tests.models.conformance.idle import without_gradient
from tests.models.conformance.mixer_cases import ALL, CHANNELS, made


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
    check_gradients(module, module, x)
    module(x).square().sum().backward()
    assert without_gradient(module) == set()
    without = [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert [name for name in without if not name.endswith("bias")] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", ALL)
def test_other_types_stay_theirs(block: Block, dtype: torch.dtype) -> None:
    """Alone, and under autocast as training runs it."""
    x = torch.randn(2, CHANNELS, 3, 4, 5).to(dtype).double()  # the truth is of the same numbers
    truth = made(block)(x)
    leaf = x.to(dtype).requires_grad_()
    out = made(block).to(dtype)(leaf)
    out.float().square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        mixed = made(block).float()(x.to(dtype))
    assert out.dtype == mixed.dtype == dtype
    assert torch.isfinite(leaf.grad).all()
    for answer in (out, mixed):
        assert (answer.double() - truth).norm() < (1e-5 if dtype == torch.float32 else 0.03) * truth.norm()


@pytest.mark.parametrize("block", ALL)
def test_not_contiguous_is_served_alike(block: Block) -> None:
    module, x = made(block), torch.randn(2, CHANNELS, 3, 4, 5, dtype=torch.float64)
    flat, turned = x.clone().requires_grad_(), x.movedim(1, -1).contiguous().requires_grad_()
    assert not turned.movedim(-1, 1).is_contiguous()
    out, other = module(flat), module(turned.movedim(-1, 1))
    assert torch.allclose(out, other, atol=1e-12)
    out.square().sum().backward()
    other.square().sum().backward()
    assert torch.allclose(turned.grad.movedim(-1, 1), flat.grad, atol=1e-9)


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

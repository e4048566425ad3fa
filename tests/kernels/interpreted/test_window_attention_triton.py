"""Windows and neighbourhoods by Triton against the reference: outputs and gradients at odd sizes, every pattern."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

from petground.kernels.window_attention import window_attention
from petground.kernels.window_attention.pattern import Pattern
from tests.kernels.comparing import LIMITS, assert_equals_reference, poisoned
from tests.kernels.window_cases import FEW, made, run


@pytest.fixture(autouse=True)
def _no_overflow_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter looks at each sum of whole numbers for overflow, which takes most of its time; GPUs do not."""
    monkeypatch.setattr(interpreter_builder, "options", InterpreterOptions(sanitize_overflow=False))


def check(name: str, tensors: dict[str, Tensor], mask: Tensor | None, ratio: float) -> None:
    with poisoned():
        assert_equals_reference(run, name, "triton", tensors, mask, ratio)


@pytest.mark.parametrize("name", FEW)
def test_equals_reference(name: str) -> None:
    tensors, mask = made(name, torch.float32, heads=2 if name == "windows" else 1)
    check(name, tensors, mask, LIMITS[torch.float32])


@pytest.mark.parametrize(
    ("name", "dtype"), [("shifted", torch.bfloat16), ("slide", torch.float16), ("halo", torch.bfloat16)]
)
def test_in_16_bits(name: str, dtype: torch.dtype) -> None:
    tensors, mask = made(name, dtype, permuted=True)
    check(name, tensors, mask, LIMITS[dtype])


def test_without_mask_and_bias() -> None:
    tensors, _ = made("windows", torch.float32)
    del tensors["bias"]
    check("windows", tensors, None, LIMITS[torch.float32])


def test_more_places_than_a_block_and_several_entries() -> None:
    """A window of 45 queries and keys: more than the 32 of a block in float32; an entry without any key."""
    check("large", *made("large", torch.float32, batch=2), LIMITS[torch.float32])


def test_what_is_not_finite_in_padding_stays_there() -> None:
    tensors, mask = made("windows", torch.float32)
    dirty = dict(tensors)
    for key in ("k", "v"):
        dirty[key] = tensors[key].masked_fill(~mask[:, None, :, None], float("nan"))
    clean = run("windows", **tensors, mask=mask, backend="triton")
    assert torch.equal(run("windows", **dirty, mask=mask, backend="triton"), clean)


def test_opcheck_and_the_same_bits_twice() -> None:
    grid, window = (1, 1, 3), (1, 1, 2)
    q, k, v = (torch.randn(1, 1, 3, 8).requires_grad_() for _ in range(3))
    bias = torch.randn(1, 3, requires_grad=True)
    scale = torch.full((1,), 0.3, requires_grad=True)
    numbers = Pattern.windows(grid, window, (0, 0, 0), (0, 0, 0), (1, 1, 1)).numbers()
    op = torch.ops.petground.window_attention.default
    torch.library.opcheck(op, (q, k, v, None, bias, scale, numbers, "triton"))

    def grads() -> tuple[Tensor, ...]:
        out = window_attention(q, k, v, grid=grid, window=window, bias=bias, backend="triton")
        return torch.autograd.grad(out.square().sum(), (q, k, v, bias))

    assert all(torch.equal(a, b) for a, b in zip(grads(), grads(), strict=True))

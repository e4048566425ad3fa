"""Routed attention by Triton against the reference: outputs and gradients, lists shared and of each head."""

from __future__ import annotations

import pytest
import torch
from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

from tests.kernels.comparing import LIMITS, assert_equals_reference, poisoned
from tests.kernels.routed_cases import CASES, made, run


@pytest.fixture(autouse=True)
def _no_overflow_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter looks at each sum of whole numbers for overflow, which takes most of its time; GPUs do not."""
    monkeypatch.setattr(interpreter_builder, "options", InterpreterOptions(sanitize_overflow=False))


@pytest.mark.parametrize(
    ("name", "dtype", "masked"),
    [(name, torch.float32, name != "line") for name in CASES]
    + [("volume", torch.float16, True), ("lists of heads", torch.bfloat16, True)],
)
def test_equals_reference(name: str, dtype: torch.dtype, masked: bool) -> None:
    tensors, mask = made(name, dtype, permuted=dtype != torch.float32)
    with poisoned():
        assert_equals_reference(run, name, "triton", tensors, mask if masked else None, LIMITS[dtype])


def test_what_is_not_finite_in_padding_stays_there() -> None:
    tensors, mask = made("line", torch.float32)
    dirty = dict(tensors)
    for key in ("k", "v"):
        dirty[key] = tensors[key].masked_fill(~mask[:, None, :, None], float("nan"))
    clean = run("line", **tensors, mask=mask, backend="triton")
    assert torch.equal(run("line", **dirty, mask=mask, backend="triton"), clean)


def test_opcheck() -> None:
    q, k, v = (torch.randn(1, 1, 3, 8).requires_grad_() for _ in range(3))
    scale = torch.full((1,), 0.3, requires_grad=True)
    table = torch.tensor([[[[0, 1], [1, -1]]]])
    op = torch.ops.petground.routed_attention.default
    torch.library.opcheck(op, (q, k, v, table, None, scale, [1, 1, 3, 1, 1, 2], "triton"))

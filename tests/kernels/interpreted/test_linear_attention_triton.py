"""Linear attention by Triton against the quadratic form: orders, decay, normalisation, odd sizes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petground.kernels._shared.errors import BackendUnavailableError
from petground.kernels.linear_attention import linear_attention
from petground.kernels.linear_attention.triton import forward_triton
from tests.kernels.comparing import LIMITS, assert_close, assert_gradients_close, operands, poisoned

DECAY = [-0.02, 0.0, -3.0]
# batch, heads, queries, keys, D, E; causal, decay, normalize
ORDERED = [
    ((2, 2, 100, 100, 7, 5), True, False, True),  # segments of several chunks
    ((2, 2, 100, 100, 7, 5), True, True, False),
    ((2, 2, 100, 100, 7, 5), False, True, True),
    ((1, 1, 70, 70, 37, 33), True, True, True),  # more channels than a block
    ((1, 1, 70, 70, 37, 33), False, True, False),
    ((1, 2, 1, 1, 8, 8), False, True, True),
]
CROSS = [((2, 1, 1, 131, 8, 8), True), ((1, 2, 40, 33, 35, 33), False), ((1, 1, 40, 33, 7, 16), True)]


def positive(
    size: tuple[int, int, int, int, int, int], dtype: torch.dtype, *, permuted: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Features that are not negative, so that sums of weights do not cancel; padding holds NaN."""
    q, k, v, mask = operands(size, dtype, permuted=permuted)
    return {"q": q.abs(), "k": k.abs(), "v": v}, mask


def compare(tensors: dict[str, Tensor], mask: Tensor | None, dtype: torch.dtype, **options: object) -> None:
    with poisoned():
        assert_gradients_close(
            lambda **t: linear_attention(**t, mask=mask, **options, backend="triton"),
            lambda **t: linear_attention(**t, mask=mask, **options, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


@pytest.mark.parametrize(("size", "causal", "decayed", "normalize"), ORDERED)
def test_ordered(size: tuple[int, ...], causal: bool, decayed: bool, normalize: bool) -> None:
    tensors, mask = positive(size, torch.float32, permuted=size[1] > 1)
    decay = torch.tensor(DECAY[: size[1]]) if decayed else None
    compare(tensors, mask, torch.float32, log_decay=decay, causal=causal, normalize=normalize)


@pytest.mark.parametrize(("size", "normalize"), CROSS)
def test_without_order(size: tuple[int, ...], normalize: bool) -> None:
    tensors, mask = positive(size, torch.float32, permuted=True)
    compare(tensors, mask, torch.float32, normalize=normalize)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    tensors, mask = positive((2, 2, 35, 35, 7, 16), dtype, permuted=False)
    compare(tensors, mask, dtype, log_decay=torch.tensor(DECAY[1:]), normalize=dtype == torch.float16)
    compare(tensors, None, dtype, normalize=dtype == torch.bfloat16)


def test_float16_sums_above_its_range() -> None:
    """Sums of 40 weights of 4096 are beyond 65504; the shares are not."""
    q, v = torch.full((1, 1, 40, 16), 16.0, dtype=torch.float16), torch.randn(1, 1, 40, 8).half()
    compare({"q": q, "k": q, "v": v}, None, torch.float16, normalize=True, causal=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_state_alone(dtype: torch.dtype) -> None:
    """What segments hand on is a product of sums: beyond 65504 here, and not to be rounded to 8 bits either."""
    q, k, v, _ = operands((1, 1, 700, 700, 16, 16), torch.float32)
    tensors, wide = {"q": 0.01 * q.abs(), "k": 20 * k.abs(), "v": 20 * v.abs()}, torch.float64
    with torch.autocast("cpu", dtype):
        out = linear_attention(**tensors, causal=True, backend="triton")
    truth = linear_attention(**{name: one.to(wide) for name, one in tensors.items()}, causal=True, backend="reference")
    assert_close("out", truth, out, LIMITS[torch.float32])


def test_what_is_not_finite_in_padding_stays_there() -> None:
    tensors, mask = positive((2, 1, 40, 40, 8, 8), torch.float32, permuted=False)
    clean = linear_attention(**tensors, mask=mask, causal=True, backend="triton")
    for name in ("k", "v"):
        tensors[name].transpose(1, 2)[~mask] = float("nan")
    assert torch.equal(linear_attention(**tensors, mask=mask, causal=True, backend="triton"), clean)
    k = tensors["k"].requires_grad_()
    out = linear_attention(**tensors, mask=mask, log_decay=torch.tensor(DECAY[:1]), backend="triton")
    (grad,) = torch.autograd.grad(out.sum(), k)
    assert torch.isfinite(grad).all()
    assert grad.transpose(1, 2)[~mask].abs().max() == 0


def test_two_calls_give_the_same_bits() -> None:
    tensors, mask = positive((1, 2, 70, 70, 16, 16), torch.float16, permuted=False)
    found = [forward_triton(*tensors.values(), mask, torch.tensor(DECAY[:2]), False, True) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_opcheck() -> None:
    op = torch.ops.petground.linear_attention.default
    tensors, mask = positive((1, 2, 20, 20, 8, 8), torch.float32, permuted=True)
    q, k, v = (t.requires_grad_() for t in tensors.values())
    torch.library.opcheck(op, (q, k, v, mask, torch.tensor(DECAY[:2]), True, True))
    torch.library.opcheck(op, (q, k, v, None, None, False, False), test_utils=("test_schema", "test_faketensor"))


def test_a_decay_that_learns_is_refused() -> None:
    tensors, _ = positive((1, 2, 4, 4, 8, 8), torch.float32, permuted=False)
    decay = torch.tensor(DECAY[:2], requires_grad=True)
    with pytest.raises(BackendUnavailableError, match="no gradient"):
        linear_attention(**tensors, log_decay=decay, causal=True, backend="triton")


def test_equals_fla_lightning_attn() -> None:
    """It is simple gated linear attention with a constant gate of each head, log lambda."""
    naive = pytest.importorskip("fla.ops.simple_gla.naive", reason="fla-core is missing: extra peers")
    tensors, _ = positive((1, 2, 70, 70, 8, 8), torch.float32, permuted=False)
    decay = torch.tensor(DECAY[:2])
    theirs = [one.transpose(1, 2) for one in tensors.values()]
    truth, _ = naive.naive_recurrent_simple_gla(*theirs, decay.expand(1, 70, 2), scale=1.0)
    out = linear_attention(**tensors, log_decay=decay, causal=True, backend="triton")
    assert_close("out", truth, out.transpose(1, 2), 1e-5)

"""The fused form against the reference: outputs and gradients, odd sizes, masks, both number formats."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from petground.kernels.cross_attention import (
    BackendUnavailableError,
    KernelInputError,
    available_backends,
    cross_attention,
)
from petground.kernels.cross_attention.reference import cross_attention_reference
from petground.kernels.text_to_voxel import text_to_voxel

SIZES = [(1, 1, 63, 1, 8), (2, 3, 100, 7, 5), (1, 4, 257, 33, 12)]  # batch, heads, queries, keys, channels


def _inputs(size: tuple[int, ...], dtype: torch.dtype, *, masked: bool) -> tuple[torch.Tensor, ...]:
    b, h, n, p, d = size
    generator = torch.Generator().manual_seed(sum(size))
    q, k, v = (torch.randn(b, h, m, d, generator=generator, dtype=torch.float64) for m in (n, p, p))
    mask = torch.ones(b, p, dtype=torch.bool)
    if masked:
        mask[0, (p + 1) // 2 :] = False
        mask[-1, 1:] = False
    return (*(t.to(dtype).requires_grad_() for t in (q, k, v)), mask)


def _ratio(name: str, truth: torch.Tensor, found: torch.Tensor, limit: float) -> None:
    """Root-mean-square error as a share of the truth's root mean square."""
    error = (found.double() - truth.double()).square().mean().sqrt() / truth.double().square().mean().sqrt()
    assert error <= limit, f"{name}: {error:.2e} above {limit:.0e}"


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("size", SIZES)
def test_sdpa_equals_reference(size: tuple[int, ...], dtype: torch.dtype, limit: float, masked: bool) -> None:
    q, k, v, mask = _inputs(size, dtype, masked=masked)
    out = cross_attention(q, k, v, mask=mask, backend="sdpa")
    # positive and exact in every format: sums of its rounding would drown the error looked for
    weight = torch.linspace(0.5, 1.5, out.numel()).reshape(out.shape).to(torch.bfloat16).double()
    grads = torch.autograd.grad((out.double() * weight).sum(), (q, k, v))
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    truth = cross_attention_reference(*wide, mask)
    truths = torch.autograd.grad((truth * weight).sum(), wide)
    _ratio("out", truth, out, limit)
    for name, a, b in zip(("dq", "dk", "dv"), truths, grads, strict=True):
        if a.abs().max() > 1e-9:  # one key: softmax is constant, dq and dk are zero
            _ratio(name, a, b, 2 * limit)
        else:
            assert b.abs().max() < 1e-2


@pytest.mark.parametrize("backend", available_backends())
def test_all_masked_rows_are_zero_with_finite_gradients(backend: str) -> None:
    q, k, v, mask = _inputs((2, 2, 9, 5, 4), torch.float32, masked=False)
    mask[1] = False
    out = cross_attention(q, k, v, mask=mask, backend=backend)
    assert out[1].abs().max() == 0
    assert out[0].abs().max() > 0
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(torch.isfinite(g).all() for g in grads)
    assert all(g[1].abs().max() == 0 for g in grads)


@pytest.mark.parametrize("backend", available_backends())
def test_padding_never_reaches_the_output(backend: str) -> None:
    q, k, v, mask = _inputs((2, 2, 9, 6, 4), torch.float32, masked=True)
    out = cross_attention(q, k, v, mask=mask, backend=backend)
    k2, v2 = k.detach().clone(), v.detach().clone()
    k2.transpose(1, 2)[~mask] = 1e3
    v2.transpose(1, 2)[~mask] = -1e3
    assert torch.equal(out, cross_attention(q, k2, v2, mask=mask, backend=backend))


@pytest.mark.parametrize("operator", [cross_attention, text_to_voxel])
def test_a_temperature_is_not_rounded_itself(operator: Callable[..., torch.Tensor]) -> None:
    """1 / (sqrt(D) temperature) = 0.5 (1 + 3/256) lies between two numbers of bfloat16: scores would be 0.4 % off."""
    q, k, v = (torch.randn(1, 1, n, 16, generator=torch.Generator().manual_seed(n)).bfloat16() for n in (64, 65, 66))
    v = v[:, :, :65]
    temperature = torch.full((1,), 0.25 / (0.5 * (1 + 3 / 256)), requires_grad=True)
    wide = temperature.detach().double().requires_grad_()
    found = operator(q, k, v, temperature=temperature, backend="sdpa")
    truth = operator(q.double(), k.double(), v.double(), temperature=wide, backend="reference")
    _ratio("out", truth, found, 4e-3)
    above = truth.detach()
    (slope,) = torch.autograd.grad(found, temperature, above.bfloat16())
    (true_slope,) = torch.autograd.grad(truth, wide, above)
    assert slope.item() == pytest.approx(true_slope.item(), rel=3e-3)


def test_no_mask_and_full_mask_agree_and_uniform_values_come_back() -> None:
    q, k, v, mask = _inputs((2, 3, 31, 6, 5), torch.float64, masked=False)
    assert torch.allclose(cross_attention(q, k, v), cross_attention(q, k, v, mask=mask))
    assert torch.allclose(cross_attention(q, k, torch.ones_like(v)), torch.ones(2, 3, 31, 5, dtype=torch.float64))


def test_values_may_have_their_own_width() -> None:
    q, k, _, mask = _inputs((1, 2, 5, 3, 4), torch.float32, masked=False)
    v = torch.randn(1, 2, 3, 7)
    assert cross_attention(q, k, v, mask=mask).shape == (1, 2, 5, 7)


def test_wrong_inputs_are_named() -> None:
    q, k, v, mask = _inputs((2, 2, 9, 6, 4), torch.float32, masked=False)
    for arguments, word in [
        ((q[0], k, v, mask), "q is"),
        ((q, k[..., :2], v, mask), "D=4"),
        ((q, k[:, :1], v, mask), "H=2"),
        ((q, k, v[:, :, :3], mask), "P=6"),
        ((q, k.double(), v, mask), "float64"),
        ((q, k, v, mask.float()), "bool"),
        ((q, k, v, mask[:, :3]), "mask is"),
    ]:
        with pytest.raises(KernelInputError, match=word):
            cross_attention(*arguments[:3], mask=arguments[3])


def test_a_backend_asked_for_by_name_never_falls_back() -> None:
    q, k, v, _ = _inputs((1, 1, 3, 2, 4), torch.float32, masked=False)
    with pytest.raises(BackendUnavailableError, match="triton"):
        cross_attention(q, k, v, backend="triton")

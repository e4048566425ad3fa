"""PyTorch's fused attention behind one door: with any width, stride, mask and bias the written form, no N x M held."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petground.kernels.sdpa import masked_sdpa
from tests.kernels.comparing import assert_close
from tests.models.conformance.memory import largest_tensor


def draw(*shape: int, permuted: bool = False) -> Tensor:
    torch.manual_seed(sum(shape))
    one = torch.randn(*shape[:2], *(shape[:1:-1] if permuted else shape[2:]), dtype=torch.float64)
    return (one.transpose(2, 3) if permuted else one).requires_grad_()


def written(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, bias: Tensor | None, causal: bool) -> Tensor:
    scores = q @ k.transpose(-1, -2) * 0.4
    scores = scores if bias is None else scores + bias
    seen = torch.ones(scores.shape, dtype=torch.bool) if keep is None else keep.expand(scores.shape)
    seen = seen.tril() if causal else seen
    return scores.masked_fill(~seen, -1e30).softmax(-1).masked_fill(~seen, 0.0) @ v


@pytest.mark.parametrize(("width", "wide"), [(4, 4), (3, 8), (8, 3), (2, 40)])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["no", "keys", "pairs"])
@pytest.mark.parametrize("biased", [False, True])
def test_is_the_written_form(width: int, wide: int, permuted: bool, causal: bool, masked: str, biased: bool) -> None:
    q, k = (draw(2, 3, n, width, permuted=permuted) for n in (11, 11))
    v, bias = draw(2, 3, 11, wide, permuted=permuted), draw(1, 3, 11, 11) if biased else None
    keep = None if masked == "no" else torch.rand(2, 1, 1 if masked == "keys" else 11, 11) > 0.4
    if keep is not None:
        keep[1] = False  # rows without keys
    out, truth = masked_sdpa(q, k, v, keep, bias=bias, scale=0.4, causal=causal), written(q, k, v, keep, bias, causal)
    assert torch.allclose(out, truth, atol=1e-12)
    leaves = [q, k, v] if bias is None else [q, k, v, bias]
    push = torch.randn_like(out)
    for one, other in zip(
        torch.autograd.grad(out, leaves, push), torch.autograd.grad(truth, leaves, push), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize(("width", "wide"), [(8, 8), (4, 16), (16, 4)])
@pytest.mark.parametrize("permuted", [False, True])
def test_pairs_are_never_held(width: int, wide: int, permuted: bool) -> None:
    q, k, v = (draw(1, 2, 2048, n, permuted=permuted) for n in (width, width, wide))
    keep = torch.rand(1, 1, 1, 2048) > 0.3
    with largest_tensor() as made:
        masked_sdpa(q, k, v, keep).sum().backward()
    assert made.numbers <= 2 * 2048 * 16, made.shape


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("learns", [False, True])
def test_a_bias_of_32_bits_stays_so_beside_queries_of_16(masked: bool, learns: bool, autocast: bool) -> None:
    """About 8, as Swin V2's is: bfloat16 would leave steps of 1/32."""
    q, k, v = (draw(2, 3, 11, 8).detach().bfloat16() for _ in range(3))
    bias = (8 + draw(1, 3, 11, 11).detach().float()).requires_grad_(learns)
    keep = torch.rand(2, 1, 1, 11) > 0.4 if masked else None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = masked_sdpa(q, k, v, keep, bias=bias, scale=0.4)
    assert out.dtype == torch.bfloat16
    truth = written(q.double(), k.double(), v.double(), keep, bias.double(), False)
    assert_close("out", truth, out, 5e-3)

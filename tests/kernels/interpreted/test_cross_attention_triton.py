"""Cross-attention by Triton against the reference: outputs and gradients at odd sizes, every activation and gate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petground.kernels.cross_attention import cross_attention
from petground.kernels.cross_attention.reference import cross_attention_reference
from petground.kernels.cross_attention.triton import backward_triton, forward_triton
from tests.kernels.comparing import LIMITS, assert_gradients_close, operands, poisoned

# batch, heads, queries, keys, D, E: one token; more keys than a block; more than stay resident; odd everywhere
SIZES = [(2, 2, 20, 1, 8, 8), (1, 2, 67, 70, 20, 33), (2, 1, 33, 140, 16, 24), (1, 1, 3, 17, 5, 7)]
KINDS = [("softmax", "none"), ("softmax", "tanh"), ("sigmoid", "none"), ("softplus", "residual_tanh")]


CASES = [(size, *kind, torch.float32) for size in SIZES for kind in KINDS]
CASES += [(SIZES[1], *kind, dtype) for kind in (KINDS[0], KINDS[3]) for dtype in (torch.float16, torch.bfloat16)]
CASES += [(SIZES[0], *KINDS[1], torch.bfloat16), (SIZES[2], *KINDS[0], torch.float16)]


@pytest.mark.parametrize(("size", "activation", "gate", "dtype"), CASES)
def test_equals_reference(size: tuple[int, ...], activation: str, gate: str, dtype: torch.dtype) -> None:
    q, k, v, mask = operands(size, dtype, permuted=size[1] > 1)
    tensors = {"q": q, "k": k, "v": v, "temperature": torch.linspace(0.6, 1.4, size[1])}
    if gate != "none":
        tensors["x"] = operands((size[0], size[1], size[2], 1, size[5], 1), dtype, seed=3)[0]
    shift = 0.0 if activation == "softmax" else -1.0
    options = {"mask": mask, "activation": activation, "gate": gate, "shift": shift}
    with poisoned():
        assert_gradients_close(
            lambda **t: cross_attention(**t, **options, backend="triton"),
            lambda **t: cross_attention(**t, **options, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


@pytest.mark.parametrize(
    ("activation", "gate"), [("softmax", "residual_tanh"), ("sigmoid", "tanh"), ("softplus", "none")]
)
def test_without_a_mask(activation: str, gate: str) -> None:
    q, k, v, _ = operands((1, 2, 33, 9, 12, 12), torch.float32)
    tensors = {"q": q, "k": k, "v": v} | ({} if gate == "none" else {"x": q + 1.0})
    assert_gradients_close(
        lambda **t: cross_attention(**t, activation=activation, gate=gate, backend="triton"),
        lambda **t: cross_attention(**t, activation=activation, gate=gate, backend="reference"),
        tensors,
        LIMITS[torch.float32],
    )


def test_features_with_channels_first_are_gated_in_place_of_a_copy() -> None:
    q, k, v, mask = operands((2, 1, 60, 9, 12, 12), torch.float32)
    features = torch.randn(2, 12, 3, 4, 5)
    x = features.flatten(2).transpose(1, 2).unsqueeze(1)
    out = cross_attention(q, k, v, mask=mask, x=x, gate="tanh", backend="triton")
    assert out.stride()[2:] == x.stride()[2:] == (1, 60)
    truth = cross_attention_reference(q, k, v, mask, x=x, gate="tanh")
    assert torch.allclose(out, truth, atol=1e-6)


@pytest.mark.parametrize("keys", [7, 140])
@pytest.mark.parametrize("gate", ["none", "tanh"])
def test_queries_with_channels_first_get_their_gradient(keys: int, gate: str) -> None:
    """The kernels write channels side by side, however the queries lie."""
    q, k, v, mask = operands((1, 2, 50, keys, 16, 16), torch.float32)
    tensors = {"k": k, "v": v, "q": q.mT.contiguous()} | ({} if gate == "none" else {"x": torch.randn(1, 2, 50, 16)})
    with poisoned():
        assert_gradients_close(
            lambda q, **t: cross_attention(q.mT, **t, mask=mask, gate=gate, backend="triton"),
            lambda q, **t: cross_attention(q.mT, **t, mask=mask, gate=gate, backend="reference"),
            tensors,
            LIMITS[torch.float32],
        )


def test_features_that_all_heads_share_get_the_sum_of_their_gradients() -> None:
    q, k, v, mask = operands((2, 3, 20, 9, 12, 12), torch.float32)
    options = {"mask": mask, "gate": "residual_tanh"}
    assert_gradients_close(
        lambda x, **t: cross_attention(**t, x=x.expand(2, 3, 20, 12), **options, backend="triton"),
        lambda x, **t: cross_attention(**t, x=x.expand(2, 3, 20, 12), **options, backend="reference"),
        {"q": q, "k": k, "v": v, "x": torch.randn(1, 1, 20, 12)},
        LIMITS[torch.float32],
    )


def test_what_is_not_finite_in_padding_stays_there() -> None:
    q, k, v, mask = operands((2, 2, 40, 20, 8, 8), torch.float32)
    dirty = [t.clone() for t in (k, v)]
    for tensor in dirty:
        tensor.transpose(1, 2)[~mask] = float("nan")
    out = cross_attention(q, *dirty, mask=mask, backend="triton")
    assert torch.equal(out, cross_attention(q, k, v, mask=mask, backend="triton"))


def test_large_scores_do_not_overflow() -> None:
    q, k, v, mask = operands((1, 1, 33, 70, 16, 16), torch.float32)
    assert_gradients_close(
        lambda **t: cross_attention(**t, mask=mask, backend="triton"),
        lambda **t: cross_attention(**t, mask=mask, backend="reference"),
        {"q": q * 20.0, "k": k * 2.0, "v": v},
        2e-5,
    )


def test_parts_of_the_queries_add_up_to_the_same() -> None:
    """Two calls give the same bits: sums are made in a fixed order, without atomics."""
    q, k, v, mask = operands((1, 2, 300, 30, 16, 16), torch.float16)
    scale = torch.full((2,), 0.25)

    def run() -> list[Tensor]:
        out, stat = forward_triton(q, k, v, mask, scale, None, "softmax", "none", 0.0)
        return [out, *backward_triton(out, q, k, v, mask, scale, None, out, stat, "softmax", "none", 0.0)[:4]]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("permuted", [False, True])
def test_opcheck(permuted: bool) -> None:
    q, k, v, mask = operands((1, 2, 20, 5, 8, 8), torch.float32, permuted=permuted)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    scale = torch.full((2,), 0.3, requires_grad=True)
    x = torch.randn(1, 2, 20, 8, requires_grad=True) if permuted else None
    options = (x, "sigmoid", "tanh", -1.0) if permuted else (None, "softmax", "none", 0.0)
    torch.library.opcheck(torch.ops.petground.cross_attention.default, (*leaves, mask, scale, *options, "triton"))

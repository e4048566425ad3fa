"""Few queries to many keys by Triton against the reference: parts of the keys merge exactly, outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from petground.kernels.text_to_voxel import text_to_voxel
from tests.kernels.comparing import LIMITS, assert_close, assert_gradients_close, operands, poisoned

# batch, heads, queries, keys, D, E: one query; one key; several blocks of queries; keys that fill no block
SIZES = [(2, 1, 1, 133, 8, 8), (1, 2, 5, 1, 8, 5), (1, 1, 67, 70, 20, 33), (1, 2, 7, 300, 16, 16)]


CASES = [(size, activation, torch.float32) for size in SIZES for activation in ("softmax", "softplus")]
CASES += [(SIZES[3], "sigmoid", torch.float32)]
CASES += [(SIZES[number], "softmax", dtype) for number in (0, 2) for dtype in (torch.float16, torch.bfloat16)]


@pytest.mark.parametrize(("size", "activation", "dtype"), CASES)
def test_equals_reference(size: tuple[int, ...], activation: str, dtype: torch.dtype) -> None:
    q, k, v, mask = operands(size, dtype, permuted=size[1] > 1)
    tensors = {"q": q, "k": k, "v": v, "temperature": torch.linspace(0.6, 1.4, size[1])}
    options = {"mask": mask, "activation": activation, "shift": 0.0 if activation == "softmax" else -1.0}
    with poisoned():
        assert_gradients_close(
            lambda **t: text_to_voxel(**t, **options, backend="triton"),
            lambda **t: text_to_voxel(**t, **options, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


def test_a_part_that_is_all_padding_counts_for_nothing() -> None:
    q, k, v, _ = operands((1, 1, 4, 600, 16, 16), torch.float32)
    mask = torch.zeros(1, 600, dtype=torch.bool)
    mask[:, 590:597] = True  # only in the last part
    found = text_to_voxel(q, k, v, mask=mask, backend="triton")
    truth = text_to_voxel(q, k[:, :, 590:597], v[:, :, 590:597], backend="reference")
    assert_close("out", truth, found, 1e-6)


def test_scores_far_apart_between_parts() -> None:
    q, k, v, mask = operands((1, 1, 4, 400, 16, 16), torch.float32)
    k = k * torch.linspace(0.1, 60.0, 400)[:, None]
    assert_gradients_close(
        lambda **t: text_to_voxel(**t, mask=mask, backend="triton"),
        lambda **t: text_to_voxel(**t, mask=mask, backend="reference"),
        {"q": q * 10.0, "k": k, "v": v},
        2e-4,
    )


@pytest.mark.parametrize("permuted", [False, True])
def test_opcheck(permuted: bool) -> None:
    q, k, v, mask = operands((1, 2, 5, 40, 8, 8), torch.float32, permuted=permuted)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    scale = torch.full((2,), 0.3, requires_grad=True)
    options = ("softplus", 0.5) if permuted else ("softmax", 0.0)
    torch.library.opcheck(torch.ops.petground.text_to_voxel.default, (*leaves, mask, scale, *options, "triton"))

"""Routed attention on the CPU: the fused form, the reference, full attention as its limit, and bad input."""

from __future__ import annotations

import math
import resource
from typing import Any

import pytest
import torch

from petground.kernels.routed_attention import BackendUnavailableError, KernelInputError, chunked, routed_attention
from petground.kernels.routed_attention.regions import Regions
from tests.kernels.comparing import LIMITS, assert_equals_reference
from tests.kernels.routed_cases import CASES, made, run, table
from tests.models.conformance.memory import largest_tensor


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_chunked_equals_reference(name: str, dtype: torch.dtype) -> None:
    tensors, mask = made(name, dtype, batch=2, permuted=True)
    for keep in (mask, None):
        assert_equals_reference(run, name, "chunked", tensors, keep, LIMITS[dtype])


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_lists_of_all_regions_are_full_attention_and_own_region_alone_is_windows(backend: str) -> None:
    grid, region = (3, 5, 4), (2, 3, 3)
    q, k, v = (torch.randn(2, 2, 60, 8) for _ in range(3))
    every = torch.arange(8).expand(2, 8, 8)
    out = routed_attention(q, k, v, every, grid=grid, region=region, backend=backend)
    torch.testing.assert_close(out, torch.nn.functional.scaled_dot_product_attention(q, k, v))
    own = torch.arange(8).expand(2, 8)[..., None]
    alone = routed_attention(q, k, v, own, grid=grid, region=region, backend=backend)
    changed = k.clone()
    changed[:, :, -1] += 5.0  # the last voxel is of the last region: z 2, y 3 to 4, x 3
    moved = (routed_attention(q, changed, v, own, grid=grid, region=region, backend=backend) != alone).any(-1)
    assert moved[0, 0].nonzero().flatten().tolist() == [2 * 20 + 3 * 4 + 3, 2 * 20 + 4 * 4 + 3]


def test_gradcheck() -> None:
    tensors, mask = made("lists of heads", torch.float64)
    keys = list(tensors)
    inputs = [one.requires_grad_() for one in tensors.values()]
    assert torch.autograd.gradcheck(
        lambda *t: run("lists of heads", **dict(zip(keys, t, strict=True)), mask=mask), inputs, fast_mode=True
    )


def test_memory_does_not_hold_all_pairs_or_all_copies() -> None:
    """13824 voxels of 16 channels, lists of 8: all pairs would be 764 MB; all copies of keys and values 14 MB."""
    grid, region = (24, 24, 24), (4, 4, 4)
    q, k, v = (torch.randn(1, 1, math.prod(grid), 16, requires_grad=True) for _ in range(3))
    lists = torch.randint(0, 216, (1, 216, 8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    routed_attention(q, k, v, lists, grid=grid, region=region).sum().backward()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 76e6


@pytest.mark.parametrize("name", CASES)
def test_large_regions_are_worked_on_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made small instead of the regions large: parts of four queries, the last of a region with fewer."""
    monkeypatch.setattr(chunked, "AT_ONCE", 1)
    monkeypatch.setattr(chunked, "ROWS", 4)
    tensors, mask = made(name, torch.float64, batch=2)
    assert_equals_reference(run, name, "chunked", tensors, mask, LIMITS[torch.float64])


def test_one_region_over_the_grid_is_not_held_whole() -> None:
    grid = (12, 14, 13)
    count, regions = math.prod(grid), Regions(grid, grid)
    q, scale, lists = torch.randn(1, 1, count, 2), torch.ones(1), torch.zeros(1, 1, 1, 1, dtype=torch.long)
    with largest_tensor() as seen:
        out, stat = chunked.forward_chunked(q, q, q, lists, None, scale, regions)
        chunked.backward_chunked(out, q, q, q, lists, None, scale, out, stat, regions)
    assert seen.numbers <= 1.2 * chunked.AT_ONCE < count**2 / 3, seen.shape


def test_compiles_in_one_graph_and_passes_opcheck() -> None:
    tensors, mask = made("volume", torch.float32)
    tensors["table"] = table("volume")
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled("volume", **tensors, mask=mask), run("volume", **tensors, mask=mask))
    q, k, v = (tensors[name].requires_grad_() for name in "qkv")
    scale, lists = torch.full((1,), 0.3, requires_grad=True), torch.randint(-1, 8, (1, 1, 8, 3))
    op = torch.ops.petground.routed_attention.default
    torch.library.opcheck(op, (q, k, v, lists, mask, scale, [3, 5, 4, 2, 3, 3], "chunked"))


def test_wrong_inputs_are_named() -> None:
    q, lists = torch.randn(1, 2, 24, 8), torch.zeros(1, 4, 2, dtype=torch.long)
    good: dict[str, Any] = {"table": lists, "grid": (2, 3, 4), "region": (2, 2, 2)}
    for change, word in [
        ({"grid": (2, 3, 5)}, "30 voxels"),
        ({"region": (2, 2)}, "region is"),
        ({"table": lists[:, :3]}, "S=4"),
        ({"table": lists[..., :0]}, "table is"),
        ({"table": lists.expand(3, -1, -1, -1).transpose(0, 1)}, "table is"),
        ({"table": lists.float()}, "float32"),
        ({"table": lists + 4}, "names region 4"),
        ({"mask": torch.ones(1, 23, dtype=torch.bool)}, "mask is"),
    ]:
        with pytest.raises(KernelInputError, match=word):
            routed_attention(q, q, q, **(good | change))
    with pytest.raises(BackendUnavailableError, match="triton"):
        routed_attention(q, q, q, **good, backend="triton")

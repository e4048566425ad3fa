"""Block sizes, warps and stages of the kernels over windows and neighbourhoods; every entry is compiled ahead."""

from __future__ import annotations

from petground.kernels._triton.attention_plans import Plan

__all__ = ["routed_plan", "window_plan"]

# {kernel: {(16-bit?, channels up to): plan}}; 64 rows or keys are what Hopper's matrix instructions work on
_TABLE = {
    "forward": {
        (True, 64): Plan(64, 64, 4, 2), (True, 128): Plan(64, 64, 8, 2), (True, 256): Plan(64, 32, 8, 1),
        (False, 64): Plan(32, 32, 4, 1),
    },
    "queries": {
        (True, 64): Plan(64, 64, 4, 2), (True, 128): Plan(64, 32, 8, 2), (True, 256): Plan(32, 32, 8, 1),
        (False, 64): Plan(32, 32, 8, 1),
    },
    "keys": {
        (True, 64): Plan(64, 64, 4, 2), (True, 128): Plan(32, 64, 8, 2), (True, 256): Plan(32, 32, 8, 1),
        (False, 64): Plan(32, 32, 8, 1),
    },
    "bias": {
        (True, 64): Plan(64, 64, 8, 2), (True, 128): Plan(64, 64, 8, 1), (True, 256): Plan(32, 32, 8, 1),
        (False, 64): Plan(32, 32, 8, 1),
    },
}  # fmt: skip


def window_plan(
    kernel: str, itemsize: int, channels: int, rows: int = 64, cols: int = 64, *, pairwise: bool = False
) -> Plan:
    """For "forward", "queries", "keys" or "bias"; of few `rows` or `cols` in all, smaller blocks.

    pairwise: each pair is looked at (a bias, a rule of who sees whom), which takes registers: more warps.
    """
    table = _TABLE[kernel]
    found = next(one for (half, width), one in table.items() if half == (itemsize == 2) and channels <= width)
    return Plan(_fit(found.rows, rows), _fit(found.cols, cols), 8 if pairwise else found.num_warps, found.num_stages)


def _fit(block: int, needed: int) -> int:
    return 32 if needed <= 32 else block


def routed_plan(kernel: str, itemsize: int, channels: int, each: int) -> Plan:
    """For "forward", "queries" or "keys" over regions of `each` voxels."""
    found = window_plan(kernel, itemsize, channels)
    # of lists many voxels follow each other: only the side that one program finishes can be short
    if kernel == "keys":
        return Plan(found.rows, _fit(found.cols, each), found.num_warps, found.num_stages)
    return Plan(_fit(found.rows, each), found.cols, found.num_warps, found.num_stages)

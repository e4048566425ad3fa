"""Patterns over odd grids that the tests of windows and neighbourhoods share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from petground.kernels.window_attention import neighbourhood_attention, window_attention
from tests.kernels.comparing import operands

__all__ = ["CASES", "FEW", "made", "offsets", "run"]

# name: (grid, arguments); neighbourhoods have a size, windows a window
CASES: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "windows": ((2, 3, 4), {"window": (2, 2, 3)}),
    "shifted": ((3, 2, 5), {"window": (2, 4, 3), "shift": (1, 0, 2)}),
    "halo": ((2, 3, 5), {"window": (2, 2, 3), "halo": (1, 0, 2)}),
    "far": ((5, 2, 4), {"window": (3, 2, 2), "interval": (2, 1, 2)}),
    "all of it": ((2, 3, 4), {"window": (2, 2, 2), "shift": (1, 0, 2), "halo": (1, 1, 0), "interval": (1, 1, 2)}),
    "slide": ((2, 4, 5), {"size": (2, 3, 4)}),
    "slide, dilated": ((3, 4, 6), {"size": (3, 2, 2), "dilation": (1, 2, 3)}),
    "cut": ((3, 4, 5), {"size": (3, 7, 3), "edges": "cut"}),
    "cut, dilated, even": ((3, 4, 5), {"size": (2, 3, 3), "dilation": (1, 3, 2), "edges": "cut"}),
    "one voxel": ((1, 1, 1), {"window": (4, 4, 4), "halo": (1, 1, 1)}),
    "one line": ((1, 1, 37), {"size": (1, 1, 5)}),
    "large": ((3, 5, 4), {"window": (3, 5, 3)}),
    "wide": ((7, 9, 11), {"window": (4, 4, 4), "shift": (2, 2, 2), "halo": (2, 1, 0)}),
    "wide neighbourhood": ((7, 9, 11), {"size": (5, 3, 7)}),
}
FEW = tuple(name for name in CASES if name not in ("large", "wide", "wide neighbourhood"))


def run(name: str, **tensors: Any) -> Tensor:
    """The case on q, k, v and what else the operator takes."""
    grid, arguments = CASES[name]
    operator: Any = neighbourhood_attention if "size" in arguments else window_attention
    found: Tensor = operator(grid=grid, **arguments, **tensors)
    return found


def offsets(name: str) -> tuple[int, int, int]:
    """Entries of the case's bias along each axis."""
    arguments = CASES[name][1]
    if "size" in arguments:
        slide = arguments.get("edges", "slide") == "slide"
        z, y, x = (2 * (n - 1 if slide else n // 2) + 1 for n in arguments["size"])
    else:
        halo = arguments.get("halo", (0, 0, 0))
        z, y, x = (2 * (w - 1 + h) + 1 for w, h in zip(arguments["window"], halo, strict=True))
    return z, y, x


def made(
    name: str, dtype: torch.dtype, *, batch: int = 1, heads: int = 1, permuted: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """q, k, v, bias, temperature of a case, and a mask; from two entries on the last has no real voxel."""
    count = math.prod(CASES[name][0])
    q, k, v, mask = operands((batch, heads, count, count, 8, 5), dtype, permuted=permuted)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    bias = torch.randn(heads, *offsets(name), generator=torch.Generator().manual_seed(1), dtype=wide)
    return {"q": q, "k": k, "v": v, "bias": bias, "temperature": torch.linspace(0.7, 1.3, heads, dtype=wide)}, mask

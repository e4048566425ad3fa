"""Patterns over odd grids that the tests of windows and neighbourhoods share."""

from __future__ import annotations

from typing import Any

from petground.kernels.window_attention import neighbourhood_attention, window_attention

__all__ = ["CASES", "run"]

# name: (grid, arguments); neighbourhoods have a size, windows a window
CASES: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "windows": ((3, 5, 7), {"window": (2, 3, 4)}),
    "shifted": ((5, 4, 7), {"window": (2, 4, 3), "shift": (1, 0, 2)}),
    "halo": ((4, 3, 7), {"window": (2, 2, 3), "halo": (1, 0, 2)}),
    "far": ((5, 3, 8), {"window": (2, 3, 2), "interval": (2, 1, 3)}),
    "all of it": ((4, 5, 6), {"window": (2, 1, 2), "shift": (1, 0, 3), "halo": (1, 2, 1), "interval": (1, 2, 2)}),
    "slide": ((4, 5, 6), {"size": (3, 5, 4)}),
    "slide, dilated": ((3, 7, 6), {"size": (3, 3, 2), "dilation": (1, 2, 3)}),
    "cut": ((4, 5, 6), {"size": (3, 5, 7), "edges": "cut"}),
    "cut, dilated, even": ((3, 7, 6), {"size": (2, 3, 3), "dilation": (1, 3, 2), "edges": "cut"}),
    "one voxel": ((1, 1, 1), {"window": (4, 4, 4), "halo": (1, 1, 1)}),
    "one line": ((1, 1, 19), {"size": (1, 1, 5)}),
}


def run(name: str, **tensors: Any) -> Any:
    """The case on q, k, v and what else the operator takes."""
    grid, arguments = CASES[name]
    operator = neighbourhood_attention if "size" in arguments else window_attention
    return operator(grid=grid, **arguments, **tensors)


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

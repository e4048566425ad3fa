"""Whether values can be SUVbw at all: what no patient has is a wrong unit, weight or dose."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

__all__ = ["beyond_suv"]

HIGHEST_SUV = 1000.0  # above, the values are Bq/ml: bladder and injection sites stay below
NEGATIVE, NEGATIVE_SHARE = -0.5, 0.01  # reconstructions leave a few small negative values


def beyond_suv(array: NDArray[Any]) -> str | None:
    """What keeps the values from being SUVbw, None when nothing obvious does."""
    highest, lowest = float(array.max()), float(array.min())
    negative = float((array < NEGATIVE).mean()) if lowest < NEGATIVE else 0.0
    if 0 < highest <= HIGHEST_SUV and negative <= NEGATIVE_SHARE:
        return None
    return f"maximum {highest:.6g}, {100 * negative:.1f} % of voxels below {NEGATIVE:g}"

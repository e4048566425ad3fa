"""Stored values of sorted planes, each times its own slope, into one array."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from numpy.typing import DTypeLike, NDArray

from petground.labeling.errors import InputError
from petground.pipeline.dicom.header import Slice

__all__ = ["read_stack"]


def read_stack(
    planes: Sequence[Slice],
    slopes: Sequence[float],
    intercepts: Sequence[float],
    dtype: DTypeLike,
    limits: tuple[float, float] | None = None,
) -> NDArray[Any]:
    """[columns, rows, slices] of stored * slope + intercept, held within `limits`; slopes and intercepts one per plane.

    Pixel data are decoded once per file (JPEG-LS, RLE and the like through pydicom's plug-ins).
    Raises InputError naming the file that cannot be decoded.
    """
    first = planes[0]
    out = np.empty((first.columns, first.rows, len(planes)), dtype=dtype, order="F")
    integral = np.issubdtype(out.dtype, np.integer)
    held: tuple[Any, NDArray[Any]] | None = None  # frames of a multi-frame file come one after the other
    for k, plane in enumerate(planes):
        if held is None or held[0] != plane.file:
            held = (plane.file, _decode(plane))
        stored = held[1] if plane.frame is None else held[1][plane.frame]
        if stored.shape != (plane.rows, plane.columns):
            raise _undecodable(plane, f"pixel data of shape {stored.shape}, header says {plane.rows}x{plane.columns}")
        values = stored.astype(np.float64) * slopes[k] + intercepts[k]
        if limits is not None:
            values = np.clip(values, *limits)
        out[:, :, k] = (np.rint(values) if integral else values).T
    return out


def _decode(plane: Slice) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels: NDArray[Any] = pydicom.dcmread(plane.file, force=True).pixel_array
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like: RuntimeError, ValueError, NotImplementedError ...
        raise _undecodable(plane, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return pixels if plane.frame is None or pixels.ndim == 3 else pixels[None]


def _undecodable(plane: Slice, why: str) -> InputError:
    return InputError(
        f"{plane.file.name}: pixel data cannot be read: {why}", fix="copy the file anew", reason="unreadable"
    )

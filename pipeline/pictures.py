"""2D pictures of PET/CT as a physician expects them, as RGB arrays; pages and PNG files are made from these.

Convention, everywhere here: radiological. Axial: seen from the feet, the patient's right on the picture's left,
anterior up. Coronal: seen from the front, the patient's right on the picture's left, head up. Sagittal: seen from
the patient's left, anterior on the picture's left, head up. Pixels are square and count `pixel_mm` millimetres.
PET is shown in inverse grey, SUV 0 (white) to 10 (black); CT in the window -160..240 HU.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume
from petground.pipeline.files import write_bytes

__all__ = ["OUTLINES", "AxialPanels", "axial", "mip", "pixel_of", "png_bytes", "side_by_side", "stacked", "write_png"]

Rgb = NDArray[np.uint8]
View = Literal["coronal", "sagittal", "axial"]

SUV_WINDOW = (0.0, 10.0)  # PROMISE and Deauville readings are done on this scale of inverse grey
CT_WINDOW_HU = (-160.0, 240.0)  # soft tissue: level 40, width 400
RED, CYAN, BLUE = (214, 24, 32), (0, 214, 255), (20, 90, 220)
OUTLINES = (
    RED,
    (0, 130, 60),
    (150, 40, 200),
    (225, 110, 0),
    (0, 120, 200),
    (120, 90, 20),
    (220, 40, 140),
    (0, 140, 140),
)
BODY_SUV = 0.15  # air around the patient lies below, skin and lung above
MARGIN_MM = 20.0
LETTERS: dict[str, tuple[str, str, str, str]] = {  # left, right, top, bottom of the picture
    "coronal": ("R", "L", "H", "F"),
    "sagittal": ("A", "P", "H", "F"),
    "axial": ("R", "L", "A", "P"),
}
_AXES = {"coronal": (2, 0), "sagittal": (2, 1), "axial": (1, 0)}  # rows, columns: RAS axes, each drawn from its + end


class AxialPanels(NamedTuple):
    """Three pictures [rows, columns, 3] uint8 of one slice, all of one size; ct is None for an exam without CT."""

    pet: Rgb
    ct: Rgb | None
    fused: Rgb


def mip(
    pet: Volume,
    view: Literal["coronal", "sagittal"],
    mask: NDArray[Any] | Iterable[NDArray[Any]] | None = None,
    *,
    k: int | None = None,
    pixel_mm: float = 2.0,
    letters: bool = True,
    crop: bool = False,
) -> Rgb:
    """Maximum-intensity projection [rows, columns, 3] uint8 of a PET, the mask's projection outlined in red.

    Any orientation of the affine will do. `mask` lies on the PET grid [I, J, K]; several masks, of which one is held at
    a time, are outlined in the colours of OUTLINES, in turn. `k`, when given, draws a thin blue line at that slice
    (index of the stored array along the head-foot axis). `crop` leaves out the air beside the body. Raises
    GeometryError when a mask has another shape.
    """
    ras, _ = _to_ras(pet, pet.array)
    flat_axis = 1 if view == "coronal" else 0
    rows, columns = _AXES[view]
    row_at, column_at = (_samples(pet, axis, pixel_mm, ras if crop else None) for axis in (rows, columns))
    picture = _inverse_grey(_sample_2d(ras.max(axis=flat_axis), column_at, row_at, order=1))
    if k is not None:
        line = int(np.argmin(np.abs(row_at - _ras_index(pet, 2, k))))
        picture[line, ::2] = BLUE
    masks: Iterable[NDArray[Any]] = [] if mask is None else [mask] if isinstance(mask, np.ndarray) else mask
    taken = np.zeros(picture.shape[:2], dtype=np.bool_)
    for one, tint in zip(masks, itertools.cycle(OUTLINES)):
        shadow = _to_ras(pet, _checked(pet, one))[0].max(axis=flat_axis)
        rim = _rim(_sample_2d(shadow, column_at, row_at, order=0) > 0.5) & ~taken  # of equal masks the first is seen
        picture[rim] = tint
        taken |= rim
    return _with_letters(picture, view) if letters else picture


def axial(
    pet: Volume,
    ct: Volume | None,
    mask: NDArray[Any] | None,
    k: int,
    *,
    pixel_mm: float = 1.5,
    letters: bool = True,
    crop: bool = False,
) -> AxialPanels:
    """PET, CT and fused pictures of one PET slice; the CT is looked up at the same millimetres, on any grid.

    `k` is the index of the stored PET array along its head-foot axis (voxel_k of the tables). `mask` lies on the
    PET grid. `crop` leaves out the air beside the body. Without CT the fused panel shows the PET alone in the hot
    scale. Raises GeometryError when the mask has another shape or k is outside.
    """
    ras, affine = _to_ras(pet, pet.array)
    z = _ras_index(pet, 2, k)
    row_at, column_at = (_samples(pet, axis, pixel_mm, ras if crop else None) for axis in (1, 0))
    suv = _sample_2d(ras[:, :, z], column_at, row_at, order=1)
    edge = None
    if mask is not None:
        edge = _sample_2d(_to_ras(pet, _checked(pet, mask))[0][:, :, z], column_at, row_at, order=0) > 0.5
    y, x = np.meshgrid(row_at, column_at, indexing="ij")
    grid = np.stack([x, y, np.full_like(x, z)], axis=-1)
    ct_picture, fused = None, _hot(suv)[0]
    if ct is not None:
        world = grid @ affine[:3, :3].T + affine[:3, 3]
        at = np.moveaxis(ct.to_index(world), -1, 0)
        hu = ndimage.map_coordinates(ct.array, at, output=np.float32, order=1, mode="constant", cval=-1024.0)
        ct_picture = _grey(hu, CT_WINDOW_HU)
        colour, alpha = _hot(suv)
        fused = np.rint(ct_picture * (1 - alpha) + colour * alpha).astype(np.uint8)

    def finished(picture: Rgb, tint: tuple[int, int, int]) -> Rgb:
        if edge is not None:
            _outline(picture, edge, tint)
        return _with_letters(picture, "axial") if letters else picture

    ct_finished = finished(ct_picture, RED) if ct_picture is not None else None
    return AxialPanels(finished(_inverse_grey(suv), RED), ct_finished, finished(fused, CYAN))


def pixel_of(pet: Volume, view: View, ijk: tuple[int, int, int], *, pixel_mm: float) -> tuple[int, int]:
    """(row, column) at which a voxel of the stored array is drawn in the picture of that view."""
    ornt = orientations.io_orientation(pet.affine)
    found = []
    for axis in _AXES[view]:
        stored = int(np.flatnonzero(ornt[:, 0] == axis)[0])
        at = _samples(pet, axis, pixel_mm)
        found.append(int(np.argmin(np.abs(at - _ras_index(pet, axis, ijk[stored])))))
    return found[0], found[1]


def side_by_side(pictures: Sequence[Rgb], *, gap: int = 6, background: int = 255) -> Rgb:
    """Pictures in a row, top edges aligned, on one canvas."""
    height = max(p.shape[0] for p in pictures)
    canvas = np.full((height, sum(p.shape[1] + gap for p in pictures) - gap, 3), background, dtype=np.uint8)
    at = 0
    for picture in pictures:
        canvas[: picture.shape[0], at : at + picture.shape[1]] = picture
        at += picture.shape[1] + gap
    return canvas


def stacked(pictures: Sequence[Rgb], *, gap: int = 6, background: int = 255) -> Rgb:
    """Pictures below each other, left edges aligned, on one canvas."""
    turned = side_by_side([p.swapaxes(0, 1) for p in pictures], gap=gap, background=background)
    return np.ascontiguousarray(turned.swapaxes(0, 1))


def png_bytes(picture: Rgb) -> bytes:
    """The picture as the bytes of a PNG file, for a page's data URI say."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def write_png(path: Path, picture: Rgb) -> None:
    """Writes a PNG under a temporary name, then renames: never half a picture."""
    write_bytes(path, png_bytes(picture))


def _checked(pet: Volume, mask: NDArray[Any]) -> NDArray[np.bool_]:
    if mask.shape != pet.shape:
        raise GeometryError(f"mask {mask.shape} does not lie on the PET grid {pet.shape}")
    return np.asarray(mask, dtype=bool)


def _to_ras(volume: Volume, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A view of the array with axes nearest to R, A, S, and its affine."""
    ornt = orientations.io_orientation(volume.affine)
    affine = volume.affine @ orientations.inv_ornt_aff(ornt, volume.shape)
    return orientations.apply_orientation(array, ornt), affine


def _ras_index(volume: Volume, axis: int, stored_index: int) -> int:
    """Index along a RAS axis of an index along the stored axis that becomes it."""
    ornt = orientations.io_orientation(volume.affine)
    stored = int(np.flatnonzero(ornt[:, 0] == axis)[0])
    n = volume.shape[stored]
    if not 0 <= stored_index < n:
        raise GeometryError(f"slice index {stored_index} is not among the {n} slices")
    return int(stored_index) if ornt[stored, 1] > 0 else n - 1 - int(stored_index)


def _samples(volume: Volume, axis: int, pixel_mm: float, body_in: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Where the pixels lie along a RAS axis, as continuous RAS indices, from the axis' + end.

    With `body_in`, the PET on RAS axes, only the body and a margin, in x and y.
    """
    ornt = orientations.io_orientation(volume.affine)
    stored = int(np.flatnonzero(ornt[:, 0] == axis)[0])
    n, size_mm = volume.shape[stored], volume.spacing_ijk_mm[stored]
    low, high = 0, n
    if body_in is not None and axis != 2:
        inside = np.flatnonzero((body_in > BODY_SUV).any(axis=(1 - axis, 2)))
        if len(inside):
            margin = round(MARGIN_MM / size_mm)
            low, high = max(0, int(inside[0]) - margin), min(n, int(inside[-1]) + 1 + margin)
    pixels = max(1, round((high - low) * size_mm / pixel_mm))
    at: NDArray[np.float64] = (high - 1) - ((np.arange(pixels, dtype=np.float64) + 0.5) * pixel_mm / size_mm - 0.5)
    return at


def _sample_2d(plane: NDArray[Any], first_at: Any, second_at: Any, *, order: int) -> NDArray[np.float32]:
    """plane[first, second] sampled on a grid; rows of the outcome run along `second_at`, columns along `first_at`."""
    second, first = np.meshgrid(second_at, first_at, indexing="ij")
    plane = plane.astype(np.float32)
    sampled: NDArray[np.float32] = ndimage.map_coordinates(plane, [first, second], order=order, mode="nearest")
    return sampled


def _scaled(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    low, high = window
    values = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=low)
    return np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _grey(values: NDArray[Any], window: tuple[float, float]) -> Rgb:
    grey = np.rint(255 * _scaled(values, window)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _inverse_grey(suv: NDArray[Any]) -> Rgb:
    return np.asarray(255 - _grey(suv, SUV_WINDOW), dtype=np.uint8)


def _hot(suv: NDArray[Any]) -> tuple[Rgb, NDArray[np.float32]]:
    """The hot scale [.., 3] (black, red, yellow, white) and its opacity [.., 1] over a CT."""
    level = _scaled(suv, SUV_WINDOW)
    colour = np.stack([np.clip(3 * level - shift, 0, 1) for shift in (0, 1, 2)], axis=-1)
    alpha = np.clip(1.6 * np.sqrt(level) - 0.3, 0.0, 0.85)[..., None]
    return np.rint(255 * colour).astype(np.uint8), alpha.astype(np.float32)


def _outline(picture: Rgb, inside: NDArray[np.bool_], tint: tuple[int, int, int]) -> None:
    """Draws the rim just outside a region, so that what is inside stays visible."""
    picture[_rim(inside)] = tint


def _rim(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rim: NDArray[np.bool_] = ndimage.binary_dilation(inside, structure=np.ones((3, 3), dtype=bool)) & ~inside
    return rim


def _with_letters(picture: Rgb, view: View) -> Rgb:
    """The picture with its orientation letters at the middle of each edge."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    height, width = picture.shape[:2]
    font = ImageFont.load_default(size=max(9, min(16, min(height, width) // 10)))
    style: dict[str, Any] = {"font": font, "fill": (255, 196, 0), "stroke_width": 1, "stroke_fill": (0, 0, 0)}
    left, right, top, bottom = LETTERS[view]
    draw.text((3, height / 2), left, anchor="lm", **style)
    draw.text((width - 4, height / 2), right, anchor="rm", **style)
    draw.text((width / 2, 3), top, anchor="mt", **style)
    draw.text((width / 2, height - 4), bottom, anchor="mb", **style)
    return np.array(image, dtype=np.uint8)

"""What a reader measures in normal organs of an exam: SUVmax and its slice, away from lesions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from petground.pipeline.phantom.canvas import Array, Canvas

__all__ = ["measure_normal"]

# name in the report -> organs, and the side (sign of standard x) where it has one
ORGANS: dict[str, tuple[tuple[str, ...], int]] = {
    "spleen": (("spleen",), 0),
    "pancreas": (("pancreas",), 0),
    "right kidney": (("kidney_cortex", "kidney_pelvis"), 1),
    "left kidney": (("kidney_cortex", "kidney_pelvis"), -1),
    "bladder": (("bladder",), 0),
    "brain": (("grey_matter",), 0),
    "left ventricular myocardium": (("myocardium",), 0),
    "stomach": (("stomach_wall",), 0),
    "bowel": (("bowel_focus",), 0),
    "duodenum": (("duodenum",), 0),
    "right ureter": (("ureter",), 1),
    "left ureter": (("ureter",), -1),
    "right palatine tonsil": (("tonsil",), 1),
    "left palatine tonsil": (("tonsil",), -1),
    "parotid glands": (("parotid",), 0),
    "submandibular glands": (("submandibular",), 0),
    "supraclavicular brown fat": (("brown_fat",), 0),
}
LIVER_AT = (78.0, -8.0, -575.0)  # standard space: right lobe, clear of vessels; 3 cm sphere as in PERCIST 1.0
OVERSHOOT = 1.35  # noise and slow variation lift the maximum so far above the organ's mean, hardly further
AORTA_Z = (-500.0, -400.0)  # descending thoracic aorta


def measure_normal(pet: Array, canvas: Canvas, diseased: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, int]]:
    """SUVmax by organ and the slice, from the head from 1, where it is met. Arrays are [K, J, I], k to the head."""
    values: dict[str, float] = {}
    slices: dict[str, int] = {}
    kept = ~binary_dilation(diseased, iterations=3)
    for name, region in {"liver": _liver(canvas), "blood pool": _aorta(canvas)}.items():
        _measure(name, region, pet, kept, canvas, values, slices)
    for name, (organs, side) in ORGANS.items():
        region = canvas.is_in(organs)
        if side:
            region &= (np.sign(canvas.x) == side)[None, None, :]
        _measure(name, region, pet, kept, canvas, values, slices)
    return values, slices


def _measure(
    name: str,
    region: NDArray[np.bool_],
    pet: Array,
    kept: NDArray[np.bool_],
    canvas: Canvas,
    values: dict[str, float],
    slices: dict[str, int],
) -> None:
    places = np.flatnonzero(region & kept)
    if not len(places):
        return
    hottest = int(places[np.argmax(pet.ravel()[places])])
    suv = float(pet.ravel()[hottest])
    organ = canvas.names[canvas.organ.ravel()[hottest]]
    if suv > OVERSHOOT * canvas.table[organ] + 0.8:
        return  # what glows there is a hotter neighbour
    values[name] = round(suv, 3)
    slices[name] = pet.shape[0] - int(np.unravel_index(hottest, pet.shape)[0])


def _liver(canvas: Canvas) -> NDArray[np.bool_]:
    x, y, z = LIVER_AT
    near: NDArray[np.bool_] = (
        (canvas.x[None, None, :] - x) ** 2 + (canvas.y[None, :, None] - y) ** 2 + (canvas.z[:, None, None] - z) ** 2
    ) < 18.0**2
    return near & canvas.is_in(("liver",))


def _aorta(canvas: Canvas) -> NDArray[np.bool_]:
    region: NDArray[np.bool_] = canvas.is_in(("blood",))
    region &= ((canvas.z > AORTA_Z[0]) & (canvas.z < AORTA_Z[1]))[:, None, None]
    region &= (canvas.y < -20)[None, :, None] & (canvas.x < 0)[None, None, :]
    inner: NDArray[np.bool_] = binary_erosion(region, np.ones((1, 3, 3), dtype=bool))
    return inner

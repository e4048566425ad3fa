"""Whether an organ map lies on the patient that the PET shows: a map of another exam, or one that lost its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.body import CT_BODY_HU, PET_BODY_SUV
from petground.labeling.errors import GeometryError
from petground.labeling.organs import class_ids
from petground.labeling.volume import Volume

__all__ = ["require_on_patient"]

LEAST_SHARED = 0.5  # of the organs inside the PET's field of view, or of the body inside the map's: a crop has one
LEAST_ON_BODY = 0.6  # of the organs that the PET shows; bowel gas and a brain without uptake lie outside of its outline
LEAST_AIR = 0.3  # of the map's lungs; collapse and effusion are rarely all of them
LUNG_HU = (-960.0, -300.0)  # below is the air around the patient
MOST_POINTS, LEAST_POINTS = 20_000, 200
LARGE = 20_000_000  # voxels: a map on the CT's grid
_HOLLOW = ("lung", "trachea", "colon", "small_bowel", "stomach", "esophagus", "duodenum")
FIX = "the map must be made from this exam's CT and lie in its frame: check which exam it belongs to, and its affine"
Points = NDArray[np.float64]


def require_on_patient(organs: Volume, pet: Volume, ct: Volume | None = None, *, case: str | None = None) -> None:
    """Raises GeometryError (reason "organ_map") naming the case when the map cannot be of this patient in this place.

    That is: none of its organs lies in the PET's field of view; the two share less than half of each other; the organs
    lie outside of the body; or its lungs lie where the CT shows no lung. organs: label map with the ids of
    `organs.class_ids`. ct: HU, where there is one.
    """
    held = _where(organs, lambda array: array > 0)
    within = _inside(pet, held)
    if not within.any():
        raise GeometryError(
            f"the organ map lies outside of the PET's field of view ({_apart_mm(held, pet):.0f} mm from it)",
            case=case,
            fix=FIX,
            reason="organ_map",
        )
    body = _where(pet, lambda array: array > PET_BODY_SUV)
    shared = max(float(within.mean()), float(_inside(organs, body).mean()) if len(body) else 0.0)
    if shared < LEAST_SHARED:
        told = f"{shared:.0%} of the organ map and of the body on the PET lie in each other's field of view"
        raise GeometryError(f"at most {told}", case=case, fix=FIX, reason="organ_map")
    solid = held[within & ~np.isin(_at(organs, held), _ids(_HOLLOW))]
    on_body = _at(pet, solid) > PET_BODY_SUV
    if ct is not None:
        on_body |= _inside(ct, solid) & (_at(ct, solid) > CT_BODY_HU)
    if len(solid) >= LEAST_POINTS and on_body.mean() < LEAST_ON_BODY:
        told = f"{1 - on_body.mean():.0%} of the organ map lie outside of the body"
        raise GeometryError(told, case=case, fix=FIX, reason="organ_map")
    if ct is None:
        return
    lungs = _where(organs, lambda array: np.isin(array, _ids(("lung",))))
    lungs = lungs[_inside(ct, lungs)]
    found = _at(ct, lungs)
    air = (found > LUNG_HU[0]) & (found < LUNG_HU[1])
    if len(lungs) >= LEAST_POINTS and air.mean() < LEAST_AIR:
        told = f"{1 - air.mean():.0%} of the organ map's lungs lie where the CT shows no lung"
        raise GeometryError(told, case=case, fix=FIX, reason="organ_map")


def _ids(starts: tuple[str, ...]) -> list[int]:
    return [number for number, name in class_ids().items() if name.startswith(starts)]


def _where(image: Volume, test: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> Points:
    """Millimetres [N, 3] of at most MOST_POINTS voxels that pass, evenly taken; of large images every other voxel."""
    step = 2 if image.array.size > LARGE else 1
    held = test(np.asarray(image.array)[::step, ::step, ::step])
    flat = np.flatnonzero(held)
    flat = flat[:: max(1, -(-len(flat) // MOST_POINTS))]
    return image.to_world_mm(np.stack(np.unravel_index(flat, held.shape), axis=-1) * step)


def _inside(image: Volume, xyz_mm: Points) -> NDArray[np.bool_]:
    index = np.rint(image.to_index(xyz_mm))
    return np.asarray(((index >= 0) & (index < image.shape)).all(axis=-1), dtype=bool)


def _at(image: Volume, xyz_mm: Points) -> NDArray[np.float64]:
    """The nearest voxel's value; of the border for points outside."""
    index = np.clip(np.rint(image.to_index(xyz_mm)).astype(np.int64), 0, np.array(image.shape) - 1)
    return np.asarray(image.array[tuple(index.T)], dtype=np.float64)


def _apart_mm(points: Points, pet: Volume) -> float:
    """From the nearest of the points to the PET's voxel grid."""
    index = pet.to_index(points)
    nearest = np.clip(index, 0, np.array(pet.shape) - 1)
    return float(np.linalg.norm(pet.to_world_mm(nearest) - points, axis=-1).min())

"""What an exam's PET looks like, in a kilobyte: the same for the same image on another grid or in another order."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume
from petground.pipeline.exports.grids import ras
from petground.pipeline.files import write_json
from petground.pipeline.nifti import read_nifti
from petground.pipeline.stage import content_hash, source_hash

__all__ = ["BINS_XYZ", "BIN_MM", "fingerprint_case", "low_resolution", "peak_from_centre", "voxel_hash"]

BIN_MM = 48.0
BINS_XYZ = (8, 6, 24)  # 38 x 29 x 115 cm around the centre of uptake


def fingerprint_case(work: Path, exam_id: str, pet_path: str) -> dict[str, Any]:
    """{"voxels": digest, "low": base64 of float16, "peak_mm": see `peak_from_centre`, "series": UID or
    None}; kept in WORK/fingerprints, made once."""
    file = work / pet_path
    place = work / "fingerprints" / f"{exam_id}.json"
    stat = file.stat()
    key = content_hash([source_hash("petground.pipeline.exports.fingerprint"), stat.st_size, stat.st_mtime_ns])
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found
    except (OSError, ValueError, KeyError):
        pass
    pet = read_nifti(file, "SUVbw")
    made = {
        "key": key,
        "voxels": voxel_hash(pet),
        "low": base64.b64encode(low_resolution(pet).astype("<f2").tobytes()).decode(),
        "peak_mm": peak_from_centre(pet),
        "series": _series(work / "exams" / exam_id / "source.json"),
    }
    write_json(place, made)
    return made


def voxel_hash(pet: Volume) -> str:
    """Digest of the voxels in RAS+ order to 0.001 of an SUV: stored turned or placed elsewhere it is the same."""
    with contextlib.suppress(GeometryError):  # between the patient's axes a copy is only known in its stored order
        pet = ras(pet)
    array = np.rint(pet.array.astype(np.float64) * 1000).astype(np.int32)
    return hashlib.blake2b(repr(array.shape).encode() + array.tobytes(), digest_size=16).hexdigest()


def low_resolution(pet: Volume) -> NDArray[np.float32]:
    """Square root of the mean SUV in boxes of 48 mm around the centre of uptake, flat [1152].

    The centre goes with the patient, so a copy with another origin, spacing or order of voxels looks the same. Each
    voxel is shared between the two nearest boxes of an axis, or another grid would shift a box's sum by per cents.
    """
    array = np.maximum(np.asarray(pet.array, dtype=np.float64), 0.0)
    along = np.abs(pet.affine[:3, :3])
    order = [int(n) for n in np.argmax(along / np.linalg.norm(along, axis=0), axis=1)]
    total = array.sum()
    if total <= 0 or sorted(order) != [0, 1, 2]:
        return np.zeros(int(np.prod(BINS_XYZ)), dtype=np.float32)
    shared: NDArray[np.float64] = array.transpose(order)
    for world, axis in enumerate(order):  # each turn uses up the first axis and appends its boxes as the last
        profile = array.sum(axis=tuple(other for other in range(3) if other != axis))
        index = np.arange(array.shape[axis])
        offset_mm = (index - (profile * index).sum() / total) * pet.affine[world, axis]
        at = offset_mm / BIN_MM + (BINS_XYZ[world] - 1) / 2
        weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(BINS_XYZ[world])[None, :]))
        shared = np.tensordot(shared, weights, axes=(0, 0))
    return np.sqrt(shared * pet.voxel_ml * 1000.0 / BIN_MM**3).astype(np.float32).ravel()


def peak_from_centre(pet: Volume) -> list[float]:
    """Where the hottest voxel lies from the centre of uptake, RAS+ mm; empty for a blank image.

    A copy has it at the same place to a voxel. Images without lesions, which look alike in large boxes, do not.
    """
    array = np.maximum(np.asarray(pet.array, dtype=np.float64), 0.0)
    if (total := array.sum()) <= 0:
        return []
    profiles = [array.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    centre = np.array([(profile * np.arange(len(profile))).sum() / total for profile in profiles])
    peak = np.array(np.unravel_index(int(array.argmax()), array.shape))
    return [round(float(mm), 1) for mm in pet.affine[:3, :3] @ (peak - centre)]


def _series(path: Path) -> str | None:
    try:
        uid = json.loads(path.read_text(encoding="utf-8")).get("pet_series_uid")
    except (OSError, ValueError, AttributeError):
        return None
    return str(uid) if uid else None

"""NIfTI in and out: geometry checked, unit and DICOM identity kept, files that are whole or not there."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Unit, Volume
from petground.pipeline.suv_range import beyond_suv

__all__ = ["NIFTI_SUFFIXES", "as_stored", "read_nifti", "require_suv", "write_nifti"]

NIFTI_SUFFIXES = (".nii.gz", ".nii")
UNITS: tuple[Unit, ...] = ("SUVbw", "HU", "label", "probability")
MILLIMETRES_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # NIFTI_UNITS_UNKNOWN, METER, MM, MICRON
FORM_AGREEMENT_MM = 1.0
SMALLEST_FILE = 352  # bytes of header and extension flag, NIfTI-1 standard


def read_nifti(path: Path, unit: Unit) -> Volume:
    """A 3D NIfTI file whose values are `unit`: float32 for images, uint8 or int32 for labels, HU as stored.

    Raises InputError when it is missing, cannot be read (reason "unreadable"), has another unit on record, is not
    three-dimensional or holds values that are no numbers; GeometryError when its place in the patient is not stated.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist", fix="check the path", reason="missing")
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path.name} is not a NIfTI name", fix="give a .nii.gz or .nii file")
    try:
        image = _load(path)
        header, affine = image.header, _affine(image)
        array = _values(image, unit)
    except (ImageFileError, HeaderDataError, EOFError, OSError, zlib.error, ValueError, KeyError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path.name} cannot be read: {why}", fix="copy it anew", reason="unreadable") from error
    recorded = bytes(header["intent_name"]).split(b"\0")[0].decode("ascii", errors="ignore").strip()
    if recorded in UNITS and recorded != unit:
        raise InputError(f"{path.name} holds {recorded}, {unit} is needed", fix="check which file is which")
    if array.ndim != 3:
        raise InputError(f"{path.name} has shape {array.shape}", fix="three dimensions are needed")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{path.name} holds values that are not numbers (NaN or infinite)", fix="set them to a value")
    extra = _extra(header)
    numbers = extra.get("instance_numbers")
    return Volume(
        array,
        affine,
        unit,
        frame_of_reference=extra.get("frame_of_reference"),
        instance_numbers=tuple(numbers) if numbers and len(numbers) == array.shape[2] else None,
        series_number=extra.get("series_number"),
    )


def write_nifti(path: Path, volume: Volume, *, packed: bool = True) -> None:
    """Writes float32 (labels uint8, int32 above 255; whole HU int16), gzip level 1 for .gz, the same bytes each time.

    packed: False leaves the voxels of a .gz uncompressed, which costs room and saves most of the time.
    The unit goes into intent_name, the DICOM identity into a comment extension. A file appears whole or not at all.
    Raises InputError when it cannot be written.
    """
    path = Path(path)
    image = nib.Nifti1Image(_stored(volume), volume.affine)
    header = image.header
    header.set_xyzt_units("mm", "sec")
    image.set_sform(volume.affine, code=1)
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    rectangular = bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-4))
    image.set_qform(volume.affine, code=1 if rectangular else 0)  # a quaternion cannot express a shear
    header.set_intent("label" if volume.unit == "label" else "none", name=volume.unit)
    header["descrip"] = f"petground {volume.unit}"
    extra: dict[str, Any] = {}
    if volume.frame_of_reference:
        extra["frame_of_reference"] = volume.frame_of_reference
    if volume.instance_numbers:
        extra["instance_numbers"] = list(volume.instance_numbers)
    if volume.series_number is not None:
        extra["series_number"] = volume.series_number
    if extra:
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", json.dumps({"petground": extra}).encode()))
    suffix = next((s for s in NIFTI_SUFFIXES if path.name.endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path.name} is not a NIfTI name", fix="end it in .nii.gz")
    temporary = path.with_name(f".{path.name[: -len(suffix)]}.{os.getpid()}.tmp{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(image, temporary, packed)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def as_stored(volume: Volume) -> Volume:
    """The volume exactly as `read_nifti` would return it after `write_nifti`: values, memory order, affine."""
    affine = volume.affine.astype(np.float32).astype(np.float64)
    return replace(volume, array=np.asfortranarray(_stored(volume)), affine=affine)


def require_suv(volume: Volume, path: Path) -> Volume:
    """The volume, unless its values are obviously not SUVbw: then InputError (reason "not_suv")."""
    beyond = beyond_suv(volume.array)
    if beyond is not None:
        raise InputError(
            f"{path.name} does not hold SUVbw: {beyond}",
            fix="convert it to SUVbw, or give the DICOM series",
            reason="not_suv",
        )
    return volume


def _load(path: Path) -> Any:
    """The image from the whole file: read to its end, gzip's checksum tells a damaged or cut-off file."""
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        raw = igzip.decompress(raw)  # type: ignore[no-untyped-call]
    if len(raw) < SMALLEST_FILE:
        raise ImageFileError("the file is shorter than a NIfTI header")
    kind = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image  # header of 540 bytes
    return kind.from_bytes(raw)


def _save(image: Any, path: Path, packed: bool = True) -> None:
    """Gzip by ISA-L: four times as quick as zlib's level 1 at its size, any program reads it; the time is set to 0."""
    if packed or not path.name.endswith(".gz"):
        content = image.to_bytes()
        path.write_bytes(igzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)
        return
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 0, raw, mtime=0) as stream:  # around the bytes as they are
        image.to_stream(stream)


def _affine(image: Any) -> NDArray[np.float64]:
    """sform, or qform where there is no sform. Raises GeometryError when there is neither, or they contradict."""
    header = image.header
    sform, s_code = image.get_sform(coded=True)
    qform, q_code = image.get_qform(coded=True)
    scale = MILLIMETRES_PER_UNIT.get(int(header["xyzt_units"]) & 7)
    if scale is None:
        raise GeometryError(f"unknown unit of length {int(header['xyzt_units']) & 7} in the NIfTI header")
    if not s_code and not q_code:
        raise GeometryError(
            "the NIfTI header has neither sform nor qform: where the image lies is not known",
            fix="write it anew with its affine",
        )
    if s_code and q_code:
        shape = image.shape[:3]
        corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
        apart = float(np.abs(corners @ (sform - qform).T).max()) * scale
        if apart > FORM_AGREEMENT_MM:
            raise GeometryError(
                f"sform and qform of the NIfTI header lie {apart:.1f} mm apart",
                fix="decide which is right and rewrite it",
            )
    affine = np.array(sform if s_code else qform, dtype=np.float64)
    affine[:3] *= scale
    return affine


def _values(image: Any, unit: Unit) -> NDArray[Any]:
    if unit in ("SUVbw", "probability"):
        array = image.get_fdata(dtype=np.float32, caching="unchanged")
    else:
        array = np.asanyarray(image.dataobj)
        if unit == "HU" and array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
        if unit == "label":
            array = _whole(array)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return np.asarray(array)


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    whole = np.rint(array) if array.dtype.kind == "f" else array
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (np.abs(array - whole) < 1e-3).all()):
        raise ValueError("a label map with values that are not whole numbers")
    if whole.size and whole.min() >= 0 and whole.max() <= 255:
        return whole.astype(np.uint8)
    return whole.astype(np.int32)


def _stored(volume: Volume) -> NDArray[Any]:
    array = volume.array
    if volume.unit == "label":
        return np.asarray(array, dtype=np.uint8) if array.dtype == np.bool_ else _whole(array)
    if volume.unit == "HU" and array.dtype.kind in "iu":
        if array.dtype == np.int16:
            return array
        return np.clip(array, -32768, 32767).astype(np.int16)  # 65535 must stay bright, not become -1
    return array.astype(np.float32, copy=False)


def _extra(header: Any) -> dict[str, Any]:
    for extension in getattr(header, "extensions", []):
        try:
            found = json.loads(extension.get_content())["petground"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(found, dict):
            return found
    return {}

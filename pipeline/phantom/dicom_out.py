"""A phantom exam as a scanner would export it: one CT and one or two PET series, one file per slice.

The files go the same way in as any hospital's: nothing in the reader knows of the phantom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume
from petground.pipeline.phantom.dicom_header import (
    clock_of,
    common_header,
    ct_header,
    dose_bq,
    ds,
    frame_timing,
    pet_header,
    uid_of,
)
from petground.pipeline.phantom.records import PhantomExam

__all__ = ["write_dicom"]

INT16_MAX = 32767
CT_INTERCEPT = -1024  # HU of stored value 0, as scanners do
WATER_PER_MM = 0.0096  # linear attenuation of water at 511 keV [1/mm]
AIR_SUV = 0.1  # below, a PET voxel counts as outside the body
LPS = np.array([-1.0, -1.0, 1.0])


def write_dicom(exam: PhantomExam, folder: Path, *, uncorrected: bool | None = None) -> None:
    """Writes folder/CT/..., folder/PT/WB_AC/... and in some exams folder/PT/WB_NAC/... (the uncorrected PET).

    exam.pet [SUVbw] is written in Bq/ml with a rescale slope per slice, exam.ct in whole HU. File names tell nothing
    of the order; InstanceNumber counts from the head, from 1. uncorrected: None for every second exam (by the
    parity of a digest of its id). Raises GeometryError when a grid is sheared, which DICOM images cannot state.
    """
    for volume in (exam.pet, exam.ct):
        _cosines(volume)
    clock = clock_of(exam)
    study = uid_of(exam, "study")
    frame = exam.pet.frame_of_reference or uid_of(exam, "frame of reference")
    if uncorrected is None:
        uncorrected = hashlib.sha256(exam.exam_id.encode()).digest()[0] % 2 == 0

    def base() -> Dataset:
        header = common_header(exam, clock, study)
        header.FrameOfReferenceUID = frame
        return header

    bq_per_suv = dose_bq(exam) * clock.decayed / (1000.0 * float(ds(exam.patient.weight_kg)))
    _write_series(exam, exam.ct, ct_header(base(), clock), folder / "CT" / "WB_LOW_DOSE", "ct", _ct_pixels)

    series = [(True, "WB_AC", exam.pet)]
    if uncorrected:
        series.append((False, "WB_NAC", exam.pet.like(_without_attenuation(exam.pet), "SUVbw")))
    for corrected, name, volume in series:
        header = pet_header(base(), exam, clock, corrected=corrected)
        up_mm = abs(float(volume.affine[2, 2]))

        def fill(image: Dataset, plane: NDArray[Any], from_feet: int, up_mm: float = up_mm) -> NDArray[np.int16]:
            frame_timing(image, clock, from_feet * up_mm)
            return _pet_pixels(image, plane, bq_per_suv)

        _write_series(exam, volume, header, folder / "PT" / name, name, fill)


def _pet_pixels(image: Dataset, plane: NDArray[Any], bq_per_suv: float) -> NDArray[np.int16]:
    """Stored values of one slice [I, J]; the slope as written, not as computed, is what they are counted in."""
    bq = plane.astype(np.float64) * bq_per_suv
    image.RescaleSlope = ds(max(float(np.abs(bq).max()), 1e-3) / INT16_MAX * (1 + 1e-9))
    image.RescaleIntercept = "0"
    return np.rint(bq / float(image.RescaleSlope)).astype(np.int16)


def _ct_pixels(image: Dataset, plane: NDArray[Any], from_feet: int) -> NDArray[np.int16]:
    image.RescaleSlope, image.RescaleIntercept = "1", str(CT_INTERCEPT)
    return np.clip(np.rint(plane) - CT_INTERCEPT, -INT16_MAX, INT16_MAX).astype(np.int16)


def _write_series(
    exam: PhantomExam,
    volume: Volume,
    header: Dataset,
    folder: Path,
    name: str,
    pixels: Callable[[Dataset, NDArray[Any], int], NDArray[np.int16]],
) -> None:
    """One file per slice. array[i, j, k]: i runs along an image row (columns), j down the columns, k through slices."""
    folder.mkdir(parents=True, exist_ok=True)
    count = volume.shape[2]
    _describe_grid(header, volume)
    header.SeriesInstanceUID = uid_of(exam, name)
    header = _encoded(header)
    root = uid_of(exam, name, "image")[:56]  # with a dot and a slice number no longer than the 64 characters allowed
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for k in range(count):
        from_feet = k if volume.head_is_last else count - 1 - k
        number = count - from_feet
        uid = f"{root}.{number}"
        header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = uid
        header.InstanceNumber = number
        if header.Modality == "PT":
            header.ImageIndex = number
        position = volume.to_world_mm([0, 0, k]) * LPS
        header.ImagePositionPatient = [ds(value) for value in position]
        header.SliceLocation = ds(position[2])
        stored = pixels(header, volume.array[:, :, k], from_feet)
        header.add_new("PixelData", "OW", np.ascontiguousarray(stored.T, dtype="<i2").tobytes())
        header.file_meta = meta
        file = folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:12]}.dcm"
        header.save_as(file, enforce_file_format=True)


def _encoded(header: Dataset) -> Dataset:
    """The same data set with its values as bytes: pydicom then writes them for each slice without encoding anew."""
    file = BytesIO()
    dcmwrite(file, header, implicit_vr=False, little_endian=True)
    file.seek(0)
    return dcmread(file, force=True)


def _describe_grid(header: Dataset, volume: Volume) -> None:
    """Matrix, spacing and cosines."""
    spacing, cosines = volume.spacing_ijk_mm, _cosines(volume)
    header.Rows, header.Columns = volume.shape[1], volume.shape[0]
    header.PixelSpacing = [ds(spacing[1]), ds(spacing[0])]
    header.SliceThickness = ds(spacing[2])
    header.ImageOrientationPatient = [ds(value) for value in (*cosines[:, 0], *cosines[:, 1])]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1


def _cosines(volume: Volume) -> NDArray[np.float64]:
    """[3, 3] unit vectors along i, j, k as columns, in LPS. Raises GeometryError when they are not perpendicular."""
    cosines: NDArray[np.float64] = volume.affine[:3, :3] / np.array(volume.spacing_ijk_mm) * LPS[:, None]
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > 1e-4:
        raise GeometryError("the phantom's grid is sheared", fix="DICOM slices need perpendicular axes")
    return cosines


def _without_attenuation(pet: Volume) -> NDArray[np.float32]:
    """What the scanner sees when nothing is corrected: the deeper in the body, the fewer photons come out.

    Depth is the shortest way out along rows and columns [mm], each photon pair crossing about twice as much tissue.
    """
    body = pet.array > AIR_SUV
    depth = np.full(pet.shape, np.inf, dtype=np.float32)
    for axis in (0, 1):
        mm = pet.spacing_ijk_mm[axis]
        inward = np.cumsum(body, axis=axis, dtype=np.float32)
        outward = inward.take([-1], axis=axis) - inward
        depth = np.minimum(depth, np.minimum(inward, outward) * np.float32(mm))
    return (pet.array * np.exp(np.float32(-2 * WATER_PER_MM) * depth)).astype(np.float32)

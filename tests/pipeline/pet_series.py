"""A small PET series in any direction that a scanner can have, with one hot voxel, and an outline at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from petground.labeling.volume import Volume

TILT = np.deg2rad(12)
SERIES: dict[str, dict[str, Any]] = {
    "head_first": {"cosines": (1, 0, 0, 0, 1, 0)},
    "files_from_head": {"cosines": (1, 0, 0, 0, 1, 0), "reverse": True},
    "feet_first": {"cosines": (-1, 0, 0, 0, 1, 0)},
    "prone": {"cosines": (-1, 0, 0, 0, -1, 0)},
    "negated_columns": {"cosines": (1, 0, 0, 0, -1, 0), "reverse": True},
    "turned": {"cosines": (0, 1, 0, -1, 0, 0)},
    "oblique": {"cosines": (1, 0, 0, 0, np.cos(TILT), np.sin(TILT))},
    "bed_seams": {"cosines": (1, 0, 0, 0, 1, 0), "steps": (3.27, 3.19, 3.29)},
}
HOT_LPS_MM = np.array([23.0, -14.0, 5.0])  # left, in front, above the middle: no two axes alike
ROWS, COLUMNS, SLICES = 18, 22, 14


def write_series(
    folder: Path, cosines: tuple[float, ...], *, reverse: bool = False, steps: tuple[float, ...] = (3.27,)
) -> np.ndarray:
    """A small PET around the origin with one hot voxel nearest HOT_LPS_MM; returns where that voxel lies (LPS mm)."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(cosines[:3], float), np.array(cosines[3:], float)
    normal = np.cross(row, column)
    offsets = np.concatenate([[0.0], np.cumsum([steps[n % len(steps)] for n in range(SLICES - 1)])])
    spacing = (4.1, 3.7)  # between rows, between columns
    first = -row * spacing[1] * (COLUMNS - 1) / 2 - column * spacing[0] * (ROWS - 1) / 2 - normal * offsets[-1] / 2
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    places = []
    for n in range(SLICES):
        place = first + normal * offsets[n]
        at = HOT_LPS_MM - place
        r, c = round(float(at @ column) / spacing[0]), round(float(at @ row) / spacing[1])
        voxel = place + c * spacing[1] * row + r * spacing[0] * column
        places.append((float(np.linalg.norm(voxel - HOT_LPS_MM)), n, r, c, voxel))
    _, hot_n, hot_r, hot_c, hot = min(places, key=lambda p: p[0])
    for n in range(SLICES):
        pixels = np.full((ROWS, COLUMNS), 100, dtype=np.uint16)
        if n == hot_n:
            pixels[hot_r, hot_c] = 20000
        ds = _header(series, study, frame, n)
        ds.ImagePositionPatient = [round(float(v), 4) for v in first + normal * offsets[n]]
        ds.ImageOrientationPatient = [round(float(v), 8) for v in cosines]
        ds.PixelSpacing = list(spacing)
        ds.Rows, ds.Columns = ROWS, COLUMNS
        ds.PixelData = pixels.tobytes()
        ds.save_as(folder / f"{SLICES - n if reverse else n:03d}.dcm", enforce_file_format=True)
    return hot


def _header(series: str, study: str, frame: str, n: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
    ds.Modality, ds.PatientID, ds.PatientName, ds.PatientWeight = "PT", "P1", "Phantom^One", 70
    ds.SeriesDate = ds.StudyDate = ds.AcquisitionDate = "20240102"
    ds.SeriesTime = ds.StudyTime = ds.AcquisitionTime = "100000"
    ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
    ds.ImageType, ds.SeriesType = ["ORIGINAL", "PRIMARY"], ["WHOLE BODY", "IMAGE"]
    ds.InstanceNumber, ds.SeriesNumber, ds.NumberOfSlices, ds.SliceThickness = n + 1, 4, SLICES, 3.27
    ds.RescaleSlope, ds.RescaleIntercept = 1.0, 0.0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.FrameReferenceTime, ds.ActualFrameDuration = 0, 120000
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime, drug.RadionuclideTotalDose = "090000", 3.5e8
    drug.RadionuclideHalfLife = 6586.2
    ds.RadiopharmaceuticalInformationSequence = [drug]
    return ds


def around(pet: Volume, hot_lps_mm: np.ndarray) -> np.ndarray:
    """An L of voxels at the hot one, with no symmetry of its own."""
    i, j, k = np.rint(pet.to_index(hot_lps_mm * [-1, -1, 1])).astype(int)
    mask = np.zeros(pet.shape, dtype=bool)
    for at in ((0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (1, 0, 2)):
        mask[i + at[0], j + at[1], k + at[2]] = True
    return mask

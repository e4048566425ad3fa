"""Outlines as other programs save them: what a file holds and what names it; its masks once the PET is known.

DICOM SEG and RTSTRUCT as OHIF, 3D Slicer and contouring workstations write them, NIfTI label maps as 3D Slicer and
ITK-SNAP save them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.dicom.rtstruct import fill_contours, read_rois
from petground.pipeline.dicom.seg import read_seg
from petground.pipeline.geometry import on_grid_of
from petground.pipeline.nifti import NIFTI_SUFFIXES, read_nifti

__all__ = ["DrawnFile", "Outline", "masks_of", "open_drawn"]

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # Segmentation, Label Map Segmentation Storage
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
OTHERS = (".nrrd", ".mha", ".mhd", ".gipl", ".mrb", ".vtk", ".vtm", ".stl")
TABLES = (".txt", ".ctbl", ".label")  # label descriptions of ITK-SNAP, colour tables of 3D Slicer
_TABLE_LINE = re.compile(r"\s*(\d+)\s+(\S.*)")


@dataclass(frozen=True)
class Outline:
    """One region of a file. number: of its segment, ROI or value; words: what may hold the finding's id."""

    number: int
    words: tuple[str, ...]
    tracking_uid: str | None = None


@dataclass(frozen=True)
class DrawnFile:
    """A file of outlines. series: SeriesInstanceUIDs that it refers to; creator: whom it names as its author."""

    path: Path
    kind: str
    outlines: tuple[Outline, ...]
    series: frozenset[str] = frozenset()
    creator: str | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def open_drawn(path: Path) -> DrawnFile | None:
    """What a file holds, None for one that holds no outlines.

    Raises InputError for one that cannot be read, or of another program's kind that is not read.
    """
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return _nifti(path)
    if name.endswith(OTHERS):
        raise InputError(f"{path.suffix} files are not read", fix="save it as DICOM SEG or NIfTI, on the PET's grid")
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return None
    try:
        header: Any = pydicom.dcmread(path, stop_before_pixels=True)
        kind = str(header.get("SOPClassUID"))
        if kind in SEG:
            return DrawnFile(path, "DICOM SEG", tuple(_segments(header)), _series(header), _creator(header))
        if kind == RTSTRUCT:
            rois = read_rois(header, path.name)
            outlines = tuple(Outline(roi.number, roi.words) for roi in rois if roi.contours)
            return DrawnFile(path, "RTSTRUCT", outlines, _series(header), _creator(header))
    except InputError:
        raise
    except Exception as error:  # pydicom raises what it likes on damaged files
        raise InputError(f"not readable as DICOM ({type(error).__name__})", fix="export it again") from error
    return None


def masks_of(file: DrawnFile, pet: Volume) -> dict[int, Volume]:
    """Number -> mask (uint8 0/1) on the grid of `pet`. Raises GeometryError when an outline does not lie on it."""
    if file.kind == "DICOM SEG":
        return read_seg(file.path, pet)
    if file.kind == "RTSTRUCT":
        masks = {}
        for roi in read_rois(pydicom.dcmread(file.path), file.path.name):
            where = f"{file.path.name}, ROI {roi.number}"
            if pet.frame_of_reference and roi.frame_of_reference not in (None, pet.frame_of_reference):
                raise GeometryError(f"{where} is in another frame of reference than the PET", fix="draw it on the PET")
            masks[roi.number] = pet.like(fill_contours(roi.contours, pet, where).astype(np.uint8), "label")
        return masks
    whole = on_grid_of(read_nifti(file.path, "label"), pet)
    numbers = (outline.number for outline in file.outlines)
    return {number: pet.like((whole.array == number).astype(np.uint8), "label") for number in numbers}


def _segments(header: Any) -> Iterable[Outline]:
    for item in header.SegmentSequence:
        if int(item.SegmentNumber) == 0:  # the background of a label map
            continue
        words = (str(item.get(keyword) or "") for keyword in ("SegmentLabel", "SegmentDescription", "TrackingID"))
        uid = str(item.get("TrackingUID") or "") or None
        yield Outline(int(item.SegmentNumber), tuple(word for word in words if word), uid)


def _series(header: Any) -> frozenset[str]:
    """Series that the outlines are drawn on: ReferencedSeriesSequence, or deep in an RTSTRUCT's frames of reference."""
    found: set[str] = {str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or ()}
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            found |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or ()}
    return frozenset(found)


def _creator(header: Any) -> str | None:
    names = (str(header.get(keyword) or "").strip() for keyword in ("ContentCreatorName", "OperatorsName"))
    return next((name for name in names if name), None)


def _nifti(path: Path) -> DrawnFile:
    values = [int(value) for value in np.unique(read_nifti(path, "label").array) if value != 0]
    if any(value < 0 for value in values):
        raise InputError("negative values are no labels", fix="save the label map, not the image")
    names = _table(path)
    alone = (_stem(path),) if len(values) == 1 else ()  # the name of the file cannot be that of several
    return DrawnFile(path, "NIfTI", tuple(Outline(value, (*alone, *names.get(value, ()))) for value in values))


def _stem(path: Path) -> str:
    suffix = next(s for s in NIFTI_SUFFIXES if path.name.lower().endswith(s))
    return path.name[: -len(suffix)]


def _table(path: Path) -> dict[int, tuple[str, ...]]:
    """Value -> its line in a label or colour table of the same name beside a label map."""
    for suffix in TABLES:
        beside = path.with_name(_stem(path) + suffix)
        if beside.is_file():
            lines = beside.read_text(encoding="utf-8", errors="replace").splitlines()
            found = (_TABLE_LINE.match(line) for line in lines)
            return {int(match[1]): (match[2],) for match in found if match}
    return {}

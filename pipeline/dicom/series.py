"""What lies in an exam folder: headers read once, planes grouped into series, damaged files named."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom

from petground.labeling.errors import InputError
from petground.pipeline.dicom.elements import Shared
from petground.pipeline.dicom.header import HEADER_TAGS, Slice, number, slice_of, text
from petground.pipeline.dicom.multiframe import MULTIFRAME_CLASSES, frames_of
from petground.pipeline.dicom.origin import Patient, patients_of
from petground.pipeline.dicom.outline import HEAD
from petground.pipeline.dicom.torn import UNIFORM, Torn, torn_parts

__all__ = ["CT_CLASSES", "PET_CLASSES", "Series", "scan"]

PET_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.128",  # PET Image Storage
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
)
CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
)
WANTED = frozenset(int(tag) for tag in HEADER_TAGS)
MODALITIES = ("PT", "CT")


@dataclass(eq=False)
class Series:
    """Planes of one series with one orientation, matrix and meaning; `header` is that of the first file met.

    problem: why an image of the series has no place in the patient, so that the series cannot be used.
    patients: whom its headers name. torn: what tore it from the rest of its series, None for a whole one.
    """

    header: Any
    planes: list[Slice] = field(default_factory=list)
    problem: str | None = None
    patients: set[Patient] = field(default_factory=set)
    torn: Torn | None = None

    @property
    def modality(self) -> str:
        return text(self.header, "Modality") or ""

    @property
    def series_number(self) -> int | None:
        value = number(self.header, "SeriesNumber")
        return None if value is None else int(value)

    @property
    def frame_of_reference(self) -> str | None:
        return text(self.header, "FrameOfReferenceUID")

    @property
    def image_type(self) -> tuple[str, ...]:
        return tuple((text(self.header, "ImageType") or "").upper().split("\\"))

    @property
    def count(self) -> int:
        """How many images it has; one that lies there in two copies is one."""
        return len({plane.identity for plane in self.planes})

    @property
    def title(self) -> str:
        """Its description, or its number."""
        return f"'{text(self.header, 'SeriesDescription') or 'series ' + str(text(self.header, 'SeriesNumber'))}'"

    @property
    def name(self) -> str:
        """For messages: description and number of slices."""
        return f"{self.title} ({self.count} slices)"


def scan(path: Path) -> list[Series]:
    """PET and CT series in a folder at any depth, or of one file; other files and modalities are passed over.

    Raises InputError when nothing is there, and naming the file when a DICOM file cannot be read: it may be a slice.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist", fix="check the exam folder's name", reason="missing")
    groups: dict[tuple[Any, ...], Series] = {}
    problems: dict[str | None, str] = {}
    shared = Shared()
    for file in [path] if path.is_file() else sorted(_files(path)):
        header = _read_header(file, shared)
        if header is None or text(header, "Modality") not in MODALITIES:
            continue
        if text(header, "SOPClassUID") not in PET_CLASSES + CT_CLASSES:
            continue  # a secondary capture or a raw-data object made from a PET or CT
        uid, patient = text(header, "SeriesInstanceUID"), patients_of(header)
        try:
            header, planes = _planes(header, file)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            problems.setdefault(uid, f"{file.name}: {error.args[0] if error.args else error} is missing or unusable")
            groups.setdefault((uid, None), Series(header)).patients.update(patient)
            continue
        for plane in planes:
            key = (uid, *_grid_key(plane), *(text(header, keyword) for keyword in UNIFORM))
            series = groups.setdefault(key, Series(header))
            series.planes.append(plane)
            series.patients.update(patient)
    for key, series in groups.items():
        series.problem = problems.get(key[0])
    _find_torn(groups)
    return list(groups.values())


def _find_torn(groups: Mapping[tuple[Any, ...], Series]) -> None:
    """Marks what is a part of a series only. Another orientation (a scout view) is another stack."""
    stacks: dict[tuple[Any, ...], list[tuple[Any, Series]]] = defaultdict(list)
    for key, series in groups.items():
        if series.planes:
            stacks[key[:7]].append((key[7:], series))
    for parts in stacks.values():
        if len(parts) > 1:
            for (_, series), torn in zip(parts, torn_parts([(k, s.planes) for k, s in parts]), strict=True):
                series.torn = torn


def _grid_key(plane: Slice) -> tuple[Any, ...]:
    orientation = [round(cosine, 3) + 0.0 for cosine in plane.orientation_lps]  # + 0.0: a negative zero is a zero
    spacing = [round(step, 4) for step in plane.spacing_rc_mm]
    return (*orientation, *spacing, plane.rows, plane.columns)


def _planes(header: Any, file: Path) -> tuple[Any, list[Slice]]:
    if text(header, "SOPClassUID") in MULTIFRAME_CLASSES:
        return frames_of(header, file)
    if (number(header, "NumberOfFrames") or 1) > 1:
        raise ValueError("NumberOfFrames")
    return header, [slice_of(header, file)]


def _files(folder: Path) -> Iterator[Path]:
    """Files that may be DICOM. Hidden ones are the file system's (resource forks, indexes)."""
    for file in folder.rglob("*"):
        if file.name.startswith(".") or file.name.upper() == "DICOMDIR" or not file.is_file():
            continue
        yield file


def _read_header(file: Path, shared: Shared) -> Any:
    """Header without pixels, None for a file that is not DICOM. Raises InputError for damaged DICOM."""
    named_dicom = file.suffix.lower() in (".dcm", ".ima", ".dicom")
    try:
        with file.open("rb") as stream:
            start = stream.read(HEAD)
        if start[128:132] != b"DICM" and not named_dicom:
            return None
        known = shared.quick(start, WANTED)
        if known is not None:
            return known
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with file.open("rb") as stream:
                header: Any = pydicom.dcmread(
                    stream, stop_before_pixels=True, specific_tags=HEADER_TAGS, force=start[128:132] != b"DICM"
                )
                # Values are decoded when first asked for: they are, now, under this guard.
                if header.get("SOPClassUID") in MULTIFRAME_CLASSES:
                    header.walk(lambda data, element: None)
                else:
                    header = shared.plain(header, stream)
                    shared.learn(start, WANTED, header)
            modality = header.get("Modality")
    except PermissionError as error:
        raise InputError(f"{file} may not be read", fix="grant read access", reason="unreadable") from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes pydicom raises what it likes; its message may quote the header
        raise _unreadable(file, f"{type(error).__name__} while reading the header") from error
    if modality is None and header.file_meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage:
        return None
    if modality is None or header.get("SOPClassUID") is None or header.get("SeriesInstanceUID") is None:
        raise _unreadable(file, "the header breaks off or lacks Modality, SOPClassUID or SeriesInstanceUID")
    return header


def _unreadable(file: Path, why: str) -> InputError:
    return InputError(
        f"{file.name} is not readable as DICOM: {why}",
        fix=f"copy it anew or take it out of {file.parent.name}",
        reason="unreadable",
    )

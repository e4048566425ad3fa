"""The images of one exam, in a worker: every file read, judged, changed and written under names that tell nothing."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.errors import InvalidDicomError

from petground.labeling.errors import InputError
from petground.pipeline.deid.burned_in import holds_text, left_out, suspect
from petground.pipeline.deid.dicom import Removed, Subject, deidentify_dataset, lenient
from petground.pipeline.deid.keys import keyed_id
from petground.pipeline.nifti import NIFTI_SUFFIXES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Images", "dicom_files", "write_images"]

NAMED_DICOM = (".dcm", ".ima", ".dicom")
NIFTI_NAMES = ("pet", "ct", "organs")
FRAMES_SEARCHED = 3  # of a suspect file: first, middle, last


@dataclass
class Images:
    """What came of an exam's files: changes by attribute, files left out by reason, files written by modality."""

    changed: Counter[Removed] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)


def dicom_files(folder: Path) -> Iterator[tuple[int, Path, bool]]:
    """Files of a folder in name order with their number from 1, and whether each looks like DICOM.

    Names are not for messages: an export may have put the patient's into them.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for number, file in enumerate(files, start=1):
        with file.open("rb") as stream:
            start = stream.read(132)
        looks = start[128:] == b"DICM" or file.suffix.lower() in NAMED_DICOM
        yield number, file, looks and file.name.upper() != "DICOMDIR"


def write_images(source: Path, folder: Path, subject: Subject) -> Images:
    """Writes the de-identified images of `source` into `folder`, DICOM and NIfTI.

    Raises InputError (reason
    "unreadable") when a file cannot be read: without it a series would have a hole; (reason "several_patients") when
    the files are of several people.
    """
    images, people = Images(), set()
    with lenient():
        for number, file, looks in dicom_files(source):
            if not looks:
                _other(file, folder, images)
                continue
            dataset = _read(file, number)
            reason = "index" if str(dataset.get("SOPClassUID", "")).endswith("1.3.10") else None
            reason = reason or left_out(dataset, subject.profile) or _written_on(dataset, subject)
            if reason is not None:
                images.left[reason] += 1
                continue
            people.add(" ".join(str(dataset.get("PatientID", "")).split()).casefold())
            if len(people - {""}) > 1:
                raise InputError(
                    "its files have several patient ids", fix="one exam per folder", reason="several_patients"
                )
            images.changed += deidentify_dataset(dataset, subject)
            _write(dataset, folder, subject)
            images.written[str(dataset.get("Modality", "?"))] += 1
    return images


def _read(file: Path, number: int) -> Dataset:
    try:
        dataset = pydicom.dcmread(file, force=True)
        if dataset.get("SOPClassUID") is None or dataset.get("SOPInstanceUID") is None:
            if dataset.get("DirectoryRecordSequence") is not None:
                dataset.SOPClassUID = "1.2.840.10008.1.3.10"
                return dataset
            raise InvalidDicomError
        if dataset.get("SeriesInstanceUID") is None or dataset.get("Modality") is None:
            raise InvalidDicomError
    except MemoryError:
        raise
    except Exception:  # damaged files make pydicom raise what it likes, some with content in the message
        raise InputError(
            f"file {number} in the order of names is not readable as DICOM",
            fix="copy it anew or take it out of the exam's folder",
            reason="unreadable",
        ) from None
    return dataset


def _written_on(dataset: Dataset, subject: Subject) -> str | None:
    """Looks for text in the pixels of images that software has drawn."""
    if not subject.profile.look_for_text or not suspect(dataset):
        return None
    try:
        pixels = dataset.pixel_array
    except MemoryError:
        raise
    except Exception:  # decoders raise what they like
        return "undecodable_derived_image"
    frames = [pixels] if pixels.ndim == 2 else [pixels[i] for i in sorted({0, len(pixels) // 2, len(pixels) - 1})]
    return "text_in_pixels" if any(holds_text(frame) for frame in frames) else None


def _write(dataset: Dataset, folder: Path, subject: Subject) -> None:
    """modality-series/object.dcm, named by what the new UIDs are."""
    series = keyed_id(subject.key, str(dataset.SeriesInstanceUID), prefix=f"{_plain(dataset.get('Modality'))}-")
    name = keyed_id(subject.key, str(dataset.SOPInstanceUID))
    place, copy = folder / series / f"{name}.dcm", 1
    while place.exists():  # the same object twice: readers must see that, as in the original
        copy += 1
        place = folder / series / f"{name}-{copy}.dcm"
    place.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(place, enforce_file_format=True)


def _plain(modality: Any) -> str:
    text = str(modality or "")
    return text if text.isalnum() and len(text) <= 16 else "OT"


def _other(file: Path, folder: Path, images: Images) -> None:
    """pet, ct and organs as NIfTI leave without header texts and extensions; nothing else that is not DICOM does."""
    for suffix in NIFTI_SUFFIXES:
        stem = file.name.removesuffix(suffix)
        if file.name.endswith(suffix) and stem in NIFTI_NAMES:
            place = folder / f"{stem}.nii.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            _clean_nifti(file, place)
            images.written["NIfTI"] += 1
            images.changed[Removed("NIfTI header texts and extensions", "removed")] += 1
            return
    images.left["other_file"] += 1


def _clean_nifti(file: Path, place: Path) -> None:
    """The same voxels and geometry; descriptions blank, no extensions; no file name or time in the gzip header."""
    import nibabel as nib

    try:
        image = nib.load(file)
        header = image.header.copy()
        for name in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
            if name in header:
                header[name] = b""
        extensions = getattr(header, "extensions", None)
        if extensions is not None:
            del extensions[:]
        content = image.__class__(image.dataobj.get_unscaled(), image.affine, header)
        content.header.set_slope_inter(image.dataobj.slope, image.dataobj.inter)
        raw = content.to_bytes()
    except MemoryError:
        raise
    except Exception:
        raise InputError("an image is not readable as NIfTI", fix="copy it anew", reason="unreadable") from None
    with place.open("wb") as stream, gzip.GzipFile("", "wb", fileobj=stream, mtime=0, compresslevel=6) as packed:
        packed.write(raw)

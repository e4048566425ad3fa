"""DICOM objects to a server by STOW-RS, and the proof that they arrived."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from petground.labeling.errors import InputError
from petground.pipeline.sources.web import Server, attempt, connect, first

__all__ = ["Sendable", "find_objects", "send_objects"]

Sendable = tuple[Path, str, str, str]
"""File, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID."""

OURS = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.88.",  # Structured Reports
    "1.2.840.10008.5.1.4.1.1.67",  # Real World Value Mapping
)
_TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
AT_ONCE = 32_000_000  # bytes of files in one request


def find_objects(path: Path, *, images: bool = False) -> list[Sendable]:
    """SEG, SR and value maps in a folder at any depth, or one file; with `images` every DICOM file.

    Raises InputError when there is none.
    """
    if not path.exists():
        raise InputError(
            f"nothing at {path}", fix="give a folder that `petground review export` wrote, or a DICOM file"
        )
    found = []
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file.name.startswith("."):
            continue
        try:
            header = pydicom.dcmread(
                file,
                stop_before_pixels=True,
                specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"],
            )
            kind, *uids = (str(header[tag].value) for tag in ("SOPClassUID", *_TAGS))
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError):
            continue
        if images or kind.startswith(OURS):
            found.append((file, uids[0], uids[1], uids[2]))
    if not found:
        raise InputError(f"no SEG, SR or value map in {path}", fix="--images sends other DICOM files too")
    return found


def send_objects(where: Server, objects: Sequence[Sendable]) -> Iterator[tuple[Path, str | None]]:
    """Stores each object and asks the server for it afterwards; yields (file, why it is not there or None).

    Raises InputError when the server cannot be reached or does not let us in.
    """
    client, stop = connect(where), threading.Event()
    studies: dict[str, list[Sendable]] = defaultdict(list)
    for item in objects:
        studies[item[1]].append(item)
    for study, items in studies.items():
        for batch in _batches(items):
            refused = _store(where, client, stop, study, batch)
            for file, _, series, uid in batch:
                yield file, refused.get(uid) or _missing(where, client, stop, (study, series, uid))


def _batches(items: Sequence[Sendable]) -> Iterator[list[Sendable]]:
    batch: list[Sendable] = []
    size = 0
    for item in items:
        weight = item[0].stat().st_size
        if batch and size + weight > AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += weight
    if batch:
        yield batch


def _store(where: Server, client: Any, stop: threading.Event, study: str, batch: Sequence[Sendable]) -> dict[str, str]:
    """One request; returns why objects were refused, by SOPInstanceUID (PS3.18 10.5.3, PS3.3 C.12.1.1.17)."""
    try:
        datasets = [pydicom.dcmread(item[0]) for item in batch]
        answer = attempt(where, stop, lambda: client.store_instances(datasets, study_instance_uid=study))
    except InputError as error:
        if error.reason in ("unreachable", "not_allowed"):
            raise
        return {item[3]: error.message for item in batch}
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}  # an answer that cannot be read: whether they are there is asked next
    refused = {}
    for item in answer.get("FailedSOPSequence") or []:
        reason = item.get("FailureReason")
        code = f" (reason {int(reason):#06x})" if isinstance(reason, int) else ""
        refused[str(item.get("ReferencedSOPInstanceUID"))] = f"the server refused it{code}"
    return refused


def _missing(where: Server, client: Any, stop: threading.Event, uids: tuple[str, str, str]) -> str | None:
    study, series, uid = uids
    try:
        found = attempt(
            where, stop, lambda: client.search_for_instances(study, series, search_filters={"SOPInstanceUID": uid})
        )
    except InputError as error:
        if error.reason != "server_error":
            raise
        found = []
    except (ValueError, KeyError, AttributeError, TypeError):
        found = []
    return None if any(first(item, "00080018") == uid for item in found) else "it is not on the server afterwards"

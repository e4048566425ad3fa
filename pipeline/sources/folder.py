"""A folder of FHIR and HL7 files, or one such file, by what it holds."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from petground.labeling.errors import InputError
from petground.pipeline.sources import fhir, hl7
from petground.pipeline.sources.rows import Row, source_files

__all__ = ["kind_of", "read_source"]

_HL7_START = re.compile(rb"[\x0b\s]*(?:\xef\xbb\xbf)?(?:MSH|FHS|BHS)[^\w\s]")
_WIDE = (b"\xff\xfe", b"\xfe\xff")


def kind_of(file: Path) -> Literal["fhir", "hl7"] | None:
    """By what the file starts with; FHIR only where its name says JSON and a resourceType is near the start."""
    try:
        with file.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(file, "rb") if packed else file.open("rb") as stream:
            start = stream.read(4096)
    except (OSError, EOFError, zlib.error):
        start = b""
    if start.startswith(_WIDE):
        start = start[: len(start) & ~1].decode("utf-16", "replace").encode()
    if _HL7_START.match(start):
        return "hl7"
    return "fhir" if file.name.lower().endswith(fhir.SUFFIXES) and b'"resourceType"' in start else None


def read_source(
    path: Path, *, exam_id: str | None = None, procedure: str | None = None, preliminary: bool = False
) -> Iterator[Row]:
    """Reports of a FHIR or HL7 file, or of a folder of both; a folder is read as one export, so that resources find
    each other across its files and only the last edition of a report counts.

    exam_id: for FHIR as `read_fhir` takes it, for HL7 one or several places apart by commas ("OBR-18,OBR-3").
    Raises InputError when nothing there is a report, else as `read_fhir` and `read_hl7`.
    """
    files = source_files(path, fhir.SUFFIXES + hl7.SUFFIXES)
    kinds = {kind_of(file) for file in files}
    if not kinds & {"fhir", "hl7"}:
        raise InputError(f"{path.name} holds no FHIR resources and no HL7 messages", fix="check the export")
    if "fhir" in kinds:
        rule = exam_id or "accession"
        yield from fhir.read_fhir(path, exam_id=rule, procedure=procedure, preliminary=preliminary)
    if "hl7" in kinds:
        places = exam_id.split(",") if exam_id else hl7.ACCESSION
        yield from hl7.read_hl7(path, accession=places, procedure=procedure, preliminary=preliminary)

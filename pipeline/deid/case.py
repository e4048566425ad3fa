"""One exam, in a worker: its row and its images without identity, what was done counted, nothing of it quoted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom

from petground.labeling.errors import InputError
from petground.labeling.extract import extract_findings
from petground.pipeline.dates import iso_date
from petground.pipeline.deid.dates import date_spans, shift_dicom_date
from petground.pipeline.deid.dicom import Subject
from petground.pipeline.deid.identity import Identity
from petground.pipeline.deid.images import dicom_files, write_images
from petground.pipeline.deid.keys import days_shift, keyed_id, keyed_uid, read_key
from petground.pipeline.deid.known import Headers, identity_of, read_headers
from petground.pipeline.deid.profile import Profile
from petground.pipeline.deid.spans import merged
from petground.pipeline.deid.text import Cleaned, clean_text
from petground.pipeline.stage import content_hash, folder_hash, run_stage

__all__ = ["CODE", "COLUMNS", "clean_row", "exam_case", "exam_of", "patient_of"]

CODE = ("petground.pipeline.deid", "petground.pipeline.stage")
COLUMNS = ("exam_id", "report_text", "patient_id", "tracer", "study_date", "scanner")
ROW_STATE, IMAGE_STATE = "state", "exams"


def exam_of(key: bytes, exam_id: str) -> str:
    """The new id of an exam."""
    return keyed_id(key, exam_id.strip(), prefix="e")


def patient_of(row: Mapping[str, Any], headers: Headers, exam_id: str) -> str:
    """Who the exam is of: the export's patient id, else that of the headers when they agree, else the exam alone."""
    told = " ".join(str(row.get("patient_id") or "").split()).casefold()
    found = {" ".join(p.split()).casefold() for p in headers.patients}
    return told or (found.pop() if len(found) == 1 else "") or f"exam {exam_id}"


def clean_row(
    row: Mapping[str, Any], headers: Headers, exam_id: str, key: bytes, profile: Profile
) -> tuple[dict[str, str | None], Cleaned, Identity]:
    """The row that may leave, what was replaced in its report, and what was looked for."""
    identity = identity_of(row, headers, profile)
    patient = patient_of(row, headers, exam_id)
    days = days_shift(key, patient)
    studied = iso_date(str(row.get("study_date") or ""))
    year = int(studied[:4]) if studied else headers.year
    cleaned = clean_text(str(row["report_text"]), identity, days=days, order=profile.date_order, year=year)
    date = str(row.get("study_date") or "").strip()
    tracer, scanner = str(row.get("tracer") or "").strip(), str(row.get("scanner") or "").strip()
    new = {
        "exam_id": exam_of(key, exam_id),
        "report_text": cleaned.text,
        "patient_id": keyed_id(key, patient, prefix="p"),
        "tracer": clean_text(tracer, identity).text if tracer else None,
        "study_date": _moved(date, days, profile) if date else None,
        "scanner": keyed_id(key, scanner, prefix="s") if scanner else None,
    }
    return new, cleaned, identity


def _moved(date: str, days: int, profile: Profile) -> str | None:
    """The study date, as ISO where it was one or a DICOM date; another form as it was; None for what is no date."""
    iso = iso_date(date)
    if iso is not None:
        moved = shift_dicom_date(iso.replace("-", ""), days)
        return f"{moved[:4]}-{moved[4:6]}-{moved[6:]}" if moved else None
    spans = merged(date_spans(date, days, order=profile.date_order))
    whole = len(spans) == 1 and not spans[0].new.startswith("[")
    return spans[0].new if whole else None


def exam_case(
    source: Path | None,
    out: Path,
    exam_id: str,
    row: Mapping[str, Any],
    keyfile: Path,
    profile: Profile,
    code: str,
    mapping: bool = False,
) -> dict[str, Any]:
    """Cleans one exam; writes out/state/<new id>/stage.json and the images to out/exams/<new id>.

    source: folder of its images; None when the reports are cleaned alone.

    Returns the cleaned row, counts of what was done, and `failed`: None or (reason, detail) of the images. With
    `mapping` also old and new ids, which are kept nowhere else.
    """
    key = read_key(keyfile)
    new_id = exam_of(key, exam_id)
    listing = folder_hash(source, listing_only=True)["listing"] if source and _filled(source) else None
    stage = _key(key, [code, profile.mapping(), sorted(row.items(), key=str), listing])
    known: list[Headers] = []

    def headers() -> Headers:
        if not known:
            known.append(read_headers(source) if source and listing else Headers())
        return known[0]

    def clean(part: Path) -> dict[str, Any]:
        new, cleaned, _ = clean_row(row, headers(), exam_id, key, profile)
        counts = Counter((span.kind, span.rule) for span in cleaned.spans)
        return {
            "row": new,
            "text": [[kind, rule, count] for (kind, rule), count in sorted(counts.items())],
            "unread": list(headers().unread),
            "reads_same": _findings(str(row["report_text"])) == _findings(cleaned.text),
        }

    def write(part: Path) -> dict[str, Any]:
        assert source is not None
        days = days_shift(key, patient_of(row, headers(), exam_id))
        identity = identity_of(row, headers(), profile)
        images = write_images(source, part, Subject(key, result["row"]["patient_id"], days, identity, profile))
        return {
            "changed": [[*removed, count] for removed, count in sorted(images.changed.items())],
            "left": dict(sorted(images.left.items())),
            "written": dict(sorted(images.written.items())),
        }

    value, _ = run_stage(out / ROW_STATE / new_id, stage, clean)
    result: dict[str, Any] = {**value, "images": None, "failed": None, "mapping": []}
    if mapping:
        result["mapping"] = _mapping(source, exam_id, patient_of(row, headers(), exam_id), key)
    if source is None:
        return result
    if listing is None:
        return {**result, "failed": ("no_exam", "no folder of this exam among the exams, or an empty one")}
    try:
        result["images"], _ = run_stage(out / IMAGE_STATE / new_id, stage, write)
    except InputError as error:
        return {**result, "failed": (error.reason, error.message)}
    return result


def _findings(text: str) -> list[tuple[Any, ...]]:
    """What `petground label` will read: it must be the same before and after."""
    return [(f.suv, f.slice, f.laterality, f.status, f.reason) for f in extract_findings(text)]


def _filled(source: Path) -> bool:
    return source.is_dir() and any(p.is_file() for p in source.rglob("*"))


def _mapping(source: Path | None, exam_id: str, patient: str, key: bytes) -> list[tuple[str, str, str]]:
    """Kind, old and new: exam, patient, studies and series."""
    found: dict[tuple[str, str], str] = {
        ("exam", exam_id): exam_of(key, exam_id),
        ("patient", patient): keyed_id(key, patient, prefix="p"),
    }
    tags: list[Any] = ["StudyInstanceUID", "SeriesInstanceUID"]
    for _, file, looks in dicom_files(source) if source and source.is_dir() else ():
        if looks:
            header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=tags)
            for tag in tags:
                uid = str(header.get(tag, ""))
                if uid:
                    found[tag.removesuffix("InstanceUID").lower(), uid] = keyed_uid(key, uid)
    return [(*pair, new) for pair, new in found.items()]


def _key(key: bytes, value: Any) -> str:
    """A stage's key, keyed: a plain digest would let anyone with the originals prove whose exam it is."""
    return keyed_id(key, content_hash(value), prefix="k")

"""DiagnosticReports of a FHIR export (R4, R4B, R5; DSTU2 and STU3 as far as they agree) to rows of a report table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from petground.labeling.errors import InputError
from petground.pipeline.sources import rows
from petground.pipeline.sources.fhir_store import (
    SUFFIXES,
    Broken,
    Resource,
    Store,
    items,
    readable,
    records,
    references,
    resources,
    word,
)
from petground.pipeline.sources.fhir_text import report_text
from petground.pipeline.sources.richtext import Unreadable
from petground.pipeline.sources.rows import Row, Version, instant, iso_date
from petground.pipeline.tracers import tracer_of

__all__ = ["SUFFIXES", "read_fhir"]

# http://hl7.org/fhir/R5/valueset-diagnostic-report-status.html
_UNFINISHED = frozenset(["registered", "partial", "preliminary", "unknown"])
_WITHDRAWN = frozenset(["entered-in-error", "cancelled"])
_AMENDING = frozenset(["amended", "corrected", "appended", "modified"])
_FINAL = _AMENDING | {"final"}


@dataclass(frozen=True)
class _Held:
    """A report with what it was found in."""

    report: Resource
    document: Resource | None
    place: int


def read_fhir(
    path: Path,
    *,
    exam_id: str = "accession",
    procedure: str | None = None,
    preliminary: bool = False,
) -> Iterator[Row]:
    """The DiagnosticReports of a file or folder; the last edition of each, unusable ones with their problem.

    exam_id: "accession" takes the identifier of type ACSN of the report, its order or its imaging study, else the
    filler number, the only identifier, the study's UID, the resource id, whichever is first there; "id" the resource
    id; anything else is the system or the type code of the identifier to take, and no other is taken then.
    procedure: regular expression on code and category; other procedures become rows with the problem
    `other_procedure`. preliminary: take reports that nobody has signed.

    What a report refers to (Binary, Observation, Patient, ImagingStudy, ServiceRequest) is looked up in all files of
    the folder. Raises InputError when a file cannot be read, or holds neither a DiagnosticReport nor a reason why.
    """
    wanted = rows.pattern(procedure)
    files = rows.source_files(Path(path), SUFFIXES)
    held: list[_Held] = []
    broken: list[Row] = []
    links: set[str] = set()
    others = 0
    for file in files:
        for item in readable(file) if len(files) > 1 else resources(file):
            if isinstance(item, Broken):
                broken.append(rows.failed("unreadable", f"{item.where} {item.why}"))
                continue
            if item.resource["resourceType"] != "DiagnosticReport":
                others += 1
                continue
            held.append(_Held(item.resource, _document(item.bundle), len(held)))
            links.update(references(item.resource))
    if not held and (others or not broken or len(files) == 1):
        why = broken[0]["problem_detail"] if broken and not others else f"{Path(path).name} holds no DiagnosticReport"
        raise InputError(str(why), fix="export DiagnosticReport resources as JSON or NDJSON")
    store = Store()
    store.collect(files, links)
    editions = []
    held.reverse()
    while held:  # popped, so that an export is not in memory twice
        editions.append(_edition(held.pop(), store, exam_id, wanted, preliminary))
    yield from rows.latest(_attributed(editions))
    yield from broken


def _attributed(editions: list[Version]) -> Iterator[Version]:
    """A deletion names the resource and not the exam: it goes to the one exam whose report had that id."""
    exams: dict[str, set[str | None]] = {}
    for edition in editions:
        if edition.key[0] == "id":
            exams.setdefault(edition.key[1], set()).add(edition.row["exam_id"])
    for edition in editions:
        name = edition.key[1] if edition.key[0] == "id" else None
        others = exams.get(name, set()) - {name} if name is not None else set()
        if len(others) == 1 and edition.row["exam_id"] == name:
            exam_id = others.pop()
            edition.row["exam_id"] = exam_id
            edition = replace(edition, key=(*edition.key[:2], str(exam_id)))
        yield edition


def _document(bundle: Resource | None) -> Resource | None:
    """The Composition of a document Bundle that is about one report, else None."""
    if bundle is None or bundle.get("type") != "document":
        return None
    inside = [items(entry.get("resource")) for entry in records(bundle.get("entry"))]
    kinds = [resource.get("resourceType") for resource in inside]
    one = kinds.count("DiagnosticReport") == 1 and kinds.count("Composition") == 1
    return inside[kinds.index("Composition")] if one else None


def _edition(held: _Held, store: Store, rule: str, wanted: re.Pattern[str] | None, preliminary: bool) -> Version:
    report = held.report
    status = word(report.get("status"))
    studies = [store.get(ref, report) for name in ("imagingStudy", "study") for ref in records(report.get(name))]
    name = _names(report)
    problem: tuple[str, str] | None = None
    text = None
    if status in _WITHDRAWN:
        problem = (rows.WITHDRAWN, f"status is {status}")
    elif status in _UNFINISHED and not preliminary:
        problem = (rows.NOT_FINAL, f"status is {status}; --preliminary takes it")
    elif status is not None and status not in _FINAL | _UNFINISHED:
        problem = ("unreadable", "status is none that FHIR knows")
    elif wanted is not None and not wanted.search(name):
        problem = (rows.OTHER, "code and category do not fit the procedure filter")
    else:
        try:
            text = report_text(report, store, held.document)
        except Unreadable as error:
            problem = error.problem
    row = rows.report_row(
        _exam_id(report, store, studies, rule),
        text,
        patient_id=_patient_id(report, store),
        tracer=tracer_of(name),
        study_date=_study_date(report, studies),
        problem=problem,
    )
    meta = items(report.get("meta"))
    issued = instant(word(report.get("issued")))
    version = word(meta.get("versionId")) or ""
    order = (
        0.0 if status in _UNFINISHED else 1.0,
        instant(word(meta.get("lastUpdated"))),
        issued,
        float(version) if version.isascii() and version.isdigit() and len(version) < 15 else 0.0,
        float(held.place),
    )
    key = _identity(report, row["exam_id"], held.place)
    return Version(key, order, row, amends=status in _AMENDING, about=name, issued=issued)


def _identity(report: Resource, exam_id: str | None, place: int) -> tuple[str, ...]:
    """What stays the same from edition to edition: the resource id, else the report's identifiers.

    The exam counts too: exports of one file per report may call every resource "1".
    """
    if word(report.get("id")):
        return ("id", report["id"], str(exam_id))
    marks = sorted(f"{word(i.get('system'))}|{word(i.get('value'))}" for i in records(report.get("identifier")))
    return ("identifier", *marks, _names(report)) if marks else ("place", str(place))


def _exam_id(report: Resource, store: Store, studies: list[Resource], rule: str) -> str | None:
    if rule == "id":
        return word(report.get("id"))
    own = records(report.get("identifier"))
    orders = [reference for holder in (report, *studies) for reference in records(holder.get("basedOn"))]
    found = list(own)
    for reference in orders:
        found += records(reference.get("identifier"))  # a logical reference
        found += records(store.get(reference, report).get("identifier"))
    for name in ("imagingStudy", "study"):
        for reference in records(report.get(name)):
            found += records(reference.get("identifier"))
    for study in studies:
        found += records(study.get("identifier")) + records(study.get("accession"))
    if rule != "accession":
        return next((v for i in found if _is(i, rule) and (v := word(i.get("value")))), None)
    accession = next((v for i in found if _is_accession(i) and (v := word(i.get("value")))), None)
    filler = next((v for i in found if _is(i, "FILL") and (v := word(i.get("value")))), None)
    only = word(own[0].get("value")) if len(own) == 1 else None
    uid = next((v for i in found if _is(i, "urn:dicom:uid") and (v := word(i.get("value")))), None)
    return accession or filler or only or (uid and uid.removeprefix("urn:oid:")) or word(report.get("id"))


def _is(identifier: Resource, rule: str) -> bool:
    codes = [word(coding.get("code")) for coding in records(items(identifier.get("type")).get("coding"))]
    return identifier.get("system") == rule or rule in codes


def _is_accession(identifier: Resource) -> bool:
    """By type code, or by a name that says so where the code is missing."""
    kind = items(identifier.get("type"))
    shown = [word(coding.get("display")) for coding in records(kind.get("coding"))]
    names = " ".join(filter(None, [word(kind.get("text")), word(identifier.get("system")), *shown]))
    return _is(identifier, "ACSN") or "accession" in names.lower()


def _patient_id(report: Resource, store: Store) -> str | None:
    """The medical record number (type MR), else the patient's first identifier, else the resource id."""
    subject = items(report.get("subject"))
    patient = store.get(subject, report)
    found = records(subject.get("identifier")) + records(patient.get("identifier"))
    marked = [i for i in found if _is(i, "MR")]
    value = next((v for i in marked + found if (v := word(i.get("value")))), None)
    return value or (word(subject.get("reference")) or "").rpartition("/")[2].removeprefix("#") or None


def _study_date(report: Resource, studies: list[Resource]) -> str | None:
    """When the exam was made: effective[x], else the imaging study's start. `issued` is when it was read."""
    period = items(report.get("effectivePeriod"))
    stamps = [report.get("effectiveDateTime"), period.get("start"), *(study.get("started") for study in studies)]
    return next((day for stamp in stamps if (day := iso_date(word(stamp)))), None)


def _names(report: Resource) -> str:
    """Words by which the procedure is called: code, its codings, categories."""
    found = []
    for concept in records(report.get("code")) + records(report.get("category")):
        found.append(word(concept.get("text")))
        for coding in records(concept.get("coding")):
            found += [word(coding.get("code")), word(coding.get("display"))]
    return " ".join(filter(None, found))

"""Radiology results out of HL7 v2: ORU messages, one or many in a file, to rows of a report table.

Fields are those of HL7 2.5.1, chapters 4 (OBR, ORC), 3 (PID) and 7 (OBX); they hold for 2.1 to 2.9. The separators,
the header segments and their repetitions are read by `hl7`; the text of OBX-5 by `hl7_text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hl7

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.sources import rows
from petground.pipeline.sources.hl7_text import Observation, decoded, report_text, unescaped
from petground.pipeline.sources.hl7_wire import messages
from petground.pipeline.sources.richtext import Unreadable
from petground.pipeline.sources.rows import Row, Version, instant, iso_date
from petground.pipeline.tracers import tracer_of

__all__ = ["ACCESSION", "SUFFIXES", "read_hl7"]

SUFFIXES = (".hl7", ".oru", ".hl7.gz", ".oru.gz", ".txt")
ACCESSION = ("OBR-3", "ORC-3", "OBR-18")
"""Filler order number first, which is the accession number at most sites; OBR-18 is where IHE puts it."""

_Place = tuple[str, int, int]  # segment, field, component
_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-(\d{1,3})(?:\.(\d{1,2}))?")
# HL7 tables 0123 (OBR-25) and 0085 (OBX-11).
_WITHDRAWN = frozenset("X")
_UNFINISHED = frozenset("OISARP") | {"Y", "Z"}
_LEFT_OUT = frozenset("DWXNOI")  # deleted, wrong, cannot be obtained, not asked, order detail, specimen in the lab
_PROVISIONAL = frozenset("PRS")
_SIGNED = frozenset("FCU")


@dataclass
class _Order:
    """One OBR with what belongs to it."""

    segments: dict[str, Any]
    exam_id: str | None = None
    observations: list[Observation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_hl7(
    path: Path,
    *,
    accession: Sequence[str] = ACCESSION,
    procedure: str | None = None,
    preliminary: bool = False,
) -> Iterator[Row]:
    """The reports in a file or folder of ORU messages; the last edition of each, unusable ones with their problem.

    accession: where the exam_id stands, the first that is filled: segment-field[.component], e.g. "OBR-18" or
    "ZDS-1.1". procedure: regular expression on OBR-4; other procedures become rows with the problem
    `other_procedure`. preliminary: take reports that nobody has signed. Raises InputError when there is no ORU message
    at all or a file cannot be read, ConfigError for a place or expression that is none.
    """
    places = [_place(word) for word in accession]
    wanted = rows.pattern(procedure)
    files = rows.source_files(Path(path), SUFFIXES)
    state = {"reports": 0}

    def editions() -> Iterator[Version]:
        number = 0
        for file in files:
            for count, segments in enumerate(messages(file), start=1):
                number += 1
                if isinstance(segments, InputError):  # the file breaks off, or cannot be opened
                    if len(files) == 1:
                        raise segments
                    state["reports"] += 1
                    yield Version(("", str(number)), (0.0,), rows.failed("unreadable", segments.message))
                    continue
                try:
                    orders = _merged(_read(segments, places), places)
                    read = [_edition(order, wanted, preliminary, (number, n)) for n, order in enumerate(orders)]
                except (hl7.HL7Exception, ValueError, IndexError, KeyError, TypeError, AttributeError):
                    # What the parser says would quote the message.
                    why = f"{file.name}, message {count} is not valid HL7 v2"
                    read = [Version(("", str(number)), (0.0,), rows.failed("unreadable", why))]
                state["reports"] += len(read)
                yield from read

    yield from rows.latest(editions())
    if not state["reports"]:
        raise InputError(f"{path} holds no HL7 v2 ORU message", fix="expected are messages that start with MSH")


def _place(word: str) -> _Place:
    found = _PLACE.fullmatch(word.strip().upper())
    if not found:
        raise ConfigError(f"'{word}' is no place in an HL7 message", fix="segment-field, e.g. OBR-3 or OBR-18.1")
    return found.group(1), int(found.group(2)), int(found.group(3) or 1)


def _merged(orders: Sequence[_Order], places: Sequence[_Place]) -> list[_Order]:
    """Orders of one message that share an accession number are one report: a PET/CT is often billed as two."""
    kept: dict[str, _Order] = {}
    alone = []
    for order in orders:
        order.exam_id = next((found for place in places if (found := _component(order.segments, *place))), None)
        first = kept.setdefault(order.exam_id, order) if order.exam_id else order
        if order.exam_id is None:
            alone.append(order)
        elif first is not order:
            first.observations += [item for item in order.observations if item not in first.observations]
            first.notes += [note for note in order.notes if note not in first.notes]
    return [*kept.values(), *alone]


def _read(raw: list[bytes], places: Sequence[_Place]) -> list[_Order]:
    """A message's orders; empty for messages other than ORU."""
    lines, charset = decoded(raw)
    separator, marks = lines[0][3], lines[0][4:].partition(lines[0][3])[0]
    if not 2 <= len(marks) <= 5 or len({separator, *marks}) <= len(marks) or any(mark.isalnum() for mark in marks):
        raise ValueError("MSH-2")  # the parser below takes any characters for separators
    kept = {"MSH", "PID", "ORC", "OBR", *(segment for segment, _, _ in places)} - {"OBX", "NTE"}
    parsed = hl7.parse("\r".join(line for line in lines if line[:3] in kept))
    header = parsed[0]
    if (_pieces(header, 9) or [[""]])[0][0].upper() != "ORU":
        return []
    heads = iter(parsed)
    patient: dict[str, Any] = {}
    before: dict[str, Any] = {}
    orders: list[_Order] = []
    last = ""
    for line in lines:
        name = line[:3]
        segment = next(heads) if name in kept else None
        if name == "MSH":
            patient = {"MSH": segment}
        elif name == "PID":
            patient, before = {"MSH": header, "PID": segment}, {}
        elif name == "OBR":
            orders.append(_Order({**patient, **before, "OBR": segment}))
            before = {}
        elif segment is not None and name == "ORC":
            before[name] = segment
        elif segment is not None:  # a segment of the site's own: it belongs to the message, before or after its OBR
            for holder in [patient, *(order.segments for order in orders)]:
                holder.setdefault(name, segment)
        elif name == "OBX" and orders:
            orders[-1].observations.append(Observation.of(line.split(separator), separator, marks, charset))
        elif name == "NTE" and orders:
            text = (line.split(separator) + [""] * 4)[3]
            note = unescaped(text, separator, marks, charset)
            if last in ("OBX", "NTE-OBX"):
                orders[-1].observations.append(Observation.note(note))
                name = "NTE-OBX"
            else:
                orders[-1].notes.append(note)
        last = name
    return orders


def _edition(order: _Order, wanted: re.Pattern[str] | None, preliminary: bool, number: tuple[int, int]) -> Version:
    """number: of the message in all, and of the report in the message."""
    name = " ".join(part for piece in _pieces(order.segments["OBR"], 4)[:1] for part in piece if part)
    problem, text = None, None
    status = (_component(order.segments, "OBR", 25, 1) or "").upper()
    used = [item for item in order.observations if item.status not in _LEFT_OUT]
    signed = bool(used) and all(item.status in _SIGNED for item in used)
    provisional = (status in _UNFINISHED and not signed) or (
        not status and bool(used) and all(item.status in _PROVISIONAL for item in used)
    )
    withdrawn = status in _WITHDRAWN or (bool(order.observations) and not used)
    if withdrawn:
        problem = (rows.WITHDRAWN, "the result was cancelled or deleted (OBR-25, OBX-11)")
    elif provisional and not preliminary:
        problem = (rows.NOT_FINAL, f"the result is not final (OBR-25 '{status[:1]}', OBX-11); --preliminary takes it")
    elif wanted is not None and not wanted.search(name):
        problem = (rows.OTHER, "OBR-4 does not fit the procedure filter")
    else:
        try:
            text = report_text(used, order.notes)
        except Unreadable as error:
            problem = error.problem
    row = rows.report_row(
        order.exam_id,
        text,
        patient_id=_patient_id(order.segments.get("PID")),
        tracer=tracer_of(name),
        study_date=iso_date(_component(order.segments, "OBR", 7, 1)),
        problem=problem,
    )
    # Of messages sent again from an archive, MSH-7 only says when they were sent again.
    when = instant(_component(order.segments, "OBR", 22, 1) or _component(order.segments, "MSH", 7, 1))
    code = _component(order.segments, "OBR", 4, 1) or ""
    key = (order.exam_id, code) if order.exam_id else ("", str(number))
    return Version(key, (0.0 if provisional else 1.0, when, float(number[0])), row)


def _patient_id(segment: Any) -> str | None:
    """PID-3: the medical record number (type MR) among several, else the first; PID-2 in old messages."""
    if segment is None:
        return None
    for number in (3, 2):
        pieces = [piece for piece in _pieces(segment, number) if piece and piece[0]]
        marked = [piece[0] for piece in pieces if len(piece) > 4 and piece[4].upper() == "MR"]
        if pieces:
            return (marked or [pieces[0][0]])[0]
    return None


def _component(segments: dict[str, Any], name: str, number: int, component: int) -> str | None:
    segment = segments.get(name)
    first = _pieces(segment, number)[:1] if segment is not None else []
    value = first[0][component - 1] if first and len(first[0]) >= component else ""
    return value.split("&")[0].strip().strip('"') or None  # "" is HL7's explicit null


def _pieces(segment: Any, number: int) -> list[list[str]]:
    """A field's repetitions, each as its components; [] when the segment is shorter."""
    if number >= len(segment):
        return []
    return [
        [repetition] if isinstance(repetition, str) else [str(component) for component in repetition]
        for repetition in segment[number]
    ]

"""Who an exam is of: the patient as the report export names him, and as its images do.

A patient whom the export does not name must still be kept in one part of a split, and a report labelled on another
patient's images is worse than none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = ["MISMATCH", "Settled", "Who", "named", "settle_patients"]

MISMATCH = "patient_mismatch"
Rule = Literal["check", "pseudonyms", "export", "dicom"]

# What de-identification leaves where an id stood: it names nobody, and it is the same for everybody.
_PLACEHOLDER = re.compile(
    r"(?:anon|anonymi[sz]ed?|anonymous|de-?identified|removed|redacted|masked|hidden|unknown|none|null|n/?a|nn|test"
    r"|[x0?*.#\s_-]+)",
    re.I,
)

_NOT_EQUAL = (
    "the report's patient_id is not the PatientID of the images (see that they belong together; where the export uses "
    "other identifiers than the images, set patient_ids: pseudonyms in the site file)"
)
_NOT_ONE_TO_ONE = (
    "patient_id and the images' PatientID are not one to one over the export: one of the two goes with several others "
    "(see that reports and images belong together, or whether patient numbers were merged; patient_ids: export in the "
    "site file believes the export)"
)


@dataclass(frozen=True)
class Who:
    """One exam: the patient as the report export names him and as the images do; None where one does not."""

    exam_id: str
    told: str | None
    imaged: str | None
    issuer: str | None = None


@dataclass(frozen=True)
class Settled:
    """patient_of: exam -> patient, for every exam that has one. wrong: exam -> why its report and images are of two."""

    patient_of: dict[str, str]
    wrong: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def named(number: str | None) -> str | None:
    """A patient's number without needless blanks; None where it is empty or a placeholder."""
    plain = " ".join((number or "").strip("\0 ").split())
    return None if not plain or _PLACEHOLDER.fullmatch(plain) else plain


def settle_patients(exams: Iterable[Who], rule: Rule = "check") -> Settled:
    """Who each exam is of, and which exams are filed under the wrong patient.

    rule: "check" compares the export's ids with PatientID: where any of the export's ids is a PatientID too, both are
    of one kind and must agree in every exam; where none is, the export uses ids of its own, as "pseudonyms" says
    outright, and the two must be one to one over the export: of a patient who goes with several, only the pair that
    holds in more exams than any other is believed. "export" and "dicom" believe one side without comparing.

    Ids that differ in capitals or in leading zeros, which spreadsheets drop, are one. An exam that the export leaves
    unnamed gets the patient whom other exams with its PatientID have, else the PatientID.
    """
    found = _spelled_alike([_without_placeholders(who) for who in exams], told=rule != "export")
    imaged = _full_names(found)
    if rule == "dicom":
        return Settled({w.exam_id: name for w in found if (name := imaged.get(w.exam_id) or w.told)})
    both = [who for who in found if who.told and who.imaged]
    wrong: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if rule != "export" and both:
        numbers = {_plain(who.imaged) for who in both}
        alike = rule == "check" and any(_plain(who.told) in numbers for who in both)
        if alike:
            wrong = {who.exam_id: _NOT_EQUAL for who in both if _plain(who.told) != _plain(who.imaged)}
        else:
            wrong = dict.fromkeys(_broken(both, imaged), _NOT_ONE_TO_ONE)
            if rule == "check":
                notes = (_of_two_kinds(both),)
    partner = _most_frequent((imaged[w.exam_id], w.told) for w in both if w.exam_id not in wrong and w.told)
    patient_of = {}
    for who in found:
        name = imaged.get(who.exam_id)
        patient = who.told or (partner.get(name, name) if name else None)
        if patient:
            patient_of[who.exam_id] = patient
    return Settled(patient_of, wrong, notes)


def _without_placeholders(who: Who) -> Who:
    """An exam's own id, which stands in for a patient that the export does not name, is no patient either."""
    return replace(who, told=None if who.told == who.exam_id else named(who.told), imaged=named(who.imaged))


def _spelled_alike(found: Sequence[Who], *, told: bool) -> list[Who]:
    """Ids that differ in capitals or leading zeros only, in their most frequent spelling: no patient is torn apart.

    told: the export's ids too.
    """
    images = _most_frequent((_plain(who.imaged), who.imaged) for who in found if who.imaged)
    report = _most_frequent((_plain(who.told), who.told) for who in found if who.told)
    return [
        replace(
            who,
            told=report[_plain(who.told)] if told and who.told else who.told,
            imaged=images[_plain(who.imaged)] if who.imaged else None,
        )
        for who in found
    ]


def _full_names(found: Sequence[Who]) -> dict[str, str]:
    """PatientID by exam; with its issuer, as HL7 writes it, where two issuers gave out the same number.

    Only where every exam with that number states an issuer: else it stays one patient, so that none is torn apart.
    """
    issuers = defaultdict(set)
    for who in found:
        if who.imaged:
            issuers[who.imaged].add(who.issuer)
    shared = {number for number, given in issuers.items() if len(given) > 1 and None not in given}
    return {
        who.exam_id: f"{who.imaged}^^^{who.issuer}" if who.imaged in shared else who.imaged
        for who in found
        if who.imaged
    }


def _broken(both: Sequence[Who], imaged: dict[str, str]) -> list[str]:
    """Exams whose pair of ids is contradicted by other exams, and not outweighed by it."""
    pair_of = {who.exam_id: (str(who.told), imaged[who.exam_id]) for who in both}
    counts = Counter(pair_of.values())
    rivals: dict[tuple[int, str], list[tuple[str, str]]] = defaultdict(list)
    for pair in counts:
        for side in (0, 1):
            rivals[side, pair[side]].append(pair)

    def believed(pair: tuple[str, str]) -> bool:
        others = {other for side in (0, 1) for other in rivals[side, pair[side]]} - {pair}
        return all(counts[pair] > counts[other] for other in others)

    return [exam_id for exam_id, pair in pair_of.items() if not believed(pair)]


def _most_frequent(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of each name the partner that it has most often, the first in the alphabet among equals."""
    found: dict[str, str] = {}
    for (name, told), _ in sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0])):
        found.setdefault(name, told)
    return found


def _of_two_kinds(both: Sequence[Who]) -> str:
    return (
        f"no patient_id of the export is a PatientID of the images ({len(both)} exams compared): taken for identifiers "
        "of two kinds, and only checked to go together one to one (patient_ids: pseudonyms in the site file says so)"
    )


def _plain(number: str | None) -> str:
    return (number or "").casefold().lstrip("0")

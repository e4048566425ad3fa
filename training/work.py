"""What `petground label` left in WORK, as training reads it: exams with the sentences that have a mask."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError, SchemaError
from petground.pipeline.edited import read_labels
from petground.pipeline.prompts import PromptMode, has_words, leaks, with_values
from petground.pipeline.schemas import read_table
from petground.training.places import Place, may_be_here

__all__ = [
    "Exam", "Example", "denied_sentences", "has_words", "leaks", "names_one_side", "places_told", "read_exams",
    "rejected", "swap_sides",
]  # fmt: skip

_log = logging.getLogger(__name__)
_REJECTED = ("wrong_lesion", "not_lesion")  # a reviewer's words for a label that must not teach
_NO_LESION = ("negated", "prior", "reference", "threshold")  # reasons by which nothing need be at the place told of
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """One sentence and its mask. prompt: without SUV and slice, unless they are given: then suv and slice are, too.

    place: site and side, to tell what is absent.
    """

    finding_id: str
    prompt: str
    mask_path: str
    site: str | None
    laterality: str | None
    confidence: float
    mode: PromptMode = "words"
    suv: float | None = None
    slice: int | None = None

    @property
    def place(self) -> Place:
        return (self.site or "").lower(), self.laterality or ""

    @property
    def mirrored(self) -> Place | None:
        """The same site on the other side; None without a side, or when the sentence does not name exactly one."""
        other = {"left": "right", "right": "left"}.get(self.laterality or "")
        named = {word.lower() for word in _SIDE.findall(self.prompt)}
        return ((self.site or "").lower(), other) if other and named == {self.laterality} else None

    @property
    def place_words(self) -> str:
        """Side and site alone, "left adrenal nodule"; the whole sentence where the site is not known."""
        if not self.site:
            return self.prompt
        return with_values(f"{self.laterality or ''} {self.site}".strip(), self.mode, self.suv, self.slice)


@dataclass(frozen=True)
class Exam:
    """One exam with at least one label; paths are relative to WORK.

    told: every place where a lesion may be. negated: sentences of the report that say of a place that nothing is there.
    """

    exam_id: str
    patient_id: str
    tracer: str | None
    pet_path: str
    ct_path: str | None
    examples: tuple[Example, ...]
    told: tuple[Place, ...] = ()
    negated: tuple[str, ...] = ()


def read_exams(work: Path, *, min_confidence: float = 0.0, prompt: PromptMode = "words") -> list[Exam]:
    """Exams of WORK with a label at or above the confidence, by exam id.

    prompt: whether the sentences tell SUV and slice, from the table's columns.

    Left out, with a count in the log: labels that a reviewer rejected, and labels of a sentence that has no words
    besides SUV and slice. Raises InputError when WORK has none, a file it names is missing, or a prompt still tells
    SUV or slice.
    """
    exams = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    findings = read_table(work / "findings.parquet", "findings")
    told, negated = places_told(findings), denied_sentences(findings, prompt)
    refused = rejected(work)
    labels: dict[str, list[dict[str, Any]]] = {}
    dropped = wordless = 0
    for row in read_labels(work):
        if (row["confidence"] if row["confidence"] is not None else 1.0) < min_confidence:
            continue
        if (row["exam_id"], row["finding_id"]) in refused:
            dropped += 1
        elif not has_words(row["prompt"]):
            wordless += 1
        else:
            labels.setdefault(row["exam_id"], []).append(row)
    if dropped:
        _log.info("%d labels are left out: rejected in review", dropped)
    if wordless:
        _log.warning("%d labels are left out: their sentence has no words besides SUV and slice", wordless)
    found = [
        _exam(exams.get(one), rows, told.get(one, ()), negated.get(one, ()), prompt)
        for one, rows in sorted(labels.items())
    ]
    if not found:
        raise InputError(
            f"{work} has no labels of confidence {min_confidence:g} or more",
            fix="run `petground label` on exams whose reports state SUVmax and slice",
        )
    for exam in found:
        _present(work, exam)
    return found


def rejected(work: Path) -> set[tuple[str, str]]:
    """(exam_id, finding_id) whose newest decision in WORK/decisions.csv says wrong_lesion or not_lesion.

    Newest by the time written down, the later row of equal ones. The label's hash is not looked at: a label that was
    made anew after its rejection stays out until it is decided anew. Empty without the file. Raises SchemaError
    when a row lacks a column or its time is none.
    """
    path = work / "decisions.csv"
    if not path.is_file():
        return set()
    newest: dict[tuple[str, str], tuple[datetime, str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                key, decision = (row["exam_id"], row["finding_id"]), row["decision"]
                time = datetime.fromisoformat(row["time"].replace("Z", "+00:00"))
            except (KeyError, ValueError, AttributeError) as error:
                raise SchemaError(
                    f"{path}, line {reader.line_num}: not a decision", fix="import the decisions again"
                ) from error
            time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
            if decision and (key not in newest or time >= newest[key][0]):
                newest[key] = time, decision
    return {key for key, (_, decision) in newest.items() if decision in _REJECTED}


def names_one_side(sentence: str) -> bool:
    """True when the sentence says left or right, and not both: exchanging them gives another claim."""
    return len({word.lower() for word in _SIDE.findall(sentence)}) == 1


def swap_sides(sentence: str) -> str:
    """The sentence with left and right exchanged, in their own case."""

    def other(found: re.Match[str]) -> str:
        word = {"left": "right", "right": "left"}[found[0].lower()]
        return word.upper() if found[0].isupper() else word.capitalize() if found[0][0].isupper() else word

    return _SIDE.sub(other, sentence)


def places_told(findings: Iterable[dict[str, Any]]) -> dict[str, tuple[Place, ...]]:
    """Places by exam of every mention that could be a lesion of this exam, labelled or not; site "" where not told."""
    told: dict[str, dict[Place, None]] = {}
    for row in findings:
        known = row["site"] or row["reason"] != "repeat"  # what a repeat says was said with its place before
        if known and row["reason"] not in _NO_LESION:
            told.setdefault(row["exam_id"], {})[(row["site"] or "").lower(), row["laterality"] or ""] = None
    return {exam_id: tuple(places) for exam_id, places in told.items()}


def denied_sentences(
    findings: Iterable[dict[str, Any]], mode: PromptMode, here: Mapping[str, Collection[Place]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Sentences by exam that say that a place has no lesion ("a 6 mm left hilar node is not avid").

    here: by exam every place at which there may be a lesion; sentences of such places are left out.
    """
    found: dict[str, dict[str, None]] = {}
    for row in findings:
        prompt = row["prompt"]
        place = (row["site"] or "").lower(), row["laterality"] or ""
        if here is not None and may_be_here(place, here.get(row["exam_id"], ())):
            continue
        if row["reason"] == "negated" and prompt and has_words(prompt) and not leaks(prompt):
            found.setdefault(row["exam_id"], {})[with_values(prompt, mode, row["suv"], row["slice"])] = None
    return {exam_id: tuple(sentences) for exam_id, sentences in found.items()}


def _exam(
    row: dict[str, Any] | None,
    labels: Sequence[dict[str, Any]],
    told: tuple[Place, ...],
    negated: tuple[str, ...],
    mode: PromptMode,
) -> Exam:
    exam_id = labels[0]["exam_id"]
    if row is None or not row["pet_path"]:
        raise InputError("labels without a PET in exams.parquet", case=exam_id, fix="run `petground label` again")
    for label in labels:
        if leaks(label["prompt"]):
            raise InputError(
                f"the prompt of {label['finding_id']} still tells an SUV or a slice: the model would learn to read it",
                case=exam_id,
                fix="label again with this release; if it persists, report the form of the sentence",
            )
    examples = tuple(
        Example(
            finding_id=label["finding_id"],
            prompt=with_values(label["prompt"], mode, label["suv_reported"], label["slice_reported"]),
            mask_path=label["mask_path"],
            site=label["site"],
            laterality=label["laterality"],
            confidence=1.0 if label["confidence"] is None else label["confidence"],
            mode=mode,
            suv=label["suv_reported"],
            slice=label["slice_reported"],
        )
        for label in sorted(labels, key=lambda one: str(one["finding_id"]))
    )
    patient = row["patient_id"] or exam_id  # without patient ids every exam is its own patient
    return Exam(exam_id, patient, row["tracer"], row["pet_path"], row["ct_path"], examples, told, negated)


def _present(work: Path, exam: Exam) -> None:
    paths: Iterable[str | None] = (exam.pet_path, exam.ct_path, *(example.mask_path for example in exam.examples))
    for path in paths:
        if path and not (work / path).is_file():
            raise InputError(f"{path} is missing in {work}", case=exam.exam_id, fix="run `petground label` again")

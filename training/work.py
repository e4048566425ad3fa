"""What `petground label` left in WORK, as training reads it: exams with the sentences that have a mask."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.errors import InputError
from petground.labeling.places import Place, may_be_here, may_lie_in
from petground.pipeline.decided import decisions_of, kept_out
from petground.pipeline.denied import read_denials
from petground.pipeline.edited import read_labels
from petground.pipeline.prompts import PromptMode, has_words, leaks, with_values
from petground.pipeline.schemas import read_table

__all__ = [
    "Exam", "Example", "denied_sentences", "has_words", "leaks", "names_one_side", "places_told", "read_exams",
    "rejected", "some_of", "swap_sides",
]  # fmt: skip

_log = logging.getLogger(__name__)
MOST = 8
"""Denied sentences of an exam that teach: reports deny the same every time, and each sentence is encoded and kept."""
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
    """One exam; paths are relative to WORK. Without examples it has denied sentences, which say nothing of its lesions.

    told: every place where a lesion may be. negated: sentences of the report that say of another place that nothing is
    there (`denied_sentences`), MOST at most; none where sentences tell slices.
    """

    exam_id: str
    patient_id: str
    tracer: str | None
    pet_path: str
    ct_path: str | None
    examples: tuple[Example, ...]
    told: tuple[Place, ...] = ()
    negated: tuple[str, ...] = ()


def read_exams(
    work: Path, *, min_confidence: float = 0.0, prompt: PromptMode = "words", unlabelled: bool = False
) -> list[Exam]:
    """Exams of WORK with a label at or above the confidence, by exam id.

    prompt: whether the sentences tell SUV and slice, from the table's columns. unlabelled: with the exams that have no
    such label, and whose report denies something: normal scans, and those whose lesions are told without SUV or slice.

    Left out, with a count in the log: labels that a reviewer's decision keeps out, and labels of a sentence that has
    no words besides SUV and slice. Raises InputError when WORK has none, a file it names is missing, or a prompt still
    tells SUV or slice.
    """
    exams = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    findings = read_table(work / "findings.parquet", "findings")
    told = places_told(findings)
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
        _log.info("%d labels are left out: rejected or unsure in review", dropped)
    if wordless:
        _log.warning("%d labels are left out: their sentence has no words besides SUV and slice", wordless)
    here = {one: {*told.get(one, ()), *map(_place, labels.get(one, ()))} for one in {*told, *labels}}
    negated = _teaching(work, findings, prompt, here)
    bare = sorted({one for one, row in exams.items() if row["pet_path"]}.difference(labels))
    deny = {one: [] for one in bare if unlabelled and negated.get(one)}
    found = [
        _exam(one, exams.get(one), rows, told.get(one, ()), negated.get(one, ()), prompt)
        for one, rows in sorted((labels | deny).items())
    ]
    if not labels:
        raise InputError(
            f"{work} has no labels of confidence {min_confidence:g} or more",
            fix="run `petground label` on exams whose reports state SUVmax and slice",
        )
    if left := len(bare) - len(deny):
        why = "their reports deny nothing that can be asked here" if unlabelled else "data.unlabelled_fraction is 0"
        _log.info("%d exams without a label to use are left out: %s", left, why)
    for exam in found:
        _present(work, exam)
    return found


def rejected(work: Path) -> set[tuple[str, str]]:
    """(exam_id, finding_id) that WORK/decisions.csv keeps out (`petground.pipeline.decided`): rejected, or unsure.

    Empty without the file. Raises as `decisions_of`.
    """
    return set(kept_out(decisions_of(work)))


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
            told.setdefault(row["exam_id"], {})[_place(row)] = None
    return {exam_id: tuple(places) for exam_id, places in told.items()}


def denied_sentences(
    findings: Iterable[Mapping[str, Any]],
    mode: PromptMode,
    here: Mapping[str, Collection[Place]],
    denials: Iterable[Mapping[str, Any]] = (),
) -> dict[str, tuple[str, ...]]:
    """Sentences by exam that say that a place has no lesion ("a 6 mm left hilar node is not avid"), as they say it.

    findings: of findings.parquet; those of its denials, which state an SUV, come first. denials: rows of
    denials.parquet, which state none. here: by exam every place at which there may be a lesion; a sentence of which
    any place is one of these is left out.
    """
    found: dict[str, dict[str, None]] = {}
    for row in findings:
        prompt = row["prompt"]
        if row["reason"] != "negated" or not has_words(prompt) or leaks(prompt):
            continue
        if not may_be_here(_place(row), here.get(row["exam_id"], ())):
            found.setdefault(row["exam_id"], {})[with_values(prompt, mode, row["suv"], row["slice"])] = None
    sentences: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in denials:
        sentences.setdefault((row["exam_id"], row["denial_id"]), []).append(row)
    for (exam_id, _), rows in sentences.items():
        prompt, told = rows[0]["prompt"], here.get(exam_id, ())
        if has_words(prompt) and not any(may_lie_in(_place(row), told) for row in rows):
            found.setdefault(exam_id, {})[prompt] = None
    return {exam_id: tuple(sentences) for exam_id, sentences in found.items()}


def some_of(sentences: Sequence[str], exam_id: str, most: int, seed: int = 0) -> tuple[str, ...]:
    """At most so many of an exam's sentences, in the order drawn: the same for the same exam and seed."""
    rng = np.random.default_rng((seed, zlib.crc32(exam_id.encode())))
    return tuple(sentences[i] for i in rng.permutation(len(sentences))[:most].tolist())


def _teaching(
    work: Path, findings: Sequence[Mapping[str, Any]], mode: PromptMode, here: Mapping[str, Collection[Place]]
) -> dict[str, tuple[str, ...]]:
    """Denied sentences by exam that teach: those that tell what all sentences of the mode tell.

    Where every other sentence has a slice or an SUV, one without would be known by that and not by its words; no
    denial has a slice.
    """
    if mode in ("words+slice", "all"):
        return {}
    denials = read_denials(work) if mode == "words" else []
    if mode == "words" and not (work / "denials.parquet").is_file():
        _log.info("no denials.parquet in %s: label again to teach with what reports deny without an SUV", work)
    found = denied_sentences(findings, mode, here, denials)
    return {exam_id: some_of(sentences, exam_id, MOST) for exam_id, sentences in found.items()}


def _place(row: Mapping[str, Any]) -> Place:
    return (row["site"] or "").lower(), row["laterality"] or ""


def _exam(
    exam_id: str,
    row: dict[str, Any] | None,
    labels: Sequence[dict[str, Any]],
    told: tuple[Place, ...],
    negated: tuple[str, ...],
    mode: PromptMode,
) -> Exam:
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

"""What a model is measured against: the weak labels of a labelling run, or the truth of a phantom."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petground.labeling.places import Place
from petground.pipeline.edited import read_labels
from petground.pipeline.prompts import PromptMode, with_values
from petground.pipeline.schemas import read_table
from petground.training.work import has_words, places_told, rejected

__all__ = ["Reference", "from_labels", "from_truth", "link_truth", "nothing_there", "places_here"]

_log = logging.getLogger(__name__)

_ROUNDING = 1e-4  # truth is float32, print is decimal: 5.25 may be held as 5.2499995


@dataclass(frozen=True)
class Reference:
    """One lesion that a sentence points at.

    key: finding id, or the lesion's id of the phantom. prompt: the sentence without SUV and slice, or None when the
    report told of the lesion but no finding was read, or no words are left of it: it counts as missed. suv: SUVmax
    [g/ml]. mask_path: file of the mask on the PET grid; None: nothing is there (`nothing_there`). slice, series: where
    the report says that it lies.
    """

    exam_id: str
    key: str
    patient_id: str
    tracer: str
    prompt: str | None
    suv: float
    volume_ml: float
    laterality: str | None
    site: str | None
    mask_path: Path | None
    slice: int | None = None
    series: int | None = None

    @property
    def place(self) -> Place:
        return (self.site or "").lower(), self.laterality or ""


def from_labels(work: Path, exams: Collection[str] | None = None, *, prompt: PromptMode = "words") -> list[Reference]:
    """References from WORK/labels.parquet, of the named exams or of all; redrawn outlines in place of the grown ones.

    prompt: whether sentences tell SUV and slice.

    Labels that a reviewer's decision keeps out (`work.rejected`) are left out, with a count in the log. Raises
    InputError and SchemaError as `read_table` does.
    """
    refused = rejected(work)
    findings = read_table(work / "findings.parquet", "findings")
    series = {(row["exam_id"], row["finding_id"]): row["series"] for row in findings}
    rows = [row for row in read_labels(work) if exams is None or row["exam_id"] in exams]
    kept = [row for row in rows if (row["exam_id"], row["finding_id"]) not in refused]
    if len(kept) < len(rows):
        _log.info("%d labels are left out: rejected or unsure in review", len(rows) - len(kept))
    return [
        Reference(
            exam_id=row["exam_id"],
            key=row["finding_id"],
            patient_id=row["patient_id"] or row["exam_id"],
            tracer=row["tracer"] or "unknown",
            prompt=with_values(row["prompt"], prompt, row["suv_reported"], row["slice_reported"])
            if has_words(row["prompt"])
            else None,
            suv=row["suv_measured"] if row["suv_measured"] is not None else row["suv_reported"],
            volume_ml=row["volume_ml"],
            laterality=row["laterality"],
            site=row["site"],
            mask_path=work / row["mask_path"],
            slice=row["slice_reported"],
            series=series.get((row["exam_id"], row["finding_id"])),
        )
        for row in kept
    ]


def from_truth(
    work: Path, phantom: Path, exams: Collection[str] | None = None, *, prompt: PromptMode = "words"
) -> list[Reference]:
    """References from the true masks of the lesions that the reports state with SUVmax and slice.

    work: the labelling run over the phantom's reports, for the sentences. phantom: folder of `petground phantom`.
    prompt: whether sentences tell SUV and slice, as the report states them.
    Raises InputError and SchemaError as `read_table` does.
    """
    about = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    findings = read_table(work / "findings.parquet", "findings")
    truth = [
        row
        for row in read_table(phantom / "truth.parquet", "truth")
        if row["reported"] and row["exam_id"] in about and (exams is None or row["exam_id"] in exams)
    ]
    linked = link_truth(truth, findings)
    references = []
    for row in truth:
        exam = about[row["exam_id"]]
        told = linked.get((row["exam_id"], row["lesion_id"]), {})
        words = with_values(told.get("prompt") or "", prompt, told.get("suv"), told.get("slice"))
        references.append(
            Reference(
                exam_id=row["exam_id"],
                key=row["lesion_id"],
                patient_id=exam["patient_id"] or row["exam_id"],
                tracer=exam["tracer"] or "unknown",
                prompt=words if has_words(words) else None,
                suv=row["suv_max"],
                volume_ml=row["volume_ml"],
                laterality=row["laterality"],
                site=row["site"],
                mask_path=phantom / row["mask_path"],
                slice=told.get("slice"),
                series=told.get("series"),
            )
        )
    return references


def places_here(work: Path, references: Sequence[Reference], phantom: Path | None = None) -> dict[str, set[Place]]:
    """By exam every place at which there may be a lesion: the report tells of it, or it is a reference.

    phantom: folder of `petground phantom`: all of its lesions, too, also those that no report tells of.
    """
    told = places_told(read_table(work / "findings.parquet", "findings"))
    here = {exam_id: set(places) for exam_id, places in told.items()}
    for reference in references:
        here.setdefault(reference.exam_id, set()).add(reference.place)
    for row in read_table(phantom / "truth.parquet", "truth") if phantom is not None else []:
        here.setdefault(row["exam_id"], set()).add(((row["site"] or "").lower(), row["laterality"] or ""))
    return here


def nothing_there(work: Path, asked: Mapping[str, Sequence[str]]) -> list[Reference]:
    """A reference without a mask for each sentence by which an exam's report denies a lesion; asked: sentences by exam.

    Exams whose PET could not be read have none.
    """
    rows = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    return [
        Reference(
            exam_id=exam_id,
            key=f"denied {number}",
            patient_id=rows[exam_id]["patient_id"] or exam_id,
            tracer=rows[exam_id]["tracer"] or "unknown",
            prompt=sentence,
            suv=math.nan,
            volume_ml=0.0,
            laterality=None,
            site=None,
            mask_path=None,
        )
        for exam_id, sentences in sorted(asked.items())
        if exam_id in rows and rows[exam_id]["pet_path"] is not None
        for number, sentence in enumerate(sentences, start=1)
    ]


def link_truth(
    truth: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(exam_id, lesion_id) -> row of the finding that tells of it; lesions that no finding tells of are absent.

    A finding tells of a lesion when it is of the same exam, its printed SUV stands for the lesion's SUVmax (5.2 for
    5.15 to 5.25) and its slice is the lesion's. Findings whose text was read as no current lesion do not count. Of
    several, one on the lesion's side, then one with words of its site goes first; each finding is used once.
    """
    told = defaultdict(list)
    for finding in findings:
        if finding["stage"] != "extract" and finding["slice"] is not None:
            told[finding["exam_id"], finding["slice"]].append(finding)
    pairs = []
    for number, lesion in enumerate(truth):
        for finding in told[lesion["exam_id"], lesion["slice"]]:
            half = 0.5 * 10.0 ** -(finding["suv_decimals"] if finding["suv_decimals"] is not None else 1)
            off = abs(finding["suv"] - lesion["suv_max"])
            if off <= half + _ROUNDING:
                other_side = finding["laterality"] != lesion["laterality"]
                pairs.append((other_side, -_common_words(finding["site"], lesion["site"]), off, number, finding))
    linked: dict[tuple[str, str], Mapping[str, Any]] = {}
    used: set[tuple[str, str]] = set()
    for *_, number, finding in sorted(pairs, key=lambda pair: pair[:4]):
        lesion_key = (truth[number]["exam_id"], truth[number]["lesion_id"])
        finding_key = (finding["exam_id"], finding["finding_id"])
        if lesion_key not in linked and finding_key not in used:
            linked[lesion_key] = finding
            used.add(finding_key)
    return linked


def _common_words(a: str | None, b: str | None) -> float:
    first, second = set((a or "").lower().split()), set((b or "").lower().split())
    return len(first & second) / math.sqrt(len(first) * len(second)) if first and second else 0.0

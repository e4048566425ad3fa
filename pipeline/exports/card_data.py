"""The figures of a data card, counted from the tables and masked where few would be singled out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.finding import IMAGE_REASONS, TEXT_REASONS
from petground.labeling.regions import region_of
from petground.pipeline.decided import KEPT_OUT
from petground.pipeline.exports.duplicates import Duplicate
from petground.pipeline.exports.layout import Release
from petground.pipeline.exports.select import FATES, Lesion, Selection
from petground.pipeline.exports.strata import PARTS, Partition, strata_table

__all__ = ["FEW", "FEWEST", "HISTOGRAMS", "card_data", "masked"]

FEWEST = 5  # counts from 1 to 4 are not told
FEW = "<5"
QUANTILES_FROM = 20  # a median of fewer is nearly somebody's own value
HISTOGRAMS: dict[str, tuple[str, list[float]]] = {
    "suv_reported": ("reported SUVmax [g/ml]", [0, 2.5, 5, 7.5, 10, 12.5, 15, 20, 25, 30, 40, 60, 100]),
    "volume_ml": ("volume of the mask [ml]", [0, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 3000]),
    "confidence": ("confidence of the label", [round(0.1 * n, 1) for n in range(11)]),
}
STAGES = {
    "report": "the report tells of no current lesion with SUVmax and axial slice",
    "image": "no label could be grown on the image",
    "run": "the exam failed",
    "review": "a physician decided",
    "release": "left out of this release",
    "exported": "in this release",
}
LIMITS = (
    "Labels are weak: grown from a reported SUVmax and slice, mostly not drawn or seen by a physician.",
    "A lesion that the report does not state with SUVmax and slice has no mask; it is not evidence of absence.",
    "Outlines are threshold isocontours; they follow uptake, not anatomy.",
    "Reports are English and of the sites that the tables come from; how others write was not seen.",
    "Reported values come from the report text as written; errors of dictation are in them.",
    "Not for clinical use.",
)


def card_data(
    work: Path,
    release: Release,
    selection: Selection,
    partition: Partition,
    duplicates: Sequence[Duplicate],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """Everything the card shows, without ids, dates or text; counts below 5 are "<5"."""
    lesions = [(case, lesion) for case in release.cases for lesion in case.exam.lesions]
    patient_of = {row["exam_id"]: row["patient_id"] or row["exam_id"] for row in selection.exam_rows}
    released = {case.exam.exam_id for case in release.cases}
    options = {**asdict(release.options), "shares": dict(release.options.shares)}
    across = [d for d in duplicates if patient_of[d.exam_a] != patient_of[d.exam_b]]
    return {
        "format": release.options.to,
        "petground": release.version,
        "licence": release.options.licence,
        "options": options,
        "tables_sha256": _digests(work),
        "made_by": dict(selection.provenance),
        "counts": {
            "exams in the export": masked(len(selection.exam_rows)),
            "exams whose images were read": masked(sum(row["pet_path"] is not None for row in selection.exam_rows)),
            "exams released": masked(len(release.cases)),
            "patients released": masked(len({case.exam.patient_id for case in release.cases})),
            "SUV mentions read": masked(len(selection.findings)),
            "labels released": masked(len(lesions)),
            "labels released that a physician redrew": masked(sum(lesion.edited for _, lesion in lesions)),
            "findings that a physician decided on": masked(selection.decided),
            "exams with a lesion told but not outlined": masked(sum(case.exam.untold > 0 for case in release.cases)),
            "exams without a patient id": masked(selection.without_patient),
        },
        "fates": fates(selection),
        "labels_by": {
            "tracer": count(case.exam.tracer or "not told" for case, _ in lesions),
            "region": count(region_of(lesion.site) for _, lesion in lesions),
            "side": count(lesion.laterality or "not told" for _, lesion in lesions),
        },
        "exams_by": {
            "tracer": count(case.exam.tracer or "not told" for case in release.cases),
            "year": dict(sorted(count(case.exam.year or "not told" for case in release.cases).items())),
            **_scanners(selection, released),
        },
        "distributions": {name: _distribution(name, [lesion for _, lesion in lesions]) for name in HISTOGRAMS},
        "split_in_patients": [
            {"trait": row["trait"]} | dict(zip(PARTS, hide([row[part] for part in PARTS]), strict=True))
            for row in strata_table(partition)
        ],
        "duplicates": {
            "pairs found": masked(len(duplicates)),
            "pairs across two patient ids": masked(len(across)),
            "by evidence": count(why for d in duplicates for why in d.evidence),
        },
        "failed_exams": count(why.split(":")[0] for why in failures.values()),
        "limits": list(LIMITS),
    }


def masked(number: int) -> int | str:
    """The count, or "<5" where it is 1 to 4."""
    return number if number == 0 or number >= FEWEST else FEW


def hide(numbers: Sequence[int]) -> list[int | str]:
    """Counts whose sum may be known, masked; where only one is, the next smallest is too, or the sum would tell it."""
    out = [masked(number) for number in numbers]
    others = [n for n, value in enumerate(out) if isinstance(value, int) and value > 0]
    if out.count(FEW) == 1 and others:
        out[min(others, key=lambda n: numbers[n])] = "5 or more"
    return out


def count(values: Iterable[str]) -> dict[str, int | str]:
    """How often each value is there, the most frequent first, masked by `hide`."""
    ranked = sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))
    return dict(zip((name for name, _ in ranked), hide([number for _, number in ranked]), strict=True))


def fates(selection: Selection, *, exact: bool = False) -> list[dict[str, Any]]:
    """Every mention of every report by what became of it, in the order of the stages: stage, fate, meaning, count.

    exact: for the person at the command line, whose data they are; without it small counts are masked.
    """
    found: Counter[tuple[str, str]] = Counter()
    for row in selection.findings:
        fate = selection.fates.get((row["exam_id"], row["finding_id"]))
        if fate is None:
            reason = row["reason"] or "failed"
            stage = "report" if reason in TEXT_REASONS else "image" if reason in IMAGE_REASONS else "run"
            found[stage, reason] += 1
        elif fate == "exported":
            found["exported", fate] += 1
        else:
            stage = "review" if fate in KEPT_OUT else "release"
            found["run" if fate == "export_failed" else stage, fate] += 1
    means = {**TEXT_REASONS, **IMAGE_REASONS, **FATES}
    order = {stage: n for n, stage in enumerate(STAGES)}
    ranked = sorted(found.items(), key=lambda one: (order[one[0][0]], -one[1], one[0][1]))
    numbers = [number for _, number in ranked]
    return [
        {"stage": stage, "fate": fate, "meaning": means.get(fate, fate.replace("_", " ")), "count": told}
        for ((stage, fate), _), told in zip(ranked, numbers if exact else hide(numbers), strict=True)
    ]


def _distribution(name: str, lesions: Sequence[Lesion]) -> dict[str, Any]:
    values = np.array([v for lesion in lesions if (v := getattr(lesion, name)) is not None], dtype=np.float64)
    title, edges = HISTOGRAMS[name]
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=np.array(edges))
    enough = values.size >= QUANTILES_FROM
    low, middle, high = (round(float(v), 2) for v in np.percentile(values, (25, 50, 75))) if enough else (None,) * 3
    return {
        "title": title,
        "edges": edges,
        "counts": hide([int(n) for n in counts]),
        "lower_quartile": low,
        "median": middle,
        "upper_quartile": high,
    }


def _scanners(selection: Selection, released: set[str]) -> dict[str, dict[str, int | str]]:
    """Exams by maker and model, where the exams table knows them; the station's name would tell the hospital."""
    told = {row["exam_id"]: row.get("scanner") for row in selection.exam_rows if row["exam_id"] in released}
    if not any(told.values()):
        return {}
    return {"scanner": count(" / ".join(one.split(" / ")[:2]) if one else "not told" for one in told.values())}


def _digests(work: Path) -> dict[str, str]:
    names = ("exams.parquet", "findings.parquet", "labels.parquet", "decisions.csv", "site.json")
    return {n: hashlib.sha256((work / n).read_bytes()).hexdigest() for n in names if (work / n).is_file()}

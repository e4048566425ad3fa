"""`--infer-numbering`: how the export counts slices, from the reported values and the images of all its exams.

Each exam's part is a stage of its own (WORK/numbering/ID), so a second run reads no image again. The outcome is written
as numbering.json, for people and programs, and as site_inferred.yaml, which `--site` reads.
"""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.evidence import Convention, sighting_from_json
from petground.labeling.finding import Finding
from petground.labeling.infer_numbering import ExamEvidence, Verdict
from petground.labeling.numbering_groups import Group, Inference, infer, inferred_site
from petground.labeling.site import Site, site_to_mapping
from petground.labeling.suv_header import NO_FALLBACKS, SuvFallbacks
from petground.pipeline.dates import MISMATCH, iso_date, mismatch_note, require_same_day
from petground.pipeline.exam_cases import CODE, ingest_case
from petground.pipeline.files import read_json, write_bytes, write_json
from petground.pipeline.reports import Report
from petground.pipeline.stage import content_hash, run_stage, source_hash

__all__ = ["INFERRED_SITE", "NUMBERING", "infer_site", "numbering_case", "read_numbering"]

NUMBERING, INFERRED_SITE = "numbering.json", "site_inferred.yaml"
EVIDENCE_CODE = tuple(f"petground.labeling.{name}" for name in ("evidence", "maxima", "numbering", "volume"))
COUNTING = ("name", *Convention().settings)  # written also where they are the defaults
MOST_EXAMS = 300  # per scanner and year: more tell nothing new, and an archive's evidence must fit in memory

Exams = Iterable[tuple[Report, Path, Mapping[str, Finding]]]
Cases = Callable[[Callable[..., Any], Iterable[tuple[str, tuple[Any, ...]]]], Iterable[Any]]


def infer_site(
    out: Path,
    base: Site,
    exams: Exams,
    run_cases: Cases,
    tick: Callable[[str, int, int], None] = lambda stage, done, total: None,
    total: int = 0,
) -> Site:
    """The site under which to label: `base` with the numbering that the exams show.

    exams: row of the export, folder of the images and positive findings of each exam that has any; `total` of them.
    Raises ConfigError when `base` has groups of its own, and InputError (reason "numbering_unclear") when the numbering
    is not clear; numbering.json then tells the evidence.
    """
    if base.groups:
        raise ConfigError(
            "the site file has groups of its own", fix="leave them out of it, or leave --infer-numbering out"
        )
    for name in (NUMBERING, INFERRED_SITE):
        (out / name).unlink(missing_ok=True)
    (out / "numbering").mkdir(exist_ok=True)
    inference, used, failed = _inferred(out, base, exams, run_cases, tick, total)
    write_json(out / NUMBERING, _record(inference, used, failed))
    if inference.refusal is not None:
        raise InputError(
            f"how slices are counted is not clear: {inference.refusal}",
            fix="state it in a site file and give --site; docs/numbering.md tells how to find out",
            reason="numbering_unclear",
        )
    site = inferred_site(inference, base)
    _write_site(out / INFERRED_SITE, site, inference)
    return site


def _inferred(
    out: Path, base: Site, exams: Exams, run_cases: Cases, tick: Callable[[str, int, int], None], total: int
) -> tuple[Inference, int, int]:
    """The inference, how many exams it rests on, and how many could not be read."""
    codes = {"ingest": source_hash(*CODE["ingest"]), "numbering": source_hash(*EVIDENCE_CODE)}
    unused = {folder.name for folder in (out / "numbering").iterdir()}
    strata: dict[tuple[str, str], list[tuple[str, ExamEvidence]]] = {}
    failed: Counter[str] = Counter()

    def todo() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for report, source, positive in exams:
            scanned = (report.scanner, report.study_date)
            fallbacks = SuvFallbacks(report.weight_kg, base.half_life_from_code)
            yield report.exam_id, (source, out, report.exam_id, codes, dict(positive), base, scanned, fallbacks)

    for done, outcome in enumerate(run_cases(numbering_case, todo()), start=1):
        tick("numbering", done, max(total, done))
        if outcome.reason is not None:  # it fails in labelling as well, and is told there
            failed[outcome.reason] += 1
            continue
        unused.discard(outcome.case)
        told = outcome.value
        rows = tuple(sighting_from_json(row) for row in told["sightings"])
        evidence = ExamEvidence(outcome.case, rows, told["scanner"], told["study_date"])
        # the same exams are kept in whatever order they come
        kept = strata.setdefault((evidence.scanner or "", (evidence.date or "")[:4]), [])
        heapq.heappush(kept, (content_hash(outcome.case), evidence))
        if len(kept) > MOST_EXAMS:
            heapq.heappop(kept)
    for name in unused:
        shutil.rmtree(out / "numbering" / name)
    used = sorted((evidence for kept in strata.values() for _, evidence in kept), key=lambda e: e.exam_id)
    inference = infer(used)
    if not used:
        why = "no exam with such a finding could be used"
        if failed:
            why += f", {failed.total()} failed ({', '.join(f'{name} {n}' for name, n in failed.most_common())})"
        if note := mismatch_note(failed.total(), failed[MISMATCH]):
            why += f"; {note}"
        inference = replace(inference, refusal=why, whole=replace(inference.whole, why_not=why))
    return inference, len(used), failed.total()


def numbering_case(
    source: Path,
    out: Path,
    exam_id: str,
    codes: Mapping[str, str],
    positive: Mapping[str, Finding],
    base: Site,
    scanned: tuple[str | None, str | None] = (None, None),
    fallbacks: SuvFallbacks = NO_FALLBACKS,
) -> dict[str, Any]:
    """One exam, read if it was not yet: its sightings, kept under their key, its scanner and its date.

    scanned: scanner and date as the export tells them. Raises InputError when the images are of another day.
    """
    from petground.labeling.evidence import sightings
    from petground.pipeline.nifti import read_nifti

    images: dict[str, Any] = {}
    exam = ingest_case(source, out / "exams" / exam_id, exam_id, codes["ingest"], images, fallbacks)
    require_same_day(scanned[1], exam.get("study_date"), base)
    asked = [[f.suv, f.suv_decimals, f.slice, f.status, f.counted_from, f.warnings] for f in positive.values()]
    key = content_hash(["numbering", codes["numbering"], exam["key"], asked, base.suv_minimum, base.suv_tolerance])

    def work(part: Path) -> dict[str, Any]:
        folder = out / "exams" / exam_id
        pet = images.get("pet") or read_nifti(folder / "pet.nii.gz", "SUVbw")
        ct = (images.get("ct") or read_nifti(folder / "ct.nii.gz", "HU")) if exam["ct"] else None
        return {"sightings": [asdict(s) for s in sightings(pet, list(positive.values()), base, ct=ct)]}

    value = run_stage(out / "numbering" / exam_id, key, work)[0]
    return {
        **value,
        "scanner": scanned[0] or exam.get("scanner"),
        "study_date": iso_date(scanned[1]) or exam.get("study_date"),
    }


def _record(inference: Inference, used: int, failed: int) -> dict[str, Any]:
    return {
        "refused": inference.refusal,
        "exams": used,
        "exams_unread": failed,
        "findings": sum(group.findings for group in inference.groups),
        "whole": _told(inference.whole),
        "groups": [_group(group) for group in inference.groups if group.exams],
    }


def _group(group: Group) -> dict[str, Any]:
    where = {name: value for name, value in asdict(group.condition).items() if value is not None}
    return {"where": where, "name": str(group.condition), "exams": group.exams} | _told(group.verdict)


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "convention": None if verdict.convention is None else str(verdict.convention),
        "settings": None if verdict.convention is None else verdict.convention.settings,
        "why_not": verdict.why_not or None,
        "notes": list(verdict.notes),
        "candidates": [
            {
                "convention": str(standing.convention),
                "same_slices": [str(other) for other in standing.same],
                "findings": standing.findings,
                "met": standing.met,
                "by_chance": round(standing.by_chance, 1),
                "evidence_log10": round(standing.evidence, 1),
            }
            for standing in verdict.standings
        ],
    }


def _write_site(path: Path, site: Site, inference: Inference) -> None:
    lines = ["# Found by `petground label --infer-numbering`; numbering.json tells the evidence. Use it with --site.\n"]
    for group in inference.groups:
        if group.exams:
            outcome = group.verdict.convention or f"not clear: {group.verdict.why_not}"
            lines.append(f"# {group.condition}: {outcome} ({group.findings} findings in {group.exams} exams)\n")
        lines += [f"#   {note}\n" for note in group.verdict.notes]
    told, plain = site_to_mapping(site), site_to_mapping(Site())
    settings = {name: v for name, v in told.items() if name in COUNTING or v != plain.get(name)}
    text = "".join(lines) + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110)
    write_bytes(path, text.encode("utf-8"))


def read_numbering(out: Path) -> dict[str, Any] | None:
    """What `infer_site` wrote, or None."""
    return read_json(out / NUMBERING) or None

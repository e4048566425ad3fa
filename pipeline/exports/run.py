"""A release from a WORK folder: choose, find duplicates, split by patient, write the cases, then index and card."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.executors import Runner
from petground.pipeline.exports.card import write_card
from petground.pipeline.exports.duplicates import Duplicate, find_duplicates, groups_of, similar_texts
from petground.pipeline.exports.fingerprint import fingerprint_case
from petground.pipeline.exports.folder import remove_stale, withdraw
from petground.pipeline.exports.formats import layout_of
from petground.pipeline.exports.layout import Layout, Namer, Options, Release, Released
from petground.pipeline.exports.select import Selection, select
from petground.pipeline.exports.strata import Partition, divide, ledger_path, read_ledger, write_ledger
from petground.pipeline.exports.write_case import CasePlan, case_key, kept_case, write_case
from petground.pipeline.schemas import write_table

__all__ = ["Draft", "Outcome", "draft", "publish"]

Tick = Callable[[str, int, int], None]
IMAGE_EVIDENCE = {"same_series", "same_voxels", "similar_image"}


@dataclass
class Draft:
    """What will be released: the choice, the duplicates in it and who goes where."""

    selection: Selection
    partition: Partition
    duplicates: list[Duplicate]
    kept_of: dict[tuple[str, str], str] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What was released; made: cases written now, removed: cases of an earlier run that left, failures by exam."""

    release: Release
    made: int
    removed: int
    failures: Mapping[str, str]


def draft(
    work: Path,
    options: Options,
    *,
    decisions: Path | None = None,
    splits: Path | None = None,
    run_cases: Runner | None = None,
    tick: Tick = lambda stage, done, total: None,
) -> Draft:
    """Chooses and splits; writes no case. Without `run_cases` no image is read: duplicates by report and series only.

    splits: ledger of an earlier WORK to start from; for who is in WORK's own, that one stands.
    """
    layout = layout_of(options.to)
    selection = select(
        work,
        min_confidence=options.min_confidence,
        decisions=decisions,
        words=layout.words,
        needs_ct=layout.only_ct or options.ct_grid,
        drop_incomplete=options.incomplete == "drop",
    )
    failures: dict[str, str] = {}
    prints: dict[str, dict[str, Any]] = {}
    if run_cases is not None:
        todo = [(e.exam_id, (work, e.exam_id, e.pet_path)) for e in selection.exams.values()]
        for done, outcome in enumerate(run_cases(fingerprint_case, todo), start=1):
            tick("compare", done, len(todo))
            if outcome.reason is None:
                prints[outcome.case] = outcome.value
            else:
                failures[outcome.case] = f"{outcome.reason}: {outcome.detail}"
        for exam_id in failures:
            selection.drop(exam_id, "export_failed")
        if not selection.exams:
            raise InputError(
                "no exam could be read", fix="run `petground label` again; " + next(iter(failures.values()))
            )
    texts = _texts(selection)
    if run_cases is None:
        found = [Duplicate(*pair, ("similar_report",), share) for pair, share in similar_texts(texts)]
    else:
        found = find_duplicates(prints, texts)
    kept_of = _drop(selection, found) if options.drop_duplicates else {}
    patient_of = {e["exam_id"]: e["patient_id"] or e["exam_id"] for e in selection.exam_rows}
    links = [(patient_of[d.exam_a], patient_of[d.exam_b]) for d in found]
    ledger = _ledger(ledger_path(work, options.shares, options.seed), splits)
    linked = groups_of((a, b) for a, b in links if a != b)
    partition = divide(selection.exams, options.shares, seed=options.seed, linked=linked, earlier=ledger)
    return Draft(selection, partition, found, kept_of, ledger, failures)


def publish(
    work: Path,
    root: Path,
    options: Options,
    plan: Draft,
    *,
    name_of: Namer | None,
    run_cases: Runner,
    tick: Tick = lambda stage, done, total: None,
) -> Outcome:
    """Writes the release into `root` (which the caller owns), the tables about it into WORK.

    name_of: keyed hashes for exam and patient ids; None leaves exam ids as they are and patients out. Cases that are
    there already are kept; a case that fails is left out and told. Raises InputError when every case failed.
    """
    layout = layout_of(options.to)
    plans = {e: _plan(work, root, options, layout, plan, e, name_of) for e in plan.selection.exams}
    _write_work_tables(work, options, plan)
    wanted = {p.case: p.files.all for p in plans.values()}
    todo = [(e, (p,)) for e, p in plans.items() if kept_case(root, p.case, p.key) is None]
    withdraw(root, layout.indices)
    removed = remove_stale(root, wanted)
    failures = dict(plan.failures)
    tick("write", len(plans) - len(todo), len(plans))
    for done, outcome in enumerate(run_cases(write_case, todo), start=len(plans) - len(todo) + 1):
        tick("write", done, len(plans))
        if outcome.reason is not None:
            if outcome.reason == "disk_full":
                raise InputError(f"no space left for {root}", fix="free some, then run the same command to go on")
            failures[outcome.case] = f"{outcome.reason}: {outcome.detail}"
    for exam_id in failures:
        if exam_id in plan.selection.exams:
            plan.selection.drop(exam_id, "export_failed")
    remove_stale(root, {p.case: p.files.all for e, p in plans.items() if e in plan.selection.exams})
    there = {exam.patient_id for exam in plan.selection.exams.values()}
    traits = {patient: found for patient, found in plan.partition.traits.items() if patient in there}
    plan.partition = replace(plan.partition, traits=traits)
    release = _release(root, options, plan, {e: plans[e] for e in plan.selection.exams}, name_of)
    layout.index(release)
    write_card(work, release, plan.selection, plan.partition, plan.duplicates, dict(failures))
    return Outcome(release, len(todo) - len(failures) + len(plan.failures), removed, failures)


def _plan(
    work: Path,
    root: Path,
    options: Options,
    layout: Layout,
    plan: Draft,
    exam_id: str,
    name_of: Namer | None,
) -> CasePlan:
    exam = plan.selection.exams[exam_id]
    case = name_of("exam", exam_id) if name_of else exam_id
    split = plan.partition.part[exam.patient_id]
    files = layout.files(case, split, [lesion.finding_id for lesion in exam.lesions], exam.ct_path is not None)
    made = CasePlan(
        work=work.resolve(),
        root=root.resolve(),
        case=case,
        exam=exam,
        files=files,
        key="",
        spacing_xyz_mm=options.spacing_xyz_mm,
        ct_grid=options.ct_grid,
        upright=layout.upright,
        ignore=options.incomplete == "ignore",
        link=options.link,
        anonymous=name_of is not None,
    )
    return replace(made, key=case_key(made))


def _release(
    root: Path, options: Options, plan: Draft, plans: Mapping[str, CasePlan], name_of: Namer | None
) -> Release:
    if not plans:
        raise InputError("every case failed", fix="; ".join(sorted(set(plan.failures.values()))[:3]) or "see above")
    cases = []
    for exam_id, case in plans.items():
        record = kept_case(root, case.case, case.key)
        if record is None:
            raise InputError(f"{case.case} vanished while it was written", fix="run the same command again")
        patient = plan.selection.exams[exam_id].patient_id
        cases.append(
            Released(
                case=case.case,
                split=plan.partition.part[patient],
                fold=plan.partition.fold[patient],
                exam=case.exam,
                files=case.files,
                patient=name_of("patient", patient) if name_of else None,
                voxels=record["voxels"],
                ignored_voxels=record["ignored"],
            )
        )
    version = importlib.metadata.version("petground")
    return Release(root, options, sorted(cases, key=lambda c: c.case), plan.partition.folds, version)


def _ledger(own: Path, other: Path | None) -> dict[str, Any]:
    ledgers = [read_ledger(path) for path in (other, own) if path is not None]
    return {name: {k: v for found in ledgers for k, v in found.get(name, {}).items()} for name in ("patients", "folds")}


def _texts(selection: Selection) -> dict[str, str]:
    """What WORK knows of each report: its sentences with an SUV, each once, in the report's order."""
    rows: dict[str, dict[str, None]] = {}
    for row in sorted(selection.findings, key=lambda r: (r["exam_id"], r["span_start"] or 0)):
        if row["exam_id"] in selection.exams:
            rows.setdefault(row["exam_id"], {})[row["sentence"] or ""] = None
    return {exam_id: "\n".join(sentences) for exam_id, sentences in rows.items()}


def _drop(selection: Selection, found: list[Duplicate]) -> dict[tuple[str, str], str]:
    """Leaves one exam of each set with the same image: the one with most labels, then the first by id."""
    groups: dict[str, list[str]] = {}
    for exam_id, group in groups_of((d.exam_a, d.exam_b) for d in found if IMAGE_EVIDENCE & {*d.evidence}).items():
        groups.setdefault(group, []).append(exam_id)
    kept = {}
    for members in groups.values():
        best = min(members, key=lambda e: (-len(selection.exams[e].lesions), e))
        kept.update(dict.fromkeys(members, best))
        for exam_id in members:
            if exam_id != best:
                selection.drop(exam_id, "duplicate_exam")
    return {(d.exam_a, d.exam_b): kept[d.exam_a] for d in found if kept.get(d.exam_a) and d.exam_b in kept}


def _write_work_tables(work: Path, options: Options, plan: Draft) -> None:
    """Who is filed twice, and who went where: both name patients or exams, so they stay in WORK."""
    patient_of = {e["exam_id"]: e["patient_id"] or e["exam_id"] for e in plan.selection.exam_rows}
    rows = [
        {
            "exam_a": d.exam_a,
            "exam_b": d.exam_b,
            "patient_a": patient_of[d.exam_a],
            "patient_b": patient_of[d.exam_b],
            "across_patients": patient_of[d.exam_a] != patient_of[d.exam_b],
            "evidence": ", ".join(d.evidence),
            "similarity": d.similarity,
            "kept": plan.kept_of.get((d.exam_a, d.exam_b), "both"),
        }
        for d in plan.duplicates
    ]
    write_table(work / "duplicates.parquet", "duplicates", rows)
    path = ledger_path(work, options.shares, options.seed)
    write_ledger(path, plan.partition, plan.selection.exams, plan.ledger)

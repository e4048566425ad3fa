"""`petground export`: a WORK folder out to nnU-Net, VoxTell, MONAI or Hugging Face."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.commands.options import spacing_option
from petground.pipeline.executors import executor
from petground.pipeline.exports.card_data import fates
from petground.pipeline.exports.folder import check_folder, owned
from petground.pipeline.exports.formats import layout_of
from petground.pipeline.exports.layout import Namer, Options
from petground.pipeline.exports.run import Draft, Outcome, draft, publish
from petground.pipeline.exports.strata import PARTS, read_shares, strata_table
from petground.pipeline.progress import progress

__all__ = ["export"]

_DATASET = re.compile(r"Dataset\d{3}_[A-Za-z0-9][A-Za-z0-9_-]*")


def export(
    work: Path,
    to: Literal["nnunet", "voxtell", "monai", "huggingface"],
    out: Path,
    decisions: Path | None = None,
    min_confidence: float = 0.0,
    incomplete: Literal["ignore", "background", "drop"] = "ignore",
    spacing: str | None = None,
    ct_grid: bool = False,
    split: str = "80/10/10",
    seed: int = 0,
    splits: Path | None = None,
    drop_duplicates: bool = False,
    dataset: str = "Dataset501_Petground",
    pet_normalization: Literal["image", "dataset", "none"] = "image",
    licence: str = "not stated",
    anonymous_ids: Path | None = None,
    link: bool = False,
    workers: int | None = None,
    timeout_minutes: float = 30.0,
    dry_run: bool = False,
) -> int:
    """Write the labels of WORK as a data set that other tools read, split by patient, with a data card.

    nnunet: one case per exam, channels PET and CT, all lesions one class (out/DatasetXXX_Name). voxtell: the same in
    RAS+, with prompts and their masks. monai: datalist.json, one item per sentence. huggingface: a folder for
    `datasets.load_dataset`. What a physician rejected stays out; patients stay in their part when cases are added.
    Run it again after an interruption: only what is missing or has changed is written anew.

    Args:
        work: the WORK folder of `petground label`.
        to: the format.
        out: folder to write to: new, empty, or an earlier export of the same format.
        decisions: a reviewer's CSV or JSONL; default: the decisions imported into WORK.
        min_confidence: labels below are left out, unless a physician accepted them.
        incomplete: what becomes of lesions without an outline to trust where all lesions are one mask: nnU-Net's
            ignore label, background, or the whole exam is left out.
        spacing: voxel size in mm along the patient's axes, "4" or "4,4,3"; default: the PET's own grid.
        ct_grid: use the CT's grid instead of the PET's.
        split: shares of train/val/test in patients, 80/10/10 or 8/1/1; two numbers leave the test out.
        seed: another seed gives another split.
        splits: start from the splits file of an earlier WORK (its WORK/splits/*.json): patients stay put.
        drop_duplicates: of exams with the same image keep one; default: all, in one part of the split.
        dataset: nnU-Net's name of the data set, Dataset and three digits.
        pet_normalization: how nnU-Net scales the PET: by each image, by the whole data set (as its own conversion of
            AutoPET does), or not at all.
        licence: under which the release may be used; stands in the card.
        anonymous_ids: key file as `petground deidentify` makes it; exam and patient ids become keyed hashes.
        link: hard links to WORK's images where nothing differs, instead of copies.
        workers: processes at once; default: one per core that this job may use.
        timeout_minutes: an exam that takes longer is recorded as failed and left.
        dry_run: only say what would be done.
    """
    console = Console()
    options = _options(
        to=to,
        shares=read_shares(split),
        seed=seed,
        min_confidence=min_confidence,
        spacing_xyz_mm=None if spacing is None else spacing_option(spacing),
        ct_grid=ct_grid,
        incomplete=incomplete,
        drop_duplicates=drop_duplicates,
        link=link,
        dataset=dataset,
        pet_normalization=pet_normalization,
        licence=licence,
    )
    if timeout_minutes <= 0:
        raise ConfigError(f"--timeout-minutes is {timeout_minutes}", fix="give a positive number")
    if splits is not None and not splits.is_file():
        raise InputError(f"no splits file at {splits}", fix="give WORK/splits/<name>.json of the earlier release")
    if not work.is_dir():
        raise InputError(f"no work folder at {work}", fix="run `petground label` first")
    root = _root(out, options)
    check_folder(root, to)
    name_of = _namer(anonymous_ids)
    choose = partial(draft, work, options, decisions=decisions, splits=splits)
    if dry_run:
        _describe(console, choose(), options)
        line = f"nothing was written; without --dry-run the data set would go to {root}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        return 0
    try:
        with (
            FileLock(work / ".lock", timeout=0),
            owned(root, to),
            executor(workers=workers, timeout_s=timeout_minutes * 60) as run_cases,
            progress(console) as tick,
        ):
            plan = choose(run_cases=run_cases, tick=tick)
            outcome = publish(work, root, options, plan, name_of=name_of, run_cases=run_cases, tick=tick)
    except Timeout:
        raise InputError(f"another run is writing to {work}", fix="wait for it") from None
    _describe(console, plan, options)
    _report(console, plan, outcome, anonymous=name_of is not None)
    return 3 if outcome.failures else 0


def _options(**values: Any) -> Options:
    if not 0 <= values["min_confidence"] <= 1:
        raise ConfigError(f"--min-confidence is {values['min_confidence']}", fix="a number from 0 to 1")
    if not _DATASET.fullmatch(values["dataset"]):
        raise ConfigError(f"--dataset is '{values['dataset']}'", fix="as nnU-Net wants it: Dataset501_Name")
    for name, allowed in (
        ("incomplete", ("ignore", "background", "drop")),
        ("pet_normalization", ("image", "dataset", "none")),
    ):
        if values[name] not in allowed:
            raise ConfigError(f"--{name.replace('_', '-')} is '{values[name]}'", fix=f"one of {', '.join(allowed)}")
    return Options(**values)


def _root(out: Path, options: Options) -> Path:
    """nnU-Net finds a data set by its folder's name: OUT is that folder, or holds it as nnUNet_raw does."""
    if options.to not in ("nnunet", "voxtell") or _DATASET.fullmatch(out.name):
        return out
    return out / options.dataset


def _namer(path: Path | None) -> Namer | None:
    """("exam" or "patient", id) to its keyed hash; the two kinds of one id do not look alike."""
    if path is None:
        return None
    from petground.pipeline.deid.keys import keyed_id, read_key

    key = read_key(path)
    return lambda kind, value: keyed_id(key, value, prefix=f"{kind}-")


def _describe(console: Console, plan: Draft, options: Options) -> None:
    table = Table(title="What becomes of every SUV mention", title_justify="left")
    for column in ("stage", "fate", "mentions"):
        table.add_column(column, justify="right" if column == "mentions" else "left")
    for row in fates(plan.selection, exact=True):
        table.add_row(row["stage"], row["fate"], str(row["count"]))
    console.print(table)
    parts = [part for part in PARTS if options.shares.get(part, 0) > 0]
    shares = ", ".join(f"{part} {100 * options.shares[part]:.3g} %" for part in parts)  # --split need not add up to 100
    table = Table(title=f"Patients by part: {shares}", title_justify="left")
    table.add_column("trait")
    for part in parts:
        table.add_column(part, justify="right")
    for row in strata_table(plan.partition):
        table.add_row(row["trait"], *(str(row[part]) for part in parts))
    console.print(table)
    selection = plan.selection
    if selection.without_patient:
        console.print(
            f"{selection.without_patient} exams have no patient id and count as a patient each: two exams of one "
            "person may lie in two parts",
            style="yellow",
            highlight=False,
        )
    if plan.partition.moved:
        console.print(
            f"{plan.partition.moved} patients changed their part: they turned out to share exams with others",
            style="yellow",
            highlight=False,
        )
    if line := _empty_parts(plan, options):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    patient_of = {row["exam_id"]: row["patient_id"] for row in selection.exam_rows}
    across = sum(patient_of[d.exam_a] != patient_of[d.exam_b] for d in plan.duplicates)
    if plan.duplicates:
        what = "one of each image kept" if options.drop_duplicates else "kept in one part"
        line = f"{len(plan.duplicates)} pairs of exams look alike, {across} across two patient ids: {what}"
        console.print(line, style="yellow" if across else None, highlight=False)


def _empty_parts(plan: Draft, options: Options) -> str | None:
    """One line where a part that was asked for got nobody, with why and what is then not written."""
    part, fold, patients = plan.partition.part, plan.partition.fold, set(plan.partition.traits)
    empty = [name for name in PARTS if options.shares.get(name, 0) > 0 and name not in {part[p] for p in patients}]
    if not empty or not patients:
        return None
    patient_of = {row["exam_id"]: row["patient_id"] or row["exam_id"] for row in plan.selection.exam_rows}
    pairs = [{patient_of[d.exam_a], patient_of[d.exam_b]} for d in plan.duplicates]
    linked = patients & set().union(*(pair for pair in pairs if len(pair) > 1))
    line = f"nobody is in {' and '.join(empty)}: of {len(patients)} patients"
    line += f" {len(linked)} are kept together by exams that look alike" if linked else " there are too few"
    if options.to not in ("nnunet", "voxtell"):
        return line
    folds = len({fold[patient] for patient in patients if part[patient] != "test"})
    gone = [name for name, is_gone in (("imagesTs", "test" in empty), ("splits_final.json", folds < 2)) if is_gone]
    return line + (f"; there is no {' and no '.join(gone)}" if gone else "")


def _report(console: Console, plan: Draft, outcome: Outcome, *, anonymous: bool) -> None:
    release = outcome.release
    for exam_id, why in sorted(outcome.failures.items())[:20]:
        line = f"{exam_id} failed ({why})"
        console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
    if not anonymous:
        console.print("exam ids leave as they are; --anonymous-ids KEYFILE makes them keyed hashes", style="yellow")
    if layout_of(release.options.to).words:
        line = "sentences leave as the reports have them: run petground deidentify before they are labelled"
        console.print(line, style="yellow")
    labels = sum(len(case.exam.lesions) for case in release.cases)
    told = f"{len(release.cases)} exams with {labels} labels ({outcome.made} written now"
    told += f", {outcome.removed} of an earlier run removed)" if outcome.removed else ")"
    if outcome.failures:
        told += f", {len(outcome.failures)} failed"
    console.print(told, highlight=False)
    if plan.duplicates:
        console.print("pairs that look alike: duplicates.parquet in the work folder", highlight=False)
    console.print(
        f"data set: {release.root}; what is in it: {release.root / 'DATA_CARD.md'}", highlight=False, soft_wrap=True
    )

"""`petground phantom`: PET/CT exams with known lesions and reports, made from numbers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.executors import Outcome, executor
from petground.pipeline.phantom.exam import exam_id_of
from petground.pipeline.phantom.write import code_hash, finished, sweep, write_exam, write_tables
from petground.pipeline.progress import progress

__all__ = ["phantom"]

TIME_LIMIT_S = 600.0


def phantom(
    out: Path,
    exams: int = 60,
    seed: int = 1,
    format: Literal["nifti", "dicom"] = "nifti",
    mirrored: bool = False,
    workers: int | None = None,
) -> int:
    """Make PET/CT exams, vertex to mid-thigh, with lesions whose outline is known, and a report on each.

    OUT/exams/<exam_id>/ holds pet.nii.gz [SUVbw] and ct.nii.gz [HU], or DICOM; OUT/reports.csv the reports;
    OUT/truth.parquet and OUT/truth/<exam_id>/<lesion_id>.nii.gz what is true of each lesion. The same seed gives the
    same exams, whatever their number; exams that are there already are not made again. No patient data is in them.

    Args:
        out: folder to write to.
        exams: how many exams.
        seed: another seed gives other patients.
        format: NIfTI files, or DICOM series with PT and CT attributes as scanners write them.
        mirrored: lesions come in pairs of like SUVmax at the same site of both sides: only the words left and right
            tell which is meant. A hard test of models that read.
        workers: processes at once; default: one per core that this job may use.
    """
    if exams < 1:
        raise ConfigError(f"--exams is {exams}", fix="give 1 or more")
    if seed < 0:
        raise ConfigError(f"--seed is {seed}", fix="give 0 or more")
    if format not in ("nifti", "dicom"):
        raise ConfigError(f"--format is '{format}'", fix="nifti or dicom")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", fix="give a folder with --out")
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            failed = _make(console, out, exams, seed, format, mirrored, workers)
    except Timeout:
        raise InputError(f"another run is writing to {out}", fix="wait for it, or choose another --out") from None
    for outcome in failed:
        console.print(f"{outcome.case} failed ({outcome.reason}): {outcome.detail}", style="red", highlight=False)
    return 3 if failed else 0


def _make(
    console: Console, out: Path, exams: int, seed: int, form: str, mirrored: bool, workers: int | None
) -> list[Outcome]:
    sweep(out)
    ids = [exam_id_of(seed, index) for index in range(exams)]
    code = code_hash(mirrored=mirrored)
    missing = [
        (name, (str(out), seed, index, form, code, mirrored))
        for index, name in enumerate(ids)
        if finished(out, name, form, code) is None
    ]
    failed: list[Outcome] = []
    with progress(console) as tick, executor(workers=workers, timeout_s=TIME_LIMIT_S) as run:
        done = exams - len(missing)
        tick("phantom", done, exams)
        for outcome in run(write_exam, missing):
            done += 1
            tick("phantom", done, exams)
            if outcome.reason:
                failed.append(outcome)
    records = [record for name in ids if (record := finished(out, name, form, code)) is not None]
    write_tables(out, records)
    lesions = sum(len(record["truth"]) for record in records)
    made = len(missing) - len(failed)
    console.print(f"{len(records)} exams with {lesions} lesions in {out} ({made} made now)", highlight=False)
    return failed

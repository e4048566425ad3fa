"""`petground deidentify`: reports and exams without identities, before anything leaves the hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.commands.label import make_folder
from petground.pipeline.commands.running import Means, running
from petground.pipeline.deid.keys import new_key as make_key
from petground.pipeline.deid.keys import read_key
from petground.pipeline.deid.profile import read_profile
from petground.pipeline.deid.run import Deid, Done, run_deid
from petground.pipeline.deid.sample import describe, write_sample
from petground.pipeline.reports import open_export

__all__ = ["deidentify"]


def deidentify(
    key: Path,
    reports: Path | None = None,
    exams: Path | None = None,
    out: Path | None = None,
    profile: Path | None = None,
    table: Literal["csv", "jsonl", "parquet"] = "csv",
    keep_map: Path | None = None,
    sample: int = 0,
    engine: Literal["local", "dask"] = "local",
    workers: int | None = None,
    address: str | None = None,
    cluster: Path | None = None,
    timeout_minutes: float = 30.0,
    memory_gib: float | None = None,
    new_key: bool = False,
    dry_run: bool = False,
) -> int:
    """Remove identities from reports and DICOM: names, numbers, places; dates move, ids become keyed hashes.

    Make a key once (`petground deidentify --new-key --key site.key`), keep it where only you can read it, and use it
    for every export: the same patient then keeps the same new id. OUT gets reports, exams and what was removed, ready
    for `petground label`. Run it again after an interruption: what is finished is kept. SUVs, slices, geometry and
    pixels stay as they are. No automatic method is perfect: read docs/deidentification.md, and look at a --sample.

    Args:
        key: file with the key (64 hex digits, mode 600).
        reports: CSV, JSONL or Parquet with exam_id, report_text and, where known, patient_id, tracer, study_date,
            scanner. All further columns are only looked through for names and numbers to remove.
        exams: folder with one folder per exam_id: DICOM in any nesting, or pet.nii.gz and ct.nii.gz. Without it the
            reports are cleaned alone, and what only the DICOM headers know of a person is not looked for in them.
        out: folder for what may leave.
        profile: YAML with the site's settings: names of staff, hospitals, how dates are written.
        table: form of OUT's report table.
        keep_map: file for a table of old and new ids, outside OUT; without it none is written.
        sample: write so many reports, original beside result, to OUT.sample.html (beside OUT, mode 600) for a person
            to check. It holds patient data and must not leave.
        engine: local processes, or a Dask cluster; workers must be able to read the key.
        workers: processes at once; default: one per core that this job may use.
        address: scheduler of a running Dask cluster, tcp://HOST:PORT.
        cluster: YAML with the jobs to submit (docs/slurm.md).
        timeout_minutes: an exam that takes longer is recorded as failed and left.
        memory_gib: an exam whose process takes more is recorded as failed and left; default: no limit.
        new_key: make a new key and stop.
        dry_run: only say what would be removed.
    """
    console = Console()
    if new_key:
        make_key(key)
        console.print(f"new key in {key}: keep it safe, and out of what leaves", highlight=False, soft_wrap=True)
        return 0
    if reports is None or (out is None and not dry_run):
        raise ConfigError("--reports and --out are needed", fix="or --new-key to make a key")
    settings = read_profile(profile)
    read_key(key)
    export = open_export(reports)
    if exams is not None and not exams.is_dir():
        raise InputError(f"no folder of exams at {exams}", fix="one folder per exam_id is expected in it")
    means = Means(engine, workers, timeout_minutes, memory_gib, address, cluster)
    if dry_run:
        describe(console, export, exams, key, settings)
        return 0
    assert out is not None
    exams, out, key = exams and exams.resolve(), out.resolve(), key.resolve()
    _keep_apart(out, exams, key=key, keep_map=keep_map, reports=reports.resolve())
    make_folder(out)
    with running(means, out, *([exams] if exams else []), console=console) as (run_cases, tick):
        done = run_deid(Deid(export, exams, out, key, settings, run_cases, table, keep_map), tick)
    if sample:
        page = out.with_name(f"{out.name}.sample.html")
        write_sample(page, export, exams, key, settings, sample)
    _tell(console, out, done, sampled=bool(sample))
    return 3 if done.failures else 0


def _keep_apart(out: Path, exams: Path | None, *, key: Path, keep_map: Path | None, reports: Path) -> None:
    """What must not leave may not lie in what leaves, nor the other way round."""
    inside = {"--key": key, "--reports": reports} | ({} if exams is None else {"--exams": exams})
    if keep_map is not None:
        inside["--keep-map"] = keep_map.resolve()
    for name, path in inside.items():
        if path == out or out in path.parents:
            raise ConfigError(
                f"{name} lies in OUT", fix="OUT is what leaves; keep the key, the map and the originals elsewhere"
            )
    if exams is not None and exams in out.parents:
        raise ConfigError("OUT lies among the exams", fix="give another folder with --out")


def _tell(console: Console, out: Path, done: Done, *, sampled: bool) -> None:
    table = Table(title="Replaced in reports", title_justify="left")
    table.add_column("kind")
    table.add_column("places", justify="right")
    kinds: dict[str, int] = {}
    for kind, _, count, _ in done.tally.total("report"):
        kinds[kind] = kinds.get(kind, 0) + count
    for kind, count in kinds.items():
        table.add_row(kind, str(count))
    console.print(table)
    left = ", ".join(f"{reason} {count}" for reason, _, count, _ in done.tally.total("file"))
    files = ", ".join(f"{what} {count}" for what, count in sorted(done.tally.written.items())) or "no images"
    console.print(f"{done.reports} reports; images written: {files}; left out: {left or 'none'}", highlight=False)
    if done.tally.kept:
        console.print(f"the images of {done.tally.kept} exams are those of an earlier run", highlight=False)
    if done.tally.read_otherwise:
        console.print(f"{done.tally.read_otherwise} reports are read differently now: look at a sample", style="yellow")
    if unread := done.tally.total("header"):
        told = ", ".join(f"{what} in {count} exams" for what, _, count, _ in unread)
        console.print(f"damaged header values could not be sought in the reports: {told}", style="yellow")
    for exam_id, reason, detail in done.failures[:20]:
        console.print(f"  {exam_id}: {reason}: {detail}", style="red", highlight=False, markup=False, soft_wrap=True)
    if len(done.failures) > 20:
        console.print(f"  and {len(done.failures) - 20} more", style="red")
    if sampled:
        page = out.with_name(f"{out.name}.sample.html")
        console.print(
            f"sample with patient data, for your eyes: {page}", style="yellow", highlight=False, soft_wrap=True
        )
    console.print(f"to look through before it leaves: {out / 'removed.html'}", highlight=False, soft_wrap=True)

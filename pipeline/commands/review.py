"""`petground review`: pages for physicians out, their decisions back in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site
from petground.pipeline.commands.label import read_site
from petground.pipeline.decided import decisions_of, kept_out
from petground.pipeline.edited import EDITED
from petground.pipeline.nifti import read_nifti
from petground.pipeline.progress import progress
from petground.pipeline.review.decisions import add_decisions, label_hash, read_decisions
from petground.pipeline.review.load import Case, Work, open_work
from petground.pipeline.review.pack import write_pack
from petground.pipeline.review.verdict import verdicts_of
from petground.pipeline.settings_file import site_of_work

__all__ = ["export", "import_decisions", "serve"]

DOWNLOADED = "Download on a page gives one file per exam: import WORK ~/Downloads/decisions_*.csv"


def export(
    work: Path,
    out: Path,
    site: Path | None = None,
    exams: list[str] | None = None,
    reviewer: str | None = None,
) -> int:
    """Write a page per exam on which a physician judges the labels; DICOM SEG and SR for DICOM exams.

    The pages need no server and no network: open OUT/index.html. Decisions are kept by the browser and downloaded as
    CSV or JSONL, a file per exam; OUT/decisions.csv is a blank sheet for those who rather write them into a table. A
    label that the newest imported decision rejects, or that it is unsure of, is in no SEG or SR.

    Args:
        work: the WORK folder of `petground label`.
        out: folder for the pages, OUT/<exam_id>/seg.dcm and sr.dcm.
        site: the site file that the labels were made with; default: the conventions kept in WORK.
        exams: only these exam ids, e.g. --exams a b; default: all.
        reviewer: name for the SR's person observer, as "Family^Given"; named where this person's imported decisions
            accept every label of the SR; default: only the software is named.
    """
    console = Console()
    tables = open_work(work)
    convention = _site(work, site)
    verdicts = verdicts_of(decisions_of(work))
    unnamed: list[str] = []

    def dicom(case: Case, folder: Path) -> None:
        from petground.pipeline.review.dicom_out import write_dicom_objects

        accepted = reviewer is not None and verdicts.accepted_by(case, reviewer)
        write_dicom_objects(case, folder, reviewer=reviewer if accepted else None)
        if reviewer is not None and not accepted:
            unnamed.append(case.exam_id)

    with progress(console) as tick:
        outcome = write_pack(tables, out, convention, exams, dicom, tick, verdicts)
    for exam_id, message in (*outcome.failures, *outcome.rejected):
        line = message if message.startswith(exam_id) else f"{exam_id}: {message}"
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if unnamed:
        line = f"{len(unnamed)} SR name no person: {reviewer} has not accepted every label ({', '.join(unnamed[:10])})"
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{outcome.exams} pages, {outcome.labels} labels to judge", highlight=False)
    console.print(f"open {out / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
    return 3 if outcome.failures else 0


def serve(
    work: Path,
    site: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8787,
) -> int:
    """Serve the review pages from WORK; what a physician decides or takes back is in WORK/decisions.csv at once.

    Pages are made when they are asked for, so nothing is exported first. The address that is printed holds a secret
    word: only who has it gets in. Stop it with Ctrl-C. Without a server: `petground review export`.

    Args:
        work: the WORK folder of `petground label`.
        site: the site file that the labels were made with; default: the conventions kept in WORK.
        host: the address to listen on. Beyond this machine the pages travel unencrypted: put a TLS proxy before it.
        port: 0 takes a free one.
    """
    from petground.pipeline.review.serve import Desk, desk_server

    console = Console()
    tables = open_work(work)
    desk = Desk(tables, _site(work, site))
    with desk_server(desk, host, port) as (server, address):
        console.print(f"{len(tables.exams)} exams, {len(tables.labels)} labels; decisions go to {work}/decisions.csv")
        console.print(f"open {address}", highlight=False, markup=False, soft_wrap=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("stopped; every decision that was saved is kept")
    return 0


def import_decisions(
    work: Path, decisions: list[Path] | None = None, edited: Path | None = None, reviewer: str | None = None
) -> int:
    """Take physicians' decisions into WORK/decisions.csv, and outlines that they redrew into WORK/edited.

    Decisions are added, never replaced: a second reader or a second thought is another row. Importing a file twice
    changes nothing; a row that cannot be right, or a file without a decision, stops the import before anything is
    written.

    Redrawn outlines (DICOM SEG or RTSTRUCT from OHIF or 3D Slicer, NIfTI from 3D Slicer or ITK-SNAP) must lie on the
    exam's PET grid. Each is for the finding that its tracking UID, its own name or its file's name tells: f001 of E17
    is a segment or ROI named "f001 ..." on the PET of E17, or E17/f001.nii.gz, or E17_f001.nii.gz; a label map of
    several findings needs a table of label names beside it. What was not edited may stay in the file. From then on the
    outline counts in place of the grown one, in pages, exports, training and evaluation; to undo it, delete it in
    WORK/edited.

    Args:
        work: the WORK folder that the pages were exported from.
        decisions: CSV or JSONL files downloaded from the review pages, e.g. ~/Downloads/decisions_*.csv, or a folder:
            every file in it that is named decisions*.
        edited: file or folder with redrawn outlines.
        reviewer: who drew them: each is then also an "accept" of that person for the new outline.
    """
    if not decisions and edited is None:
        raise ConfigError("nothing to import", fix="give the files of decisions, or --edited")
    if reviewer is not None and (edited is None or not reviewer.strip()):
        raise ConfigError("--reviewer names who drew the outlines of --edited", fix="give both; a page asks for itself")
    console = Console()
    tables = open_work(work)
    if decisions:
        _take_decisions(console, tables, decisions)
    return 0 if edited is None else _take_edited(console, tables, edited, reviewer)


def _take_decisions(console: Console, tables: Work, decisions: list[Path]) -> None:
    known = {(str(r["exam_id"]), str(r["finding_id"])) for r in tables.findings}
    new: list[dict[str, str]] = []
    for given in decisions:
        found = [row for path in _decision_files(given) for row in read_decisions(path, known)]
        if not found:
            raise InputError(f"no decision in {given}", fix=DOWNLOADED)
        new += found
    place = tables.folder / "decisions.csv"
    added, merged = add_decisions(place, new)
    stale = sum(row["label_hash"] != _hash_now(tables, row) for row in added)
    told = f"{len(added)} decisions added, {len(merged)} in all: {place}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    if repeated := len(new) - len(added):
        console.print(f"{repeated} were there already", highlight=False)
    if stale:
        console.print(f"{stale} were made on labels that have changed since; see label_hash", style="yellow")


def _decision_files(given: Path) -> list[Path]:
    """The file itself; of a folder, in which a browser puts much else, those named like the pages' downloads."""
    if not given.is_dir():
        return [given]
    return [p for p in sorted(given.glob("decisions*")) if p.suffix.lower() in (".csv", ".jsonl", ".ndjson")]


def _take_edited(console: Console, tables: Work, edited: Path, reviewer: str | None) -> int:
    from petground.pipeline.review.take_drawn import take_drawn

    work = tables.folder
    try:
        with FileLock(work / ".lock", timeout=0), progress(console) as tick:
            taken = take_drawn(tables, _site(work, None), edited, reviewer, tick)
    except Timeout:
        raise InputError(f"another run is writing to {work}", fix="wait for it") from None
    for (exam_id, finding_id), record in taken.kept.items():
        line = f"{exam_id} {finding_id}: {record.volume_ml:.2f} ml, SUVmax {record.suv_measured:.2f}, {record.kind}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if reviewer is not None and taken.kept:
        common = {"decision": "accept", "reason": "redrew the outline", "reviewer": reviewer.strip()}
        rows = [
            {**common, "exam_id": key[0], "finding_id": key[1], "time": record.imported, "version": record.petground,
             "label_hash": taken.hashes[key]}
            for key, record in taken.kept.items()
        ]  # fmt: skip
        add_decisions(work / "decisions.csv", rows)
    for name, message in taken.failures:
        line = f"{name}: {message}"
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    told = f"{len(taken.kept)} outlines taken into {work / EDITED}, {taken.unchanged} as they were"
    console.print(f"{told}, {len(taken.failures)} refused", highlight=False, markup=False, soft_wrap=True)
    out = kept_out(decisions_of(work))
    if unused := [" ".join(key) for key in taken.kept if key in out]:
        line = f"not used while the newest decision keeps them out: {', '.join(unused)} (import with --reviewer)"
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return 3 if taken.failures else 0


def _site(work: Path, given: Path | None) -> Site:
    """The conventions that the labels were made with, as WORK keeps them; those of a file where it keeps none."""
    used = site_of_work(work)
    if used is None:
        return read_site(given)
    if given is not None and (asked := read_site(given)) != used:
        other = [name for name, value in asdict(asked).items() if value != asdict(used)[name]]
        raise ConfigError(
            f"{given.name} is not the site that the labels were made with: {', '.join(other)}",
            fix="leave --site out, or label again with it",
        )
    return used


def _hash_now(tables: Work, row: dict[str, str]) -> str:
    rows = tables.of(row["exam_id"])
    finding = next(r for r in rows.findings if str(r["finding_id"]) == row["finding_id"])
    label = rows.labels.get(row["finding_id"])
    if label is None:
        return label_hash(finding, None)
    path = tables.folder / label["mask_path"]
    return label_hash(finding, read_nifti(path, "label")) if path.is_file() else "missing"

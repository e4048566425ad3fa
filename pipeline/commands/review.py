"""`petground review`: pages for physicians out, their decisions back in."""

from __future__ import annotations

import csv
from pathlib import Path

from rich.console import Console

from petground.labeling.errors import InputError
from petground.pipeline.commands.label import read_site
from petground.pipeline.nifti import read_nifti
from petground.pipeline.progress import progress
from petground.pipeline.review.decisions import (
    COLUMNS,
    label_hash,
    merge_decisions,
    read_decisions,
    write_decisions,
)
from petground.pipeline.review.load import Case, Work, open_work
from petground.pipeline.review.pack import write_pack

__all__ = ["export", "import_decisions"]


def export(
    work: Path,
    out: Path,
    site: Path | None = None,
    exams: list[str] | None = None,
    reviewer: str | None = None,
) -> int:
    """Write a page per exam on which a physician judges the labels; DICOM SEG and SR for DICOM exams.

    The pages need no server and no network: open OUT/index.html. Decisions are kept by the browser and downloaded as
    CSV or JSONL; OUT/decisions.csv is a sheet for those who rather write them into a table.

    Args:
        work: the WORK folder of `petground label`.
        out: folder for the pages, OUT/<exam_id>/seg.dcm and sr.dcm.
        site: the site file that the labels were made with; default: slices from the head, from 1.
        exams: only these exam ids, e.g. --exams '[a, b]'; default: all.
        reviewer: name for the SR's person observer, as "Family^Given"; default: only the software is named.
    """
    console = Console()
    convention = read_site(site)
    tables = open_work(work)

    def dicom(case: Case, folder: Path) -> None:
        from petground.pipeline.review.dicom_out import write_dicom_objects

        write_dicom_objects(case, folder, reviewer=reviewer)

    with progress(console) as tick:
        outcome = write_pack(tables, out, convention, exams, dicom, tick)
    for exam_id, message in outcome.failures:
        line = message if message.startswith(exam_id) else f"{exam_id}: {message}"
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{outcome.exams} pages, {outcome.labels} labels to judge", highlight=False)
    console.print(f"open {out / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
    return 3 if outcome.failures else 0


def import_decisions(work: Path, decisions: Path) -> int:
    """Take physicians' decisions into WORK/decisions.csv.

    Rows are added, never replaced: a second reader or a second thought is another row. Importing a file twice changes
    nothing; a row that cannot be right stops the import before anything is written.

    Args:
        work: the WORK folder that the pages were exported from.
        decisions: CSV or JSONL downloaded from a review page.
    """
    console = Console()
    tables = open_work(work)
    known = {(str(r["exam_id"]), str(r["finding_id"])) for r in tables.findings}
    new = read_decisions(decisions, known)
    path = work / "decisions.csv"
    old = _earlier(path)
    merged = merge_decisions(old, new)
    write_decisions(path, merged)
    stale = sum(row["label_hash"] != _hash_now(tables, row) for row in merged[len(old) :])
    console.print(
        f"{len(merged) - len(old)} decisions added, {len(merged)} in all: {path}", highlight=False, markup=False
    )
    if repeated := len(new) - (len(merged) - len(old)):
        console.print(f"{repeated} were there already", highlight=False)
    if stale:
        console.print(f"{stale} were made on labels that have changed since; see label_hash", style="yellow")
    return 0


def _earlier(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not readable", fix="restore it; decisions are not made anew") from error
    if list(reader.fieldnames or []) != list(COLUMNS):
        raise InputError(f"{path} has other columns than this release writes", fix="rename it and import again")
    return rows


def _hash_now(work: Work, row: dict[str, str]) -> str:
    for label in work.labels:
        if (label["exam_id"], label["finding_id"]) == (row["exam_id"], row["finding_id"]):
            path = work.folder / label["mask_path"]
            return label_hash(read_nifti(path, "label")) if path.is_file() else "missing"
    return label_hash(None)

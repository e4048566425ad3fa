"""`petground review`: pages for physicians out, their decisions back in."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site, site_from_mapping
from petground.pipeline.commands.label import read_site
from petground.pipeline.nifti import read_nifti
from petground.pipeline.progress import progress
from petground.pipeline.review.decisions import add_decisions, label_hash, read_decisions, read_sheet
from petground.pipeline.review.load import Case, Work, open_work
from petground.pipeline.review.pack import write_pack
from petground.pipeline.review.verdict import verdicts_of

__all__ = ["export", "import_decisions", "serve"]


def export(
    work: Path,
    out: Path,
    site: Path | None = None,
    exams: list[str] | None = None,
    reviewer: str | None = None,
) -> int:
    """Write a page per exam on which a physician judges the labels; DICOM SEG and SR for DICOM exams.

    The pages need no server and no network: open OUT/index.html. Decisions are kept by the browser and downloaded as
    CSV or JSONL; OUT/decisions.csv is a sheet for those who rather write them into a table. A label that the newest
    imported decision rejects is in no SEG or SR.

    Args:
        work: the WORK folder of `petground label`.
        out: folder for the pages, OUT/<exam_id>/seg.dcm and sr.dcm.
        site: the site file that the labels were made with; default: the conventions kept in WORK.
        exams: only these exam ids, e.g. --exams '[a, b]'; default: all.
        reviewer: name for the SR's person observer, as "Family^Given"; named where this person's imported decisions
            accept every label of the SR; default: only the software is named.
    """
    console = Console()
    tables = open_work(work)
    convention = _site(work, site)
    verdicts = verdicts_of(read_sheet(work / "decisions.csv"))
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
    """Serve the review pages from WORK; what a physician saves lands in WORK/decisions.csv at once.

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
    added, merged = add_decisions(work / "decisions.csv", new)
    stale = sum(row["label_hash"] != _hash_now(tables, row) for row in added)
    told = f"{len(added)} decisions added, {len(merged)} in all: {work / 'decisions.csv'}"
    console.print(told, highlight=False, markup=False)
    if repeated := len(new) - len(added):
        console.print(f"{repeated} were there already", highlight=False)
    if stale:
        console.print(f"{stale} were made on labels that have changed since; see label_hash", style="yellow")
    return 0


def _site(work: Path, given: Path | None) -> Site:
    """The conventions that the labels were made with, as WORK keeps them; those of a file where it keeps none."""
    path = work / "site.json"
    if not path.is_file():
        return read_site(given)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON", fix="run `petground label` again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings", fix="run `petground label` again")
    used = site_from_mapping(values)
    if given is not None and (asked := read_site(given)) != used:
        other = [name for name, value in asdict(asked).items() if value != asdict(used)[name]]
        raise ConfigError(
            f"{given.name} is not the site that the labels were made with: {', '.join(other)}",
            fix="leave --site out, or label again with it",
        )
    return used


def _hash_now(work: Work, row: dict[str, str]) -> str:
    key = (row["exam_id"], row["finding_id"])
    finding = next(r for r in work.findings if (r["exam_id"], r["finding_id"]) == key)
    for label in work.labels:
        if (label["exam_id"], label["finding_id"]) == key:
            path = work.folder / label["mask_path"]
            return label_hash(finding, read_nifti(path, "label")) if path.is_file() else "missing"
    return label_hash(finding, None)

"""Everything that a reviewer is given: a page per exam, an index, a sheet for decisions, DICOM SEG and SR."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError, PetgroundError
from petground.labeling.site import Site
from petground.pipeline.decided import COLUMNS, decided
from petground.pipeline.files import write_bytes
from petground.pipeline.review.decisions import label_hash, read_sheet, write_decisions
from petground.pipeline.review.earlier import earlier_exams
from petground.pipeline.review.judge import alarms
from petground.pipeline.review.load import Case, Work, load_case
from petground.pipeline.review.page import Stamp, file_name, render_case, render_index, render_mentions
from petground.pipeline.review.verdict import Verdicts

__all__ = ["Outcome", "exam_entry", "exam_page", "stamp_of", "write_pack"]

OBJECTS = ("seg", "sr", "rwvm")
NOTHING_DECIDED = Verdicts()


@dataclass(frozen=True)
class Outcome:
    """What was written, (exam_id, message) of what could not be, and of labels left out as a physician said."""

    exams: int
    labels: int
    failures: tuple[tuple[str, str], ...]
    rejected: tuple[tuple[str, str], ...] = ()


def write_pack(
    work: Work,
    out: Path,
    site: Site,
    exams: Sequence[str] | None = None,
    dicom: Callable[[Case, Path], None] | None = None,
    tick: Callable[[str, int, int], None] = lambda stage, done, total: None,
    verdicts: Verdicts = NOTHING_DECIDED,
) -> Outcome:
    """Writes OUT/index.html, OUT/<exam_id>.html, OUT/decisions.csv, and what `dicom(case, folder)` adds for DICOM.

    `dicom` is given the case without the labels that `verdicts` keep out. An exam that fails is named in the index and
    stops no other; nothing of an earlier export of it stays, and where all exams are exported nothing of those that
    have left WORK. Decisions that someone wrote into an earlier decisions.csv stay in it. Raises InputError for an
    unknown exam id, when `out` cannot be written, and before anything is written when an earlier decisions.csv is not
    understood.
    """
    chosen = _chosen(work, exams)
    with _writable(out):
        out.mkdir(parents=True, exist_ok=True)
    _earlier(out / "decisions.csv")
    if not exams:
        with _writable(out):
            for gone in earlier_exams(out) - {str(exam["exam_id"]) for exam in work.exams}:
                _clear(out, gone)
    stamp = stamp_of(work)
    index, sheet, failures, rejected = [], [], [], []
    for done, exam in enumerate(chosen, start=1):
        entry = exam_entry(work, exam, verdicts)
        index.append(entry)
        with _writable(out):
            _clear(out, str(exam["exam_id"]))
        try:
            text, case = exam_page(work, exam, entry, site, stamp, verdicts)
        except PetgroundError as error:
            entry["note"] = f"no page: {error}"
            failures.append((str(exam["exam_id"]), str(error)))
            text, case = None, None
        if text is not None:
            entry["href"] = f"{file_name(str(exam['exam_id']))}.html"
            with _writable(out):
                write_bytes(out / entry["href"], text.encode())
        if case is not None:
            sheet += [_blank(case, item, stamp.version) for item in case.items]
            kept, left_out = _accepted(case, verdicts)
            if left_out:
                rejected.append((case.exam_id, left_out))
                entry["note"] = left_out
            entry["files"], problem = _dicom(kept, out, dicom)
            if problem is not None:
                entry["note"] = "; ".join(filter(None, (entry["note"], f"no SEG and SR: {problem}")))
                failures.append((case.exam_id, f"no SEG and SR: {problem}"))
        tick("review", done, len(chosen))
    with _writable(out):
        write_bytes(out / "index.html", render_index(index, version=stamp.version, exported=stamp.exported).encode())
        write_decisions(out / "decisions.csv", _with_earlier(out / "decisions.csv", sheet))
    judged = [e for e in index if e["href"] is not None and e["findings"]]
    return Outcome(len(judged), sum(e["labels"] for e in judged), tuple(failures), tuple(rejected))


def stamp_of(work: Work) -> Stamp:
    """Version, time and key of the pages that are made now."""
    return Stamp(
        version=importlib.metadata.version("petground"),
        exported=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        key=hashlib.sha256(str(work.folder.resolve()).encode()).hexdigest()[:12],
    )


def exam_page(
    work: Work,
    exam: dict[str, Any],
    entry: dict[str, Any],
    site: Site,
    stamp: Stamp,
    verdicts: Verdicts = NOTHING_DECIDED,
) -> tuple[str | None, Case | None]:
    """The exam's page, and the case when there is something to judge; (None, None) for an exam without findings."""
    if entry["findings"] and exam["status"] != "failed":
        case = load_case(work, exam, site)
        site = case.site  # where conventions differ by scanner or year, those of this exam
        entry["alarms"] = sum(
            any(a["level"] != "note" for a in alarms(case, item, site)) for item in case.items if item.label is not None
        )
        return render_case(case, site, stamp, verdicts.of(case.exam_id)), case
    if exam["status"] == "failed":
        entry["note"] = f"failed: {exam.get('detail') or exam.get('reason')}"
    mentions = work.of(str(exam["exam_id"])).findings
    return (render_mentions(exam, mentions, stamp) if mentions else None), None


def _chosen(work: Work, exams: Sequence[str] | None) -> list[dict[str, Any]]:
    if not exams:
        return work.exams
    known = {str(e["exam_id"]): e for e in work.exams}
    for exam_id in exams:
        if exam_id not in known:
            raise InputError(f"no exam '{exam_id}' in {work.folder}", fix="see exam_id in exams.parquet")
    return [known[exam_id] for exam_id in dict.fromkeys(exams)]


def exam_entry(work: Work, exam: dict[str, Any], verdicts: Verdicts = NOTHING_DECIDED) -> dict[str, Any]:
    """An exam's line in the index, its page not made yet. decided: of the findings that a page asks about."""
    exam_id = str(exam["exam_id"])
    rows, words = work.of(exam_id), verdicts.words(exam_id)
    asked = [str(r["finding_id"]) for r in rows.findings if exam["status"] != "failed" and work.judged(r)]
    told = [words[finding_id] for finding_id in asked if finding_id in words]
    judged = [r for r in rows.findings if r["status"] == "positive" or r.get("stage") in ("match", "contour", "check")]
    facts = [exam.get("tracer"), exam.get("study_date"), exam.get("source")]
    return {
        "exam_id": exam_id, "href": None, "facts": [f for f in facts if f], "findings": len(judged),
        "labels": len(rows.labels), "alarms": 0,
        "asked": len(asked), "decided": sum(decided(word) for word in told), "unsure": told.count("unsure"),
        "excluded": len(rows.findings) - len(judged), "note": "" if judged else "nothing to judge", "files": [],
    }  # fmt: skip


def _blank(case: Case, item: Any, version: str) -> dict[str, str]:
    blank = dict.fromkeys(COLUMNS, "")
    return blank | {
        "exam_id": case.exam_id, "finding_id": item.finding_id, "version": version,
        "label_hash": label_hash(item.finding, item.mask),
    }  # fmt: skip


def _clear(out: Path, exam_id: str) -> None:
    """Takes away an earlier export's page and objects of an exam: what fails now must not look as if it were there."""
    name = file_name(exam_id)
    (out / f"{name}.html").unlink(missing_ok=True)
    for kind in OBJECTS:
        (out / name / f"{kind}.dcm").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or it holds files of someone else
        (out / name).rmdir()


def _accepted(case: Case, verdicts: Verdicts) -> tuple[Case, str]:
    """The case without the labels that a physician's decision keeps out, and a sentence that names them."""
    why = verdicts.kept_out(case.exam_id)
    out = [item.finding_id for item in case.items if item.label is not None and item.finding_id in why]
    if not out:
        return case, ""
    kept = [item for item in case.items if item.finding_id not in out]
    named = ", ".join(f"{finding_id} ({why[finding_id]})" for finding_id in out)
    return replace(case, items=kept), f"not in SEG and SR as a physician decided: {named}"


def _dicom(
    case: Case, out: Path, dicom: Callable[[Case, Path], None] | None
) -> tuple[list[tuple[str, str]], str | None]:
    """Links to SEG and SR, and the reason why there are none."""
    if dicom is None or case.source.get("source") != "dicom" or all(i.mask is None for i in case.items):
        return [], None
    folder = out / file_name(case.exam_id)
    try:
        dicom(case, folder)
    except PetgroundError as error:
        return [], str(error)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # what pydicom and highdicom say of a header that they did not expect; it may quote the header, so only its kind
        return [], f"{type(error).__name__} while writing DICOM; the source series has attributes that cannot be used"
    return [(name.upper(), f"{folder.name}/{name}.dcm") for name in ("seg", "sr")], None


def _earlier(path: Path) -> list[dict[str, str]]:
    """Rows that someone wrote into the sheet of an earlier export."""
    try:
        rows = read_sheet(path)
    except PetgroundError as error:
        raise InputError(error.message, fix=f"move {path.name} away; it may hold decisions") from error
    return [row for row in rows if row["decision"] or row["reason"]]


def _with_earlier(path: Path, sheet: list[dict[str, str]]) -> list[dict[str, str]]:
    """The blank sheet after every row that someone wrote into an earlier sheet at this place."""
    written = _earlier(path)
    done = {(row["exam_id"], row["finding_id"], row["label_hash"]) for row in written}
    return written + [r for r in sheet if (r["exam_id"], r["finding_id"], r["label_hash"]) not in done]


@contextlib.contextmanager
def _writable(out: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(f"cannot write to {out}: {error.strerror}", fix="choose another --out") from error

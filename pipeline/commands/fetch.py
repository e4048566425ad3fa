"""`petground fetch`: the PET/CTs of a report export from a DICOMweb server, into one folder per exam."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.files import write_json
from petground.pipeline.progress import HEARTBEAT_S, counted
from petground.pipeline.reports import read_reports
from petground.pipeline.sources.retrieve import STAGING, By, Exam, fetch_exam
from petground.pipeline.sources.web import Server, Stopped, check, server

__all__ = ["fetch"]

GIVE_UP_AFTER = 5  # exams in a row that met no server: it is down, and the others would only wait


def fetch(
    url: str,
    reports: Path,
    out: Path,
    by: By = "auto",
    all_series: bool = False,
    user: str | None = None,
    token_env: str | None = None,
    ca: Path | None = None,
    workers: int = 4,
    retries: int = 4,
    timeout_seconds: float = 60.0,
    dry_run: bool = False,
) -> int:
    """Fetch the PET/CT of every report from a PACS by DICOMweb, ready for `petground label --exams OUT`.

    Of each study the attenuation-corrected PETs and the CT that belongs to them are fetched; uncorrected series,
    projections, localizers and other modalities are left out by what their headers say. An exam appears in
    OUT/<exam_id>/ when all of it is there. Run it again after an interruption: only what is missing is fetched.
    OUT/fetch.json holds a row per exam: which series were fetched and which were left out with why, or why it failed.

    The password of --user is read from the environment variable PETGROUND_DICOMWEB_PASSWORD; without --user and
    --token-env an entry of ~/.netrc for the host is used.

    Args:
        url: root of the DICOMweb service, e.g. https://pacs.example/dicom-web.
        reports: report export as for `petground label`; its exam_id is the accession number or StudyInstanceUID.
        out: folder for the exams.
        by: what exam_id is; auto takes what looks like a UID for one and asks by accession number otherwise.
        all_series: fetch every series of the study.
        user: name for basic authentication.
        token_env: environment variable that holds a bearer token.
        ca: PEM file of the certificate authority that signed the server's certificate.
        workers: exams at once.
        retries: tries after a failed one, with growing waits; a broken transfer goes on where it broke.
        timeout_seconds: longest silence of the server.
        dry_run: only ask which series would be fetched.
    """
    if workers < 1:
        raise ConfigError(f"--workers is {workers}", fix="give 1 or more")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", fix="give a folder with --out")
    console = Console()
    where = server(url, user=user, token_env=token_env, ca=ca, timeout_s=timeout_seconds, retries=retries)
    rows = read_reports(reports)
    check(where)
    if where.exposed:
        console.print("the password goes over the network unencrypted: use https", style="yellow")
    exams = [Exam(row.exam_id, row.study_date) for row in rows if _usable(row.problem)]
    unusable = [_failure(row.exam_id, *row.problem) for row in rows if row.problem and not _usable(row.problem)]
    if dry_run:
        found = list(_run(console, where, exams, out, workers, by=by, all_series=all_series, dry_run=True))
        return _report(console, [*found, *unusable], out, dry_run=True)
    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = _earlier(out)
    try:
        with FileLock(out / ".fetch.lock", timeout=0):
            try:
                done |= {row["exam_id"]: row for row in unusable}
                for row in _run(console, where, exams, out, workers, by=by, all_series=all_series):
                    done[row["exam_id"]] = row
            finally:
                write_json(out / "fetch.json", {"url": where.url, "exams": list(done.values())})
                _remove_empty(out / STAGING)
    except Timeout:
        raise InputError(f"another run is writing to {out}", fix="wait for it, or choose another --out") from None
    now = {exam.exam_id for exam in exams} | {row["exam_id"] for row in unusable}
    return _report(console, [row for name, row in done.items() if name in now], out)


def _usable(problem: tuple[str, str] | None) -> bool:
    """A report that cannot be read does not keep its images from being fetched; one without an exam does."""
    return problem is None or problem[0] == "no_report_text"


def _failure(exam_id: str, reason: str, detail: str) -> dict[str, Any]:
    return {"exam_id": exam_id, "status": "failed", "reason": reason, "detail": detail}


def _run(
    console: Console, where: Server, exams: list[Exam], out: Path, workers: int, **options: Any
) -> Iterator[dict[str, Any]]:
    """A row per exam as they come. Ctrl-C stops between two images; what came is kept."""
    stop = threading.Event()
    todo = iter(exams)
    running: dict[Future[dict[str, Any]], Exam] = {}
    unreachable = 0
    with _Throughput(console, len(exams)) as (received, finished), ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while len(running) < workers and unreachable < GIVE_UP_AFTER and (exam := next(todo, None)) is not None:
                    task = pool.submit(_guarded, where, exam, out, stop=stop, received=received, **options)
                    running[task] = exam
                if not running:
                    break
                for task in wait(running, return_when=FIRST_COMPLETED).done:
                    running.pop(task)
                    row = task.result()
                    unreachable = unreachable + 1 if row["reason"] == "unreachable" else 0
                    finished()
                    yield row
        finally:
            stop.set()
    for exam in todo:
        yield _failure(exam.exam_id, "not_tried", "the server could not be reached for the exams before (run again)")


def _guarded(where: Server, exam: Exam, out: Path, **options: Any) -> dict[str, Any]:
    """One exam's row, whatever becomes of it; a refused password ends the run."""
    try:
        return fetch_exam(where, exam, out, **options)
    except InputError as error:
        if error.reason == "not_allowed":
            raise
        return _failure(exam.exam_id, error.reason, error.message + (f" ({error.fix})" if error.fix else ""))
    except Stopped:
        return _failure(exam.exam_id, "stopped", "the run was stopped")
    except OSError:
        raise  # the disk: no exam after this one could be written
    except Exception as error:  # its text may quote what the server sent
        return _failure(exam.exam_id, "failed", type(error).__name__)


class _Throughput:
    """A bar with MB/s for a person, a line every half minute for a log file; yields (received, finished)."""

    def __init__(self, console: Console, total: int):
        self.console, self.total, self.done, self.size = console, total, 0, 0
        self.start = self.said = time.monotonic()
        self.lock = threading.Lock()
        self.bars: Progress | None = None

    def __enter__(self) -> tuple[Callable[[int], None], Callable[[], None]]:
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
            )
            self.bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
            self.task = self.bars.add_task("exams", total=self.total, rate="")
            self.bars.start()
        return self.received, self.finished

    def __exit__(self, *error: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def received(self, size: int) -> None:
        with self.lock:
            self.size += size
            self._say()

    def finished(self) -> None:
        with self.lock:
            self.done += 1
            self._say(last=self.done == self.total)

    def _say(self, last: bool = False) -> None:
        now = time.monotonic()
        rate = f"{self.size / 1e6:.0f} MB, {self.size / 1e6 / max(now - self.start, 1e-3):.1f} MB/s"
        if self.bars is not None:
            self.bars.update(self.task, completed=self.done, rate=rate)
        elif last or now - self.said >= HEARTBEAT_S:
            self.said = now
            self.console.print(f"{self.done} of {self.total} exams, {rate}", highlight=False)


def _earlier(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of earlier runs: those of exams that this run does not ask for stay."""
    try:
        rows = json.loads((out / "fetch.json").read_text(encoding="utf-8"))["exams"]
        return {row["exam_id"]: row for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _report(console: Console, rows: list[dict[str, Any]], out: Path, dry_run: bool = False) -> int:
    failed = [row for row in rows if row["status"] == "failed"]
    good = [row for row in rows if row["status"] != "failed"]
    images = sum(row["images"] for row in good)
    left = Counter(item["left_out"] for row in good for item in row["series"] if item["left_out"])
    if dry_run:
        console.print(f"{len(good)} of {len(rows)} exams found; {images} images would be fetched", highlight=False)
    else:
        new, size = sum(row["images_fetched"] for row in good), sum(row["bytes_fetched"] for row in good)
        told = (
            f"{len(good)} of {len(rows)} exams are in {out}: {images} images, {new} of them ({size / 1e6:.1f} MB) new"
        )
        console.print(told, highlight=False, soft_wrap=True)
    if left:
        console.print("series left out: " + ", ".join(f"{why} {count}" for why, count in left.most_common()))
    for row in failed[:10]:
        line = f"  {row['exam_id']}: {row['reason']}: {row['detail']}"
        console.print(line, highlight=False, markup=False, style="red", soft_wrap=True)
    if failed:
        why = ", ".join(f"{reason} {count}" for reason, count in Counter(row["reason"] for row in failed).items())
        told = f"{counted(len(failed), 'exam')} failed ({why})" + ("" if dry_run else f": see {out / 'fetch.json'}")
        console.print(told, style="red", highlight=False, soft_wrap=True)
    return 3 if failed else 0

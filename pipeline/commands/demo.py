"""`petground demo`: the whole tool on made-up exams, by the very commands that a user types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError, PetgroundError
from petground.pipeline.commands.label import make_folder
from petground.pipeline.files import read_json, write_json
from petground.pipeline.phantom.score import score_labels
from petground.pipeline.progress import counted
from petground.pipeline.reports import read_reports
from petground.pipeline.schemas import read_table
from petground.pipeline.stage import content_hash, source_hash

__all__ = ["demo"]

GIB = 1 << 30
ROOMS = ("configs", "kernels", "labeling", "models", "pipeline", "training")
GROUNDED = "phantom-2-0000"


@dataclass(frozen=True)
class Step:
    """One command of the demo and what a person is told of it."""

    name: str
    about: str
    arguments: tuple[str, ...]


def demo(out: Path = Path("demo"), exams: int = 100, test_exams: int = 15, fresh: bool = False) -> int:
    """Make phantom exams, label them, train a model, ground a report, export a review pack; see what comes out.

    Steps that are done already (same command, same code) are not run again.

    Args:
        out: folder of everything that is made.
        exams: phantom exams to learn from.
        test_exams: phantom exams held out, written as DICOM.
        fresh: run every step, also those that are done.
    """
    for flag, number in (("exams", exams), ("test-exams", test_exams)):
        if number < 1:
            raise ConfigError(f"--{flag} is {number}", fix="give 1 or more")
    console = Console()
    started = time.time()
    make_folder(out)
    code = source_hash(*(f"petground.{room}" for room in ROOMS))  # a step is run again after a change of code
    console.print(f"[bold]petground demo[/bold]: {exams} phantom exams to learn from, {test_exams} held out, in {out}/")
    marks = read_json(out / "steps.json")
    steps = _steps(out, exams, test_exams)
    for number, step in enumerate(steps, start=1):
        key = content_hash([step.arguments, code, [steps[i].arguments for i in range(number - 1)]])
        title = f"[{number}/{len(steps)}] {step.about}"
        if not fresh and marks.get(step.name, {}).get("key") == key:
            console.print(f"{title}: done before", highlight=False, markup=False)
            continue
        console.print(title, highlight=False, markup=False)
        console.print(f"      petground {' '.join(step.arguments)}", style="dim", highlight=False, markup=False)
        if marks.get(step.name, {}).get("begun") != key or fresh:
            _clear(out, step)
        marks[step.name] = {"begun": key}
        write_json(out / "steps.json", marks)
        if step.name == "ground":
            _write_report(out / "phantom_test" / "reports.csv", GROUNDED, out / "report.txt")
        seconds, peak_gib = _run(console, step, out / "logs" / f"{step.name}.log")
        console.print(f"      {seconds:.0f} s, {peak_gib:.1f} GiB", style="dim", highlight=False)
        marks[step.name] = {"begun": key, "key": key, "seconds": round(seconds, 1), "peak_gib": round(peak_gib, 2)}
        write_json(out / "steps.json", marks)
    summary = _summary(out, {step.name: marks[step.name] for step in steps}, time.time() - started)
    write_json(out / "summary.json", summary)
    rows = [row for work in ("work", "work_test") for row in read_table(out / work / "exams.parquet", "exams")]
    failed = sum(row["status"] == "failed" for row in rows)
    _show(console, out, summary, failed)
    return 3 if failed else 0


def _steps(out: Path, exams: int, test_exams: int) -> list[Step]:
    train, test, work, work_test = out / "phantom", out / "phantom_test", out / "work", out / "work_test"
    run, model = out / "run", out / "run" / "checkpoints" / "last.ckpt"
    learn = ("train", "fit", "--config", "demo", "--data.work", str(work), "--run_dir", str(run), "--ckpt_path", "last")
    pack = ("review", "export", str(work_test), "--out", str(out / "review"))
    return [
        Step("phantom", "phantom exams to learn from", _words("phantom", exams=exams, seed=1, out=train)),
        Step(
            "phantom_test",
            "held-out exams, as DICOM",
            _words("phantom", exams=test_exams, seed=2, out=test, format="dicom"),
        ),
        Step(
            "label",
            "labels from their reports",
            _words("label", reports=train / "reports.csv", exams=train / "exams", out=work),
        ),
        Step(
            "label_test",
            "labels of the held-out exams",
            _words("label", reports=test / "reports.csv", exams=test / "exams", out=work_test),
        ),
        Step("train", "a model that reads the sentence (the long step: nothing is learnt in the first minutes)", learn),
        Step(
            "evaluate",
            "right, shuffled and empty sentences against the truth",
            _words("evaluate", labels=work_test, checkpoint=model, truth=test, out=out / "evaluation"),
        ),
        Step(
            "ground",
            "a whole report on one held-out exam",
            _words(
                "ground",
                exam=test / "exams" / GROUNDED,
                report=out / "report.txt",
                checkpoint=model,
                out=out / "grounded",
            ),
        ),
        Step("review", "pages for the physician, DICOM SEG and SR", pack),
    ]


def _words(command: str, **flags: Any) -> tuple[str, ...]:
    return (command, *(word for flag, value in flags.items() for word in (f"--{flag}", str(value))))


def _run(console: Console, step: Step, log: Path) -> tuple[float, float]:
    """Runs the command in its own process; its output goes to the log, its last line is shown. Seconds, peak GiB."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-m", "petground.pipeline.cli"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "110"}
    process = subprocess.Popen(
        [*command, *step.arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    )
    peak: list[int] = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    last, spoken = "", start
    try:
        with log.open("w", encoding="utf-8") as stream, console.status("") as status:
            for line in process.stdout or ():
                stream.write(line)
                stream.flush()
                last = line.strip() or last
                now = time.monotonic()
                status.update(f"{now - start:4.0f} s  {last[:90]}")
                if not console.is_terminal and now - spoken > 30:
                    spoken = now
                    console.print(f"      {now - start:4.0f} s  {last[:90]}", highlight=False, markup=False)
            code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    watcher.join(timeout=2)
    if code not in (0, 3):
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise PetgroundError(f"step '{step.name}' failed with exit code {code}:\n{tail}\n", fix=f"see {log}")
    return time.monotonic() - start, peak[0] / GIB


def _clear(out: Path, step: Step) -> None:
    """A training that was begun by other code or settings is not gone on with; the other steps know for themselves."""
    if step.name == "train":
        shutil.rmtree(out / "run", ignore_errors=True)


def _write_report(reports: Path, exam_id: str, path: Path) -> None:
    text = next(report.text for report in read_reports(reports) if report.exam_id == exam_id)
    path.write_text(text, encoding="utf-8")


def _watch(pid: int, peak: list[int]) -> None:
    """Memory of the process and all its children together, twice a second."""
    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for process in (parent, *parent.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue  # it ended between the listing and the question
            peak[0] = max(peak[0], total)
            time.sleep(0.5)
    except psutil.Error:
        return


def _summary(out: Path, marks: dict[str, dict[str, Any]], seconds: float) -> dict[str, Any]:
    metrics = read_json(out / "evaluation" / "metrics.json")
    labels = score_labels([(out / "work", out / "phantom"), (out / "work_test", out / "phantom_test")])
    setup = Path(sys.prefix) / ".seconds"
    installing = float(setup.read_text()) if setup.is_file() else 0.0
    return {
        "labels": labels,
        "f1": metrics["f1"],
        "seconds": round(installing + sum(mark["seconds"] for mark in marks.values()), 1),
        "seconds_installing": installing,
        "seconds_this_call": round(seconds, 1),
        "peak_gib": max(mark["peak_gib"] for mark in marks.values()),
        "steps": marks,
    }


def _show(console: Console, out: Path, summary: dict[str, Any], failed: int) -> None:
    labels, f1 = summary["labels"], summary["f1"]
    table = Table(title="What came out", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row(
        "findings with SUVmax and slice that got a label", f"{labels['coverage']:.1%} of {labels['findings']}"
    )
    table.add_row("labels that hold the lesion's hottest voxel", f"{labels['located']:.1%}")
    table.add_row("median Dice of the labels against the truth", f"{labels['median_dice']:.2f}")
    table.add_section()
    table.add_row("F1 on held-out exams with the right sentence", f"{f1['right']:.2f}")
    table.add_row("F1 with another exam's sentence", f"{f1['shuffled']:.2f}")
    table.add_row("F1 with an empty sentence", f"{f1['empty']:.2f}")
    table.add_section()
    table.add_row("minutes in all, installing included", f"{summary['seconds'] / 60:.1f}")
    table.add_row("peak memory", f"{summary['peak_gib']:.1f} GiB")
    console.print(table)
    if failed:
        console.print(f"[red]{counted(failed, 'exam')} failed[/red]; see exams.parquet")
    console.print(f"Open this page: [bold]{(out / 'review' / 'index.html').resolve().as_uri()}[/bold]")
    console.print("Phantom figures tell that the parts work together; they tell nothing about patients.", style="dim")

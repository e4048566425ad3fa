"""Progress on long work: bars for a person, a line every half minute for a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["counted", "progress"]

HEARTBEAT_S = 30.0


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields `tick(what, done, total)`. In a terminal it draws a bar per `what`, elsewhere it prints plain lines."""
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), _PerMinute())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, object] = {}

        def tick(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield tick


class _PerMinute(ProgressColumn):
    """How many a minute, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _pace(speed), style="progress.data.speed")


def _plain(console: Console) -> Callable[[str, int, int], None]:
    """Lines with the pace since the line before: what was found finished at the start does not count for the rest."""
    last: dict[str, tuple[float, int]] = {}

    def tick(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        then, before = last.setdefault(what, (now, done))
        if done < total and now - then < HEARTBEAT_S:
            return
        last[what] = now, done
        pace = (done - before) / (now - then) if now > then else 0.0
        told = f"{what}: {done} of {total}"
        if pace > 0:
            told += f", {_pace(pace)}"
        if pace > 0 and done < total:
            told += f", {_span((total - done) / pace)} left"
        console.print(told, highlight=False)

    return tick


def _pace(per_second: float) -> str:
    per_minute = 60 * per_second
    return f"{per_minute:,.0f}/min" if per_minute >= 10 else f"{per_minute:.1f}/min"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def counted(number: int, what: str) -> str:
    """ "A number of things: 1 exam, 2 exams."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

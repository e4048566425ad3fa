"""Progress on long work: bars for a person, a line every half minute for a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["progress"]

HEARTBEAT_S = 30.0


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields `tick(what, done, total)`. In a terminal it draws a bar per `what`, elsewhere it prints plain lines."""
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, object] = {}

        def tick(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield tick


def _plain(console: Console) -> Callable[[str, int, int], None]:
    last = {"": time.monotonic()}

    def tick(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - last.setdefault(what, 0.0) >= HEARTBEAT_S:
            last[what] = now
            console.print(f"{what}: {done} of {total}", highlight=False)

    return tick

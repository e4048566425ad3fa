"""What every long command does around its cases: one run at a time per folder, an executor, a progress display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.executors import Engine, Runner, executor
from petground.pipeline.extraction import Tick
from petground.pipeline.progress import progress

__all__ = ["Means", "running"]


@dataclass(frozen=True)
class Means:
    """What runs the cases, as the user said it (see `executors.executor`). Raises ConfigError for no time at all."""

    engine: Engine = "local"
    workers: int | None = None
    timeout_minutes: float = 30.0
    memory_gib: float | None = None
    address: str | None = None
    cluster: Path | None = None

    def __post_init__(self) -> None:
        if not self.timeout_minutes > 0:
            raise ConfigError(f"--timeout-minutes is {self.timeout_minutes}", fix="give a positive number")


@contextmanager
def running(means: Means, work: Path, *folders: Path, console: Console) -> Iterator[tuple[Runner, Tick]]:
    """Yields what runs cases and what shows their progress, while no other run writes to `work`.

    folders: what else a worker must see. Raises InputError when another run is there.
    """
    try:
        with (
            FileLock(work / ".lock", timeout=0),
            executor(
                means.engine,
                means.workers,
                timeout_s=means.timeout_minutes * 60,
                memory_gib=means.memory_gib,
                address=means.address,
                cluster=means.cluster,
                folders=(work, *folders),
            ) as run,
            progress(console) as tick,
        ):
            yield run, tick
    except Timeout:
        raise InputError(f"another run is writing to {work}", fix="wait for it, or choose another --out") from None

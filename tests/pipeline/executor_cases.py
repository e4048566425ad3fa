"""What the executor tests run in other processes; those can import this file, but not a test module."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

from petground.labeling.errors import SuvError


def work(what: str) -> str:
    """One case of each kind."""
    if what == "crash":
        os._exit(137)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "hang":
        time.sleep(60)
    if what == "loop":
        while True:
            pass
    if what == "refuse":
        raise SuvError("PatientWeight is missing", case="x", fix="give it in the site table")
    if what == "break":
        raise ValueError("hypermetabolic node in Mr. Smith")
    if what == "full":
        raise OSError(28, "No space left on device")
    if what == "unpicklable":
        return lambda: what  # type: ignore[return-value]
    return what.upper()


def eat(gib: float) -> int:
    """Takes memory piece by piece and touches it, as a reader of an absurd image would."""
    held = [b"x" * (64 << 20) for _ in range(int(gib * 16))]
    return len(held)


def slow(name: str, folder: str, seconds: float) -> str:
    """Notes who runs it, then takes its time."""
    with (Path(folder) / f"{name}.pids").open("a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")
    time.sleep(seconds)
    return name


def poisoned_exam(source: Path, out: Path, exam_id: str, *rest: Any) -> dict[str, Any]:
    """The label run's own case, but for exams that are named after what they do to their process."""
    from petground.pipeline.exam_cases import exam_case

    if exam_id == "segfault":
        ctypes.string_at(0)
    if exam_id == "loop":
        while True:
            pass
    if exam_id == "eater":
        eat(4.0)
    return exam_case(source, out, exam_id, *rest)

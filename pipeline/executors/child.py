"""One supervised process that runs cases one after the other; it may die, and that is known of its case alone.

Why not a process pool: pools share pipes and locks among their workers, so that one killed at the wrong moment breaks
all (concurrent.futures: always; Pebble: when it was idle), daemonic processes such as Dask's workers may have none, and
neither tells how much memory the dead had.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import psutil

from petground.pipeline.executors.outcome import Outcome

__all__ = ["Child", "Limits"]

SAMPLE_S = 0.25  # how often a running process is looked at
START_S = 120.0
GIB = float(1 << 30)


@dataclass(frozen=True)
class Limits:
    """What one case may take. memory_bytes None: as much as there is."""

    timeout_s: float = 1800.0
    memory_bytes: int | None = None


class Child:
    """A process of one thread: started when first needed, and anew after a death.

    It belongs to the thread that calls `run`, and ends with that thread (Linux) or with `stop`.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Any = None
        self._stopped = threading.Event()

    def run(self, function: Callable[..., Any], case: str, args: tuple[Any, ...]) -> Outcome:
        """Runs one case. Only a process that something else killed (SIGKILL) is given its case once more."""
        payload = bytes(ForkingPickler.dumps((function, args)))
        outcome, code = self._attempt(case, payload)
        if code == -signal.SIGKILL and outcome.reason == "crashed" and not self._stopped.is_set():
            outcome, _ = self._attempt(case, payload)
        return outcome

    def stop(self) -> None:
        """Kills the process, from any thread; a case that was running ends as `stopped`."""
        self._stopped.set()
        process = self._process
        if process is not None:
            process.kill()

    def _attempt(self, case: str, payload: bytes) -> tuple[Outcome, int | None]:
        if not self._sent(case, payload):
            return Outcome(case, reason="crashed", detail="no process could be started for it"), None
        assert self._process is not None
        deadline, peak = time.monotonic() + self.limits.timeout_s, 0
        most = self.limits.memory_bytes
        while True:
            left = deadline - time.monotonic()
            if self._pipe.poll(max(0.0, min(SAMPLE_S, left))):
                break
            peak = max(peak, _resident(self._process.pid))
            if left <= 0:
                self._bury()
                detail = f"over the time limit of one case ({_span(self.limits.timeout_s)}), at {_gib(peak)}"
                return Outcome(case, reason="timed_out", detail=detail), None
            if most is not None and peak > most:
                self._bury()
                detail = f"took {_gib(peak)}, allowed are {_gib(most)} (--memory-gib)"
                return Outcome(case, reason="out_of_memory", detail=detail), None
        try:
            outcome: Outcome = self._pipe.recv()
            return outcome, None
        except (EOFError, OSError):
            code, highest = self._bury()
            if self._stopped.is_set():
                return Outcome(case, reason="stopped", detail="the run was stopped"), code
            return Outcome(case, reason="crashed", detail=_death(code, max(peak, highest))), code

    def _sent(self, case: str, payload: bytes) -> bool:
        """Hands the case over. A process that died while it had none is replaced."""
        for _ in range(2):
            if self._stopped.is_set():
                return False
            try:
                if self._process is None:
                    self._start()
                if self._stopped.is_set():  # while it was being started
                    self.stop()
                self._pipe.send((case, payload))
                return True
            except (OSError, EOFError):
                self._bury()
        return False

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        script = Path(__file__).with_name("child_main.py")
        # One thread per process: the processes are the parallelism.
        threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **threads},
            )
        self._pipe.send({"path": sys.path, "memory_bytes": self.limits.memory_bytes})
        if not self._pipe.poll(START_S):  # the limit of time is the case's own: starting does not count
            raise TimeoutError(f"no process within {START_S:.0f} s")
        self._pipe.recv()

    def _bury(self) -> tuple[int | None, int]:
        """Ends the process; its exit code, and its highest resident memory [bytes] where that can be told."""
        process, self._process = self._process, None
        if process is None:
            return None, 0
        self._pipe.close()
        process.kill()  # SIGKILL changes nothing for one that is dead
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except ChildProcessError:  # `stop` was quicker
            return process.poll(), 0
        process.returncode = os.waitstatus_to_exitcode(status)
        ours = psutil.Process().memory_info().rss
        highest = usage.ru_maxrss * 1024
        # Linux counts what the parent held when it made the process; below that the figure says nothing.
        return process.returncode, highest if highest > 1.5 * ours else 0


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _death(code: int | None, peak: int) -> str:
    held = f"; it had taken {_gib(peak)}" if peak else ""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        likely = {"SIGKILL": "out of memory, or killed by someone", "SIGSEGV": "a crash in a library"}.get(name, "")
        return f"its process died by {name}{f' ({likely})' if likely else ''}{held}"
    return f"its process ended with exit code {code}{held}"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"

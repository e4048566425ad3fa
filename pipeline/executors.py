"""How cases are run: in processes of this machine, or on a Dask cluster. What is run knows nothing of it.

A case that crashes its process, runs out of memory or of time is recorded, and the others go on: a plain
`ProcessPoolExecutor` would lose every case in flight.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from petground.labeling.errors import ConfigError, PetgroundError

__all__ = ["Engine", "Outcome", "Runner", "default_workers", "executor"]

Engine = Literal["local", "dask"]
FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or what this user may take of it


@dataclass(frozen=True)
class Outcome:
    """What came of one case: a value, or the reason code and message of its failure."""

    case: str
    value: Any = None
    reason: str | None = None
    detail: str = ""


def default_workers() -> int:
    """Processes that this job may use: Slurm's word first, then the CPU affinity."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit():
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Runner = Callable[[Callable[..., Any], Sequence[tuple[str, tuple[Any, ...]]]], Iterator[Outcome]]


@contextmanager
def executor(
    engine: Engine = "local", workers: int | None = None, *, timeout_s: float = 1800.0, address: str | None = None
) -> Iterator[Runner]:
    """Yields `run(function, cases)`: calls `function(*args)` for every (case, args), yields outcomes in no order.

    The function must be importable by name and its value picklable. PetgroundError ends a case with the error's own
    reason; a dead process with `crashed`, a case over `timeout_s` (engine local) with `timed_out`, any other error with
    `failed`. The processes live as long as the context, so what they imported serves every stage. Raises ConfigError
    for a number of workers below 1 and for Dask when it is not installed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}", fix="give 1 or more, or leave it out for one per core")
    start = _local if engine == "local" else _dask
    with start(workers or default_workers(), timeout_s, address) as run:
        yield run


@contextmanager
def _local(workers: int, timeout_s: float, address: str | None) -> Iterator[Runner]:
    from pebble import ProcessPool

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per process; the processes are the parallelism
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can hang
    pool = ProcessPool(max_workers=workers, context=context)

    def run(function: Callable[..., Any], cases: Sequence[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
        todo = iter(cases)
        running: dict[Future[Any], str] = {}
        while True:
            while len(running) < 2 * workers and (item := next(todo, None)) is not None:
                running[pool.schedule(_guarded, args=(function, *item), timeout=timeout_s)] = item[0]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield _outcome(running.pop(future), future)

    try:
        yield run
    finally:
        pool.stop()
        pool.join()


@contextmanager
def _dask(workers: int, timeout_s: float, address: str | None) -> Iterator[Runner]:
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise ConfigError("the Dask engine is not installed", fix="pip install 'petground[dask]'") from error
    cluster = None if address else LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    try:
        with Client(address or cluster) as client:

            def run(function: Callable[..., Any], cases: Sequence[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
                futures = {client.submit(_guarded, function, case, args, pure=False): case for case, args in cases}
                for future in as_completed(futures):
                    yield _outcome(futures[future], future)
                    future.release()

            yield run
    finally:
        if cluster is not None:
            cluster.close()


def _guarded(function: Callable[..., Any], case: str, args: tuple[Any, ...]) -> Outcome:
    """Runs one case where it runs, and turns its error into a row there: a traceback does not survive the trip.

    The text of a foreign exception may quote its input, which may be a report: only its kind and place are kept.
    """
    try:
        return Outcome(case, function(*args))
    except PetgroundError as error:
        return Outcome(case, reason=error.reason, detail=error.message + (f" ({error.fix})" if error.fix else ""))
    except MemoryError:
        return Outcome(case, reason="out_of_memory", detail="this case needs more memory than there is")
    except Exception as error:
        reason = "disk_full" if isinstance(error, OSError) and error.errno in FULL else "failed"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        return Outcome(case, reason=reason, detail=f"{type(error).__name__} at {place}")


def _outcome(case: str, future: Any) -> Outcome:
    """What `_guarded` said, or what became of the process that should have said it."""
    try:
        outcome = future.result()
    except TimeoutError:
        return Outcome(case, reason="timed_out", detail="over the time limit of one case")
    except Exception as error:
        if type(error).__name__ in ("ProcessExpired", "KilledWorker"):
            return Outcome(case, reason="crashed", detail="its process died (out of memory, or a crash in a library)")
        return Outcome(case, reason="failed", detail=type(error).__name__)
    return outcome if isinstance(outcome, Outcome) else Outcome(case, reason="failed", detail="no outcome")

"""How cases are run: in processes of this machine, or on a Dask cluster. What is run knows nothing of it.

A case runs in a process of its own line (`child.py`), on both engines: when it crashes, hangs or takes more memory than
it may, that process dies, the case is recorded with why, and the others go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from petground.labeling.errors import ConfigError
from petground.pipeline.executors.child import Limits
from petground.pipeline.executors.outcome import Outcome, Runner, guarded

__all__ = ["Engine", "Limits", "Outcome", "Runner", "default_workers", "executor", "guarded"]

Engine = Literal["local", "dask"]
LEAST_GIB = 1.0  # the libraries of a worker alone take half of it


def default_workers() -> int:
    """Processes that this job may use: Slurm's word first, then the CPU affinity."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def executor(
    engine: Engine = "local",
    workers: int | None = None,
    *,
    timeout_s: float = 1800.0,
    memory_gib: float | None = None,
    address: str | None = None,
    cluster: Path | None = None,
    folders: Sequence[Path] = (),
) -> Iterator[Runner]:
    """Yields `run(function, cases)`: calls `function(*args)` for every (case, args), yields outcomes in no order.

    `cases` may be a generator: only a few cases per worker are drawn ahead. The function must be importable by name and
    its value picklable. PetgroundError ends a case with the error's own reason; a dead process with `crashed`, a case
    over `timeout_s` with `timed_out`, one over `memory_gib` with `out_of_memory`, any other error with `failed`.
    The processes live as long as the context, so what they imported serves every stage.

    Args:
        engine: "local", or "dask": `address` of a scheduler, a `cluster` file (see `cluster.py`), or neither for a
            cluster on this machine.
        workers: processes at once; default: one per core that this job may use.
        timeout_s: time that one case may take.
        memory_gib: memory that the process of one case may take; default: no limit.
        address: see engine.
        cluster: see engine.
        folders: what every Dask worker must see, the first one writable; checked before a worker gets its first case.

    Raises ConfigError for limits out of range, for options of another engine, and for Dask when it is not installed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}", fix="give 1 or more, or leave it out for one per core")
    if not timeout_s > 0:
        raise ConfigError(f"the time limit of a case is {timeout_s:g} s", fix="give a positive number")
    if memory_gib is not None and not memory_gib >= LEAST_GIB:
        raise ConfigError(f"--memory-gib is {memory_gib:g}", fix=f"give {LEAST_GIB:g} or more, or leave it out")
    limits = Limits(timeout_s, None if memory_gib is None else int(memory_gib * (1 << 30)))
    if engine == "local":
        for name, value in (("address", address), ("cluster", cluster)):
            if value is not None:
                raise ConfigError(f"--{name} belongs to the Dask engine", fix="add --engine dask, or leave it out")
        from petground.pipeline.executors.local import local

        with local(workers or default_workers(), limits) as run:
            yield run
    elif engine == "dask":
        from petground.pipeline.executors.dask_engine import dask

        with dask(workers or default_workers(), limits, address, cluster, folders) as run:
            yield run
    else:
        raise ConfigError(f"--engine is '{engine}'", fix="local or dask")

"""Cluster files: which jobs dask-jobqueue submits, as YAML.

slurm:
  queue: normal          # partition
  cores: 8               # per job
  memory: 32GB           # per job
  walltime: "04:00:00"
  jobs: 20               # how many are kept running
"""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petground.labeling.errors import ConfigError
from petground.pipeline.settings_file import read_settings

__all__ = ["JobCluster", "job_options", "read_cluster", "start_cluster"]

CLUSTERS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
_WALLTIME = re.compile(r"(\d+-)?\d{1,3}:\d{2}(:\d{2})?")
_MEMORY = re.compile(r"\d+(\.\d+)? ?[KMGT]i?B", re.I)


@dataclass(frozen=True)
class JobCluster:
    """The jobs of one queueing system. Every field is a key of the file.

    system: key of CLUSTERS. cores and memory are those of one job; one case runs per core. interface: network
    interface that nodes reach each other by, e.g. ib0. directives: lines for the head of the job script, without
    `#SBATCH`. prologue: shell lines before the worker starts (module load ...). python: interpreter on the nodes.
    """

    system: str
    cores: int
    memory: str
    jobs: int = 1
    queue: str | None = None
    account: str | None = None
    walltime: str = "04:00:00"
    interface: str | None = None
    log_directory: str | None = None
    local_directory: str | None = None
    python: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()


_TEXTS = ("memory", "queue", "account", "walltime", "interface", "log_directory", "local_directory", "python")
_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("cores", "jobs"), (int, "a whole number above 0")),
    **dict.fromkeys(_TEXTS, (str, "a text")),
    **dict.fromkeys(("directives", "prologue"), (list, "a list of lines")),
}


def read_cluster(path: Path) -> JobCluster:
    """A cluster file. Raises ConfigError naming the key that is unknown (and the nearest), missing or wrong."""
    values = read_settings(path, what="cluster file", fix="see docs/slurm.md for an example")
    if len(values) != 1 or not isinstance(next(iter(values.values())), dict):
        raise ConfigError(f"{path.name} must hold one block of settings", fix=f"one of {', '.join(CLUSTERS)}")
    system: Any = next(iter(values))
    settings: dict[str, Any] = values[system]
    if system not in CLUSTERS:
        raise ConfigError(f"{path.name}: unknown queueing system '{system}'{_near(system, CLUSTERS)}")
    for name, value in settings.items():
        if name not in _KINDS:
            raise ConfigError(f"{path.name}: unknown key '{name}'{_near(name, _KINDS)}")
        kind, told = _KINDS[name]
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 1):
            raise ConfigError(f"{path.name}: {name} is {value!r}", fix=f"give {told}{_quoted(name)}")
        if kind is list and not all(isinstance(line, str) for line in value):
            raise ConfigError(f"{path.name}: {name} is {value!r}", fix=f"give {told}")
    for name in ("cores", "memory"):
        if name not in settings:
            raise ConfigError(f"{path.name}: {name} is missing", fix=f"give {_KINDS[name][1]} under {system}")
    made: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items()}
    cluster = JobCluster(system=system, **made)
    if not _WALLTIME.fullmatch(cluster.walltime):
        raise ConfigError(f"{path.name}: walltime is '{cluster.walltime}'", fix='give "HH:MM:SS" in quotes')
    if not _MEMORY.fullmatch(cluster.memory):
        raise ConfigError(f"{path.name}: memory is '{cluster.memory}'", fix="give it with its unit, e.g. 32GB")
    return cluster


def _quoted(name: str) -> str:
    return ", in quotes: YAML reads 12:00:00 as a number" if name == "walltime" else ""


def _near(name: Any, known: Any) -> str:
    close = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known are {', '.join(known)}"


def job_options(cluster: JobCluster) -> dict[str, Any]:
    """Arguments for dask-jobqueue. A job is one worker with a thread per core; the cases run in children of those."""
    given = {
        "queue": cluster.queue,
        "project" if cluster.system in ("sge", "lsf") else "account": cluster.account,
        "walltime": cluster.walltime,
        "interface": cluster.interface,
        "log_directory": cluster.log_directory,
        "local_directory": cluster.local_directory,
        "python": None if cluster.python is None else shlex.quote(cluster.python),
    }
    return {
        "cores": cluster.cores,
        "processes": 1,
        "memory": cluster.memory,
        "job_extra_directives": list(cluster.directives),
        "job_script_prologue": list(cluster.prologue),
        "scheduler_options": {"dashboard_address": None},
        **{name: value for name, value in given.items() if value is not None},
    }


@contextmanager
def start_cluster(cluster: JobCluster) -> Iterator[Any]:
    """Submits the jobs and keeps their number; lost ones are submitted again. They are cancelled at the end."""
    try:
        import dask_jobqueue
    except ImportError as error:
        raise ConfigError("dask-jobqueue is not installed", fix="pip install 'petground[dask]'") from error
    command = SUBMIT[cluster.system]
    if shutil.which(command) is None:
        raise ConfigError(f"{command} is not to be found", fix=f"run this where jobs of {cluster.system} are submitted")
    try:
        made = getattr(dask_jobqueue, CLUSTERS[cluster.system])(**job_options(cluster))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise ConfigError(f"the {cluster.system} cluster cannot be started: {error}") from None
    with made:
        made.adapt(minimum_jobs=cluster.jobs, maximum_jobs=cluster.jobs)
        yield made

"""Cases on a Dask cluster: of this machine, at an address, or of jobs that a cluster file describes.

A worker runs each case in a process of its own (`child.py`): time and memory limits hold as on one machine, and a
crash costs no worker. Cases of a worker that is lost go to another one.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.executors.child import Child, Limits
from petground.pipeline.executors.claim import Claim, check_claim, claimed
from petground.pipeline.executors.cluster import read_cluster, start_cluster
from petground.pipeline.executors.outcome import Outcome, Runner

__all__ = ["dask"]

log = logging.getLogger(__name__)
CONNECT_S = 20.0
LOOK_S = 30.0  # how often a waiting run looks whether there are workers at all
AHEAD = 2  # cases per thread in flight: one that runs, one that waits
UNFIT = "unfit_worker"

_own = threading.local()  # on the worker: one child per thread
_children: list[Child] = []


@contextmanager
def dask(
    workers: int, limits: Limits, address: str | None, cluster: Path | None, folders: Sequence[Path]
) -> Iterator[Runner]:
    """See `executors.executor`.

    Raises ConfigError when Dask is not installed, no scheduler answers, or a worker runs other code or does not see
    the folders; InputError when the scheduler is lost on the way.
    """
    if address is not None and cluster is not None:
        raise ConfigError("--address and --cluster exclude each other", fix="a running scheduler, or jobs to start")
    described = None if cluster is None else read_cluster(cluster)
    try:
        from distributed import LocalCluster
        from distributed.gc import disable_gc_diagnosis
    except ImportError as error:
        raise ConfigError("the Dask engine is not installed", fix="pip install 'petground[dask]'") from error
    with ExitStack() as stack:
        place: Any = address
        local: Any = None
        if described is not None:
            place = stack.enter_context(start_cluster(described))
        elif address is None:
            # The cases' memory lies in the children; the workers themselves hold next to nothing.
            with _interrupts_kept_from_workers():
                local = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=0)
                place = stack.enter_context(local)  # before a Ctrl-C that came meanwhile: what was started is ended
        client = stack.enter_context(_connected(place))
        disable_gc_diagnosis(force=True)  # a Ctrl-C that falls into its callback of the garbage collector is swallowed
        claim = stack.enter_context(claimed(folders))
        _check_workers(client, claim)
        try:
            yield _runner(client, limits, claim)
        finally:
            _quietly(client, _stop_children if local is None else _stop_own_children)


@contextmanager
def _interrupts_kept_from_workers() -> Iterator[None]:
    """What is started within never sees Ctrl-C, which reaches every process of a terminal's group: this process alone
    decides what ends, and workers do not die with a traceback each. A Ctrl-C that comes meanwhile is answered after.

    Blocked, not ignored: threads and processes inherit it, so workers that replace a lost one have it too. Threads of
    before (of a numerical library, say) may take it nevertheless: a start that is broken off never ends, so the
    handler only remembers it.
    """
    resource_tracker.ensure_running()  # started later, it would unblock the signal in its thread
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # handlers can be set there only
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # one that waited comes now
        if main:
            signal.signal(signal.SIGINT, handler)
    if came and handler is not signal.SIG_IGN:
        raise KeyboardInterrupt


@contextmanager
def _connected(place: Any) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(place, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {place} within {CONNECT_S:.0f} s ({type(error).__name__})",
            fix="start one with `dask scheduler`, and give the address that it prints, tcp://HOST:PORT",
        ) from None
    with client:
        yield client


def _check_workers(client: Any, claim: Claim) -> None:
    """Those that are there at the start; later ones are checked before their first case."""
    try:
        problems = client.run(check_claim, claim, on_error="return")
    except Exception as error:  # the scheduler of another version may not even understand the question
        raise ConfigError(f"the cluster cannot be asked: {type(error).__name__}", fix=_SAME) from None
    for worker, problem in sorted(problems.items()):
        if isinstance(problem, ImportError | AttributeError):
            raise ConfigError(f"worker {worker} has no petground of this version: {problem}", fix=_SAME)
        if isinstance(problem, BaseException):
            raise ConfigError(f"worker {worker} cannot be asked: {type(problem).__name__}", fix=_SAME)
        if problem is not None:
            raise ConfigError(f"worker {worker}: {problem[0]}", fix=problem[1])


_SAME = "workers need the same environment as this command: the same Python, Dask and petground"


def _runner(client: Any, limits: Limits, claim: Claim) -> Runner:
    def run(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
        todo = iter(cases)
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        running: dict[str, tuple[Any, str]] = {}
        window = _window(client)
        try:
            while True:
                while len(running) < window and (item := next(todo, None)) is not None:
                    future = client.submit(_in_child, function, *item, limits, claim, pure=False)
                    running[future.key] = future, item[0]
                    future.add_done_callback(done.put)
                if not running:
                    return
                try:
                    future = done.get(timeout=LOOK_S)
                except queue.Empty:
                    window = _look(client)
                    continue
                _, case = running.pop(future.key)
                outcome = _outcome(case, future)
                future.release()
                if len(running) % 16 == 0:
                    window = _window(client)
                yield outcome
        finally:
            for future, _ in running.values():
                future.cancel()

    return run


def _window(client: Any) -> int:
    """How many cases are in flight: what the workers can chew on, not the whole archive."""
    try:
        return max(4, AHEAD * sum(client.nthreads().values()))
    except (OSError, TimeoutError):
        return 4  # the loss of the scheduler shows in the cases


def _look(client: Any) -> int:
    if client.status not in ("running", "connecting"):
        raise _lost()
    window = _window(client)
    if not client.nthreads():
        log.warning("no worker has come yet; cases wait (is there a queue? `squeue` shows the jobs of a cluster file)")
    return window


def _outcome(case: str, future: Any) -> Outcome:
    """What the worker said, or what became of the workers that should have said it."""
    try:
        outcome = future.result(timeout=CONNECT_S)
    except Exception as error:
        name = type(error).__name__
        if name == "KilledWorker":
            detail = "several workers died while they had it; see their logs"
            return Outcome(case, reason="crashed", detail=detail)
        if name in ("CancelledError", "FutureCancelledError", "FuturesCancelledError", "CommClosedError"):
            raise _lost() from None
        return Outcome(case, reason="failed", detail=name)
    except BaseException as error:  # asyncio's CancelledError is none of Exception's
        if type(error).__name__ == "CancelledError":
            raise _lost() from None
        raise
    if not isinstance(outcome, Outcome):
        return Outcome(case, reason="failed", detail="no outcome")
    if outcome.reason == UNFIT:
        raise ConfigError(outcome.detail, fix=outcome.value)
    return outcome


def _lost() -> InputError:
    return InputError("the Dask scheduler is gone", fix="start it again, then run the same command to go on")


def _in_child(function: Callable[..., Any], case: str, args: tuple[Any, ...], limits: Limits, claim: Claim) -> Outcome:
    """On the worker: the case, in the process of this thread."""
    problem = check_claim(claim)
    if problem is not None:
        return Outcome(case, value=problem[1], reason=UNFIT, detail=problem[0])
    child: Child | None = getattr(_own, "child", None)
    if child is None or child.limits != limits:
        if child is not None:
            child.stop()
        child = _own.child = Child(limits)
        _children.append(child)
    return child.run(function, case, args)


def _stop_children() -> None:
    """On the worker: a client that is done, or was interrupted, leaves nothing running."""
    while _children:
        _children.pop().stop()


def _stop_own_children() -> None:
    """The same on a worker that ends with this command: that its case is cancelled is no news then."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    _stop_children()


def _quietly(client: Any, function: Callable[[], None]) -> None:
    try:
        client.run(function, on_error="ignore")
    except Exception as error:  # the cluster may be gone; its children go with their workers
        log.debug("workers were not reached: %s", type(error).__name__)

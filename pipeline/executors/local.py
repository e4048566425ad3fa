"""Cases on this machine: a thread per worker, each with a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from petground.pipeline.executors.child import Child, Limits
from petground.pipeline.executors.outcome import Outcome, Runner

__all__ = ["local"]


@contextmanager
def local(workers: int, limits: Limits) -> Iterator[Runner]:
    """See `executors.executor`. Leaving the context kills what still runs."""
    children: list[Child] = []
    own = threading.local()
    closing = threading.Event()

    def in_child(function: Callable[..., Any], case: str, args: tuple[Any, ...]) -> Outcome:
        if not hasattr(own, "child"):
            own.child = Child(limits)
            children.append(own.child)
        if closing.is_set():
            own.child.stop()
        outcome: Outcome = own.child.run(function, case, args)
        return outcome

    threads = ThreadPoolExecutor(workers, thread_name_prefix="petground-worker")

    def run(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
        todo = iter(cases)
        running: set[Future[Outcome]] = set()
        while True:
            while len(running) < 2 * workers and (item := next(todo, None)) is not None:
                running.add(threads.submit(in_child, function, *item))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()

    try:
        yield run
    finally:
        closing.set()
        threads.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.stop()
        threads.shutdown(wait=True)

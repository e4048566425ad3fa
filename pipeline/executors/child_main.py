"""The process that cases run in: `python child_main.py FD PARENT`, started by `child.py`, fed through a pipe.

It is run as a script, so that nothing of the working directory is imported: only the standard library until the
parent has said where modules are looked for. It dies with its parent, whatever kills that.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

__all__ = ["main"]

PR_SET_PDEATHSIG = 1  # prctl(2), Linux


def main(descriptor: int, parent: int) -> int:
    """Reads pickled (function, case, args) from the pipe and answers each with an Outcome, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what ends
    _die_with(parent)
    connection: Any = Connection(descriptor)
    try:
        setup = connection.recv()
        sys.path[:] = setup["path"]
        if setup["memory_bytes"] is not None:
            # Private writable memory, so that mapped libraries do not count. A library that does not check its
            # allocations crashes instead of raising MemoryError; both end as a row.
            resource.setrlimit(resource.RLIMIT_DATA, (setup["memory_bytes"], setup["memory_bytes"]))
        from petground.pipeline.executors.outcome import Outcome, guarded

        connection.send("ready")
        while True:
            case, payload = connection.recv()
            try:
                function, args = ForkingPickler.loads(payload)
            except Exception as error:  # another version of the code, or a module that is not there
                connection.send(Outcome(case, reason="failed", detail=f"{type(error).__name__} while loading the case"))
                continue
            connection.send(_picklable(Outcome, guarded(function, case, args)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0


def _picklable(kind: Any, outcome: Any) -> Any:
    try:
        ForkingPickler.dumps(outcome)
    except Exception as error:
        return kind(outcome.case, reason="failed", detail=f"{type(error).__name__} while handing over the value")
    return outcome


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))

"""What came of one case, and how an error becomes that where the case runs."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from petground.labeling.errors import PetgroundError

__all__ = ["Outcome", "Runner", "guarded"]

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or what this user may take of it


@dataclass(frozen=True)
class Outcome:
    """What came of one case: a value, or the reason code and message of its failure."""

    case: str
    value: Any = None
    reason: str | None = None
    detail: str = ""


Runner = Callable[[Callable[..., Any], Iterable[tuple[str, tuple[Any, ...]]]], Iterator[Outcome]]


def guarded(function: Callable[..., Any], case: str, args: tuple[Any, ...]) -> Outcome:
    """Runs one case where it runs, and turns its error into a row there: a traceback does not survive the trip.

    The text of a foreign exception may quote its input, which may be a report: only its kind and place are kept.
    """
    try:
        return Outcome(case, function(*args))
    except PetgroundError as error:
        return Outcome(case, reason=error.reason, detail=error.message + (f" ({error.fix})" if error.fix else ""))
    except MemoryError:
        return Outcome(case, reason="out_of_memory", detail="this case needs more memory than it may take")
    except Exception as error:
        reason = "disk_full" if isinstance(error, OSError) and error.errno in FULL else "failed"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        return Outcome(case, reason=reason, detail=f"{type(error).__name__} at {place}")

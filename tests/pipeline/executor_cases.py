"""What the executor tests run in other processes; those can import this file, but not a test module."""

from __future__ import annotations

import os
import time

from petground.labeling.errors import SuvError


def work(what: str) -> str:
    """One case of each kind."""
    if what == "crash":
        os._exit(137)
    if what == "hang":
        time.sleep(60)
    if what == "refuse":
        raise SuvError("PatientWeight is missing", case="x", fix="give it in the site table")
    if what == "break":
        raise ValueError("hypermetabolic node in Mr. Smith")
    if what == "full":
        raise OSError(28, "No space left on device")
    return what.upper()

"""What a worker elsewhere must have in common with the command that asks it: the code, and the folders."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from petground.pipeline.stage import source_hash

__all__ = ["Claim", "check_claim", "claimed"]

APPEARS_S = 10.0  # a network file system may show a new file late


@dataclass(frozen=True)
class Claim:
    """python, petground: versions; code: digest of the source that cases run; folders: all must be seen.

    token is a file in the first folder that holds its own name: to see it is to see the same file system.
    """

    python: str
    petground: str
    code: str
    folders: tuple[str, ...]
    token: str | None


@contextmanager
def claimed(folders: Sequence[Path]) -> Iterator[Claim]:
    """The claim of this process, its token written to the first of `folders` while the context lasts."""
    places = [Path(folder).resolve() for folder in folders]
    token = places[0] / f".petground-{uuid.uuid4().hex}.token" if places else None
    try:
        if token is not None:
            for old in token.parent.glob(".petground-*.token"):  # of a run that was killed
                old.unlink(missing_ok=True)
            token.write_text(token.name, encoding="utf-8")
        names = tuple(str(place) for place in places)
        yield Claim(*_versions(), names, None if token is None else str(token))
    finally:
        if token is not None:
            token.unlink(missing_ok=True)


@functools.cache
def check_claim(claim: Claim) -> tuple[str, str] | None:
    """None when this process fits the claim, else what does not and the way out."""
    host = socket.gethostname()
    python, petground, code = _versions()
    if (python, petground, code) != (claim.python, claim.petground, claim.code):
        return (
            f"{host} runs petground {petground} (source {code[:8]}) on Python {python}, "
            f"this command {claim.petground} (source {claim.code[:8]}) on Python {claim.python}",
            "workers need the same environment as this command",
        )
    missing = [folder for folder in claim.folders if not Path(folder).is_dir()]
    if not missing and claim.token is not None and not _appears(Path(claim.token)):
        missing = [claim.folders[0]]
    if missing:
        return (
            f"{host} does not see {', '.join(missing)} as this machine does",
            "--out and --exams must lie on a file system that all workers share, under the same path",
        )
    return None


def _appears(token: Path) -> bool:
    deadline = time.monotonic() + APPEARS_S
    while True:
        try:
            if token.read_text(encoding="utf-8") == token.name:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _versions() -> tuple[str, str, str]:
    python = ".".join(platform.python_version_tuple()[:2])
    code = source_hash("petground.labeling", "petground.pipeline")
    return python, importlib.metadata.version("petground"), code

"""Digests of files by content, remembered by path, size and times: who starts again does not read an archive again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from petground.pipeline.files import read_json, sha256_of, write_bytes

__all__ = ["Digests"]

_log = logging.getLogger(__name__)


class Digests:
    """{path: [size, mtime_ns, ctime_ns, SHA-256]} in `file`, which is read once and replaced as a whole by `save`.

    Several processes may share it: what one of them does not see is hashed again, and never wrong. A damaged file
    counts for none.
    """

    def __init__(self, file: Path):
        self.file = file
        self.new: dict[str, list[int | str]] = {}
        self._known = _read(file)

    def knows(self, path: Path) -> bool:
        """Whether `of` would answer from memory."""
        known = self._known.get(str(path.resolve()))
        return known is not None and known[:3] == _listed(path)

    def of(self, path: Path) -> str:
        """SHA-256 of the file's content, from memory where size and times are what they were."""
        place, listed = str(path.resolve()), _listed(path)  # who writes from here on is found out the next time
        known = self._known.get(place)
        if known is not None and known[:3] == listed:
            return str(known[3])
        digest = sha256_of(path)
        self.add({place: [*listed, digest]})
        return digest

    def add(self, found: Mapping[str, list[int | str]]) -> None:
        """Digests that another process worked out: its `new`."""
        self.new.update(found)
        self._known.update(found)

    def save(self) -> None:
        """Writes what is new, beside what others have written meanwhile. A folder that cannot be written is told."""
        if not self.new:
            return
        together = {**_read(self.file), **self.new}
        try:
            write_bytes(self.file, json.dumps(together, separators=(",", ":")).encode())
        except OSError as error:
            _log.warning("%s cannot be written (%s): the next start reads every image again", self.file.name, error)
        self.new = {}


def _listed(path: Path) -> list[int | str]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(file: Path) -> dict[str, list[int | str]]:
    return {place: entry for place, entry in read_json(file).items() if isinstance(entry, list) and len(entry) == 4}

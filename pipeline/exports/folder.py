"""The folder of a release: ours or refused, one writer at a time, nothing left of cases that are no longer in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from petground.labeling.errors import InputError
from petground.pipeline.exports.write_case import STATE, kept_case
from petground.pipeline.files import write_json

__all__ = ["check_folder", "owned", "remove_stale", "withdraw"]

MARK = "export.json"


def check_folder(root: Path, to: str) -> None:
    """Raises InputError when the folder holds something that is no earlier export of this format."""
    if root.is_file():
        raise InputError(f"{root} is a file", fix="give a folder with --out")
    if not root.is_dir() or not any(root.iterdir()):
        return
    try:
        found = json.loads((root / STATE / MARK).read_text(encoding="utf-8"))["to"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{root} holds files that are not of an export", fix="choose a new folder") from None
    if found != to:
        raise InputError(f"{root} holds an export to {found}", fix="choose another folder for this format")


@contextmanager
def owned(root: Path, to: str) -> Iterator[None]:
    """The folder for this run alone. Raises InputError when it is another's or another run is writing to it."""
    check_folder(root, to)
    (root / STATE).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / STATE / "lock", timeout=0):
            write_json(root / STATE / MARK, {"to": to})
            for part in (root / STATE).glob(".*.part"):
                shutil.rmtree(part, ignore_errors=True)
            yield
    except Timeout:
        raise InputError(f"another run is writing to {root}", fix="wait for it, or choose another --out") from None


def withdraw(root: Path, names: Collection[str]) -> None:
    """Takes the index away while cases change: a data set is either complete or cannot be loaded."""
    for name in names:
        (root / name).unlink(missing_ok=True)


def remove_stale(root: Path, wanted: dict[str, tuple[str, ...]]) -> int:
    """Removes the files of cases that are not wanted any more, or that lie elsewhere now; returns how many cases."""
    folder = root / STATE / "cases"
    keep = {name for names in wanted.values() for name in names}
    removed = 0
    for record_path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        case = record_path.stem
        try:
            files = json.loads(record_path.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError):
            files = {}
        for name in files:
            if name not in keep:
                _unlink(root, name)
        if case not in wanted or kept_case(root, case) is None:
            record_path.unlink(missing_ok=True)
            removed += case not in wanted
    return removed


def _unlink(root: Path, name: str) -> None:
    path = root / name
    if root.resolve() not in path.resolve().parents:  # a record that was tampered with
        return
    path.unlink(missing_ok=True)
    folder = path.parent
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent

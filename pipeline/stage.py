"""Content-addressed stages: a result is kept under the hash of all that it depends on.

Key = hash of stage name, the code it runs, its parameters and its inputs. A stage writes into a folder with a
temporary name and renames it last, so a result is whole or not there, and a run that was killed goes on where it was.
What happens to a result later (a disk that filled up or lost power, a copy that broke off) is seen by the size and the
ends of its files, which the record keeps: a damaged result is made anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.files import write_json

__all__ = ["RECORD", "content_hash", "folder_hash", "kept", "run_stage", "source_hash", "sweep"]

RECORD = "stage.json"
END = 1 << 16  # bytes hashed at either end of a file: tables and masks are read whole, of an image what a cut destroys
SOURCES = (".py", ".json", ".yaml", ".html", ".css", ".js")


def content_hash(value: Any) -> str:
    """Hex digest of a JSON-like value; the same on every platform and in every run."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def folder_hash(folder: Path, known: Mapping[str, Any] | None = None, *, listing_only: bool = False) -> dict[str, Any]:
    """What lies in `folder`: {"listing": digest of names, sizes and times, "content": digest of names and bytes}.

    Reading an archive only to find it unchanged costs as much as labelling it, so when `known` (an earlier answer)
    has the same listing its content digest is taken over. The listing holds inode and change time too: files unpacked
    from another archive can have the same names, sizes and dates. With `listing_only` no file is read: the content
    of another listing is "". Raises InputError when the folder is missing or empty.
    """
    if not folder.is_dir():
        raise InputError(
            f"no folder '{folder.name}' among the exams", reason="no_exam", fix="check --exams and exam_id"
        )
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if not files:
        raise InputError(
            f"folder '{folder.name}' {_without_files(folder)}", reason="no_exam", fix="export the exam again"
        )
    stats = [(p, p.stat()) for p in files]
    listing = content_hash(
        [[p.relative_to(folder).as_posix(), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for p, s in stats]
    )
    if known and known.get("listing") == listing:
        return dict(known)
    if listing_only:
        return {"listing": listing, "content": ""}
    digest = hashlib.sha256()  # processors have instructions for it: twice as quick as blake2b
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return {"listing": listing, "content": digest.hexdigest()[:32]}


def _without_files(folder: Path) -> str:
    """What a folder holds that has no file in it."""
    if not any(folder.iterdir()):
        return "is empty"
    kinds = Counter(
        "broken links" if path.is_symlink() and not path.exists()
        else "links to folders, which are not followed" if path.is_symlink()
        else "folders" if path.is_dir()
        else "pipes, sockets or devices"
        for path in folder.rglob("*")
    )  # fmt: skip
    return f"holds no file: {', '.join(f'{kind} ({count})' for kind, count in sorted(kinds.items()))}"


@cache
def source_hash(*names: str) -> str:
    """Digest of the source (and JSON rules) of packages or modules, found without importing them."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(name)
        places = spec.submodule_search_locations or [spec.origin or ""]
        # an editable install lists a place that is none beside the real one
        for root in [Path(place) for place in places if Path(place).exists()]:
            files = sorted(p for p in root.rglob("*") if p.suffix in SOURCES) if root.is_dir() else [root]
            for file in files:
                digest.update(f"{name}/{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def kept(folder: Path, *, thorough: bool = False) -> dict[str, Any] | None:
    """The record of the result in `folder`, or None when there is none that is whole.

    Files must be there in their size; `thorough` also reads their ends, as is done before a result is used again.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = record["files"].items()
        whole = all(_is_as_written(folder / name, written, thorough=thorough) for name, written in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no record, half of one, or of another release
        return None
    return record if whole else None


def _is_as_written(file: Path, written: Mapping[str, Any], *, thorough: bool) -> bool:
    size = file.stat().st_size
    return bool(size == written["size"]) and (not thorough or _ends(file, size) == written["ends"])


def _ends(file: Path, size: int) -> str:
    """Digest of the first and the last END bytes."""
    with file.open("rb") as stream:
        digest = hashlib.blake2b(stream.read(END), digest_size=8)
        stream.seek(max(END, size - END))
        digest.update(stream.read(END))
    return digest.hexdigest()


def run_stage(
    folder: Path, key: str, work: Callable[[Path], dict[str, Any]], *, also: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], bool]:
    """The stage's record, and whether it was made now (True) or found under the same key (False).

    `work` gets an empty folder, writes its files there and returns the values to keep. `also` is kept beside them and
    does not count for the key.
    """
    found = kept(folder, thorough=True)
    if found is not None and found.get("key") == key:
        return found["value"], False
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    part.mkdir()
    try:
        value = work(part)
        files = {}
        for file in sorted(p for p in part.rglob("*") if p.is_file()):
            size = file.stat().st_size
            files[file.relative_to(part).as_posix()] = {"size": size, "ends": _ends(file, size)}
        write_json(part / RECORD, {"key": key, "files": files, "value": value, **(also or {})})
        if folder.exists():
            _require_ours(folder)
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return value, True


def _require_ours(folder: Path) -> None:
    """Raises InputError where a folder with somebody's files lies in the place of a result: it is never deleted."""
    if not (folder / RECORD).is_file() and any(folder.iterdir()):
        raise InputError(
            f"{folder} holds files that are no result of petground",
            fix="choose another --out, or move the folder away",
            reason="foreign_folder",
        )


def sweep(folder: Path) -> None:
    """Removes what a killed run left under temporary names."""
    for part in folder.glob(".*.part"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)

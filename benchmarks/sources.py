"""Which code a figure depends on: modules and all that they import of petground, read from the source itself."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from petground import pipeline

__all__ = ["hashes", "sources"]

SUFFIXES = (".py", ".json", ".yaml")
_IMPORT = re.compile(r"^\s*(?:from (petground[\w.]*) import (\([^)]*\)|[^\n]*)|import (petground[\w.]*))", re.MULTILINE)
_STRING = re.compile(r"\"(petground\.[\w.]+):")  # pkgutil.resolve_name("petground.training.inference:load_module")
_KERNEL = re.compile(r"petground\.kernels\.\w+")


@cache
def sources(*roots: str) -> tuple[Path, ...]:
    """Files of `roots` (modules; packages with all that lies in them) and of every module that they import, and so on.

    A kernel counts whole, for its backends are chosen at run time. Nothing is imported. Raises ModuleNotFoundError
    for a root that is not there.
    """
    found: dict[str, list[Path]] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        kernel = _KERNEL.match(name)
        name = kernel[0] if kernel else name
        if name in found:
            continue
        found[name] = _files(name, whole=name in roots or kernel is not None)
        if name in roots and not found[name]:
            raise ModuleNotFoundError(name)
        for file in found[name]:
            waiting += _named(file.read_text(encoding="utf-8")) if file.suffix == ".py" else []
    return tuple(sorted({file for files in found.values() for file in files}))


def hashes(*roots: str) -> dict[str, str]:
    """{room: digest} of `sources(*roots)`: models, training, ..."""
    digests: dict[str, Any] = {}
    for file in sources(*roots):
        inner = file.relative_to(_root())
        digest = digests.setdefault(inner.parts[0], hashlib.sha256())
        digest.update(f"{inner.as_posix()}\0".encode() + file.read_bytes())
    return {room: digest.hexdigest()[:16] for room, digest in sorted(digests.items())}


def _root() -> Path:
    return Path(pipeline.__file__).resolve().parents[1]


def _named(text: str) -> list[str]:
    names = _STRING.findall(text)
    for package, members, module in _IMPORT.findall(text):
        names += [module] if module else [package, *(f"{package}.{word}" for word in re.findall(r"\w+", members))]
    return names


@cache
def _files(name: str, *, whole: bool) -> list[Path]:
    """None of what is no module, but a name in one."""
    path = _root().joinpath(*name.split(".")[1:])
    if path != _root():
        if path.is_dir() and whole:
            return [file for file in path.rglob("*") if file.suffix in SUFFIXES]
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return [file]
    return []

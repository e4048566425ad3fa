"""What earlier exports left in a review folder: pages that know themselves, objects that the index lists or not."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path

from petground.pipeline.review.page import file_name

__all__ = ["earlier_exams", "unlisted"]

HEAD = 65_536  # bytes in which a page has its title
_PAGE = re.compile(r"<title>(.*) · petground review</title>")
_INDEX = "<title>petground review</title>"
_OBJECT = re.compile(r'<a href="([^"/]+)/[^"/]+\.dcm">')


def earlier_exams(out: Path) -> set[str]:
    """Ids of the exams whose page in `out` is one that an export wrote there; a copy under another name is not."""
    found = set()
    for page in out.glob("*.html"):
        told = _PAGE.search(_head(page))
        exam_id = html.unescape(told.group(1)) if told else ""
        if exam_id and page.name == f"{file_name(exam_id)}.html":
            found.add(exam_id)
    return found


def unlisted(objects: Iterable[Path]) -> set[Path]:
    """Those of OUT/<exam>/<object> whose exam the OUT/index.html of an export does not list with an object."""
    listed: dict[Path, set[str] | None] = {}
    gone = set()
    for path in objects:
        out = path.absolute().parent.parent
        if out not in listed:
            listed[out] = _listed(out / "index.html")
        known = listed[out]
        if known is not None and path.absolute().parent.name not in known:
            gone.add(path)
    return gone


def _listed(index: Path) -> set[str] | None:
    """Folders that the index of an export links objects in; None where it is no such index."""
    if not index.is_file() or _INDEX not in _head(index):
        return None
    return set(_OBJECT.findall(index.read_text(encoding="utf-8", errors="replace")))


def _head(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(HEAD).decode("utf-8", errors="replace")

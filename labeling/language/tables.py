"""Tables in reports: a header line of column names, then a row per lesion, parted by bars, tabs, semicolons or blanks.

    Site | Size (mm) | Slice | Current SUVmax | Previous SUVmax
    Right parotid node | 13 | 58 | 6.6 | 10.1

What a number means is told by the column that it stands in, so a row is read by its cells and not by its words. Also
read: a header told in one line ("Site, SUVmax now/before, slice: T9 body, 5.7/9.0, 136"). Linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from petground.labeling.language.lexicon import load_rules, phrases_of

__all__ = ["Cell", "Row", "find_rows"]

_MAX_LINE = 400  # characters; a longer line is prose
_MAX_COLUMNS = 16
_COMMA = re.compile(r", ?(?!\d)|, ")
_SPLITS = (*map(re.compile, (r"\|", r"\t+", r";", r" {2,}|\t")), _COMMA, re.compile(","))
_RULER = re.compile(r"^[\s|:+=_-]{3,}$")
_NAME = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"(?<![\w.,])\d{1,4}(?:[.,]\d{1,3})?(?![\w]|[.,]\d)")
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_LEGEND = re.compile(r"\([^()|\n]*suv[^()|\n]*/[^()|\n]*\)\W*$", re.I)  # "Lesions (SUVmax / image / change)"
_DECIMAL = re.compile(r"\d[.,]\d")
_NOTHING = re.compile(r"^\W*(?:n/?a|none|nil|nm|nd|ns|not measured|not avid)?\W*$", re.I)
_INLINE = re.compile(r"[^:\n]{8,120}:(?=\s)")


@dataclass(frozen=True)
class Cell:
    """Characters start..end of a row, and the role of its column: a label of tables.json, or "" when unknown."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class Row:
    """A line start..end of a table. header: its cells are only column names."""

    start: int
    end: int
    cells: tuple[Cell, ...]
    header: bool = False


Split = Callable[[str], list[tuple[int, int]]]
"""From a line to its cells, as characters within it."""
Header = list[tuple[Split, tuple[str, ...]]]
"""The ways in which a header may part its columns, with their roles; its first row tells which one it is."""


@cache
def _roles() -> dict[str, str]:
    return {phrase.lower(): rule["label"] for rule in load_rules("tables") for phrase in phrases_of(rule)}


def find_rows(text: str, start: int, end: int) -> list[Row]:
    """Rows of all tables between two characters, headers among them, in order. Never raises."""
    rows: list[Row] = []
    header: Header = []
    place = start
    while place < end:
        stop = text.find("\n", place, end)
        stop = end if stop < 0 else stop
        if stop - place <= _MAX_LINE:
            line = text[place:stop]
            fits = [(row, way) for way in header if (row := _row(text, place, stop, *way)) is not None]
            if fits:
                rows.append(fits[0][0])
                header = [fits[0][1]]
            elif not header or not _RULER.match(line):
                header = _header(line)
                if header:
                    rows.append(Row(place, stop, (), header=True))
                else:
                    rows += _inline(text, place, stop)
        else:
            header = []
        place = stop + 1
    return _with_rows(rows)


def _with_rows(rows: list[Row]) -> list[Row]:
    """Drops headers under which no row stands: they are prose after all."""
    return [r for i, r in enumerate(rows) if not r.header or (i + 1 < len(rows) and not rows[i + 1].header)]


def _header(line: str) -> Header:
    """How the columns are parted and what they hold, when the line is a header: an SUV column and another one."""
    found: Header = []
    if "suv" not in line.lower() or _DECIMAL.search(line) or _LEGEND.search(line):
        return found
    words = line.split()
    for split in (*(partial(_spans, pattern) for pattern in _SPLITS), partial(_last_words, len(words))):
        names = [line[a:b] for a, b in split(line)]
        roles = _named(names) if 2 <= len(names) <= _MAX_COLUMNS else None
        if roles is not None:
            found.append((split, roles))
    return found


def _last_words(count: int, line: str) -> list[tuple[int, int]]:
    """Cells of a line parted by single blanks: all but the first are one word each."""
    words = [match.span() for match in re.finditer(r"\S+", line)]
    if count < 3 or len(words) < count:
        return []
    tail = words[len(words) - count + 1 :]
    return [(words[0][0], words[len(words) - count][1]), *tail]


def _named(names: list[str]) -> tuple[str, ...] | None:
    """Roles of column names, None when they are no header. A bare "prior" beside an SUV column is its earlier value."""
    roles = [_role(name) for name in names]
    known = sum(role != "?" for role in roles)
    if not any("suv" in role for role in roles) or known < 2 or len(roles) - known > (1 if known > 2 else 0):
        return None
    return tuple("" if role == "?" else role for role in _earlier(names, roles))


def _earlier(names: list[str], roles: list[str]) -> list[str]:
    """Of several SUV columns those without "current" beside one with it, or of an earlier year, hold earlier values."""
    columns = [i for i, role in enumerate(roles) if role == "suv"]
    if len(columns) < 2:
        return roles
    today = [i for i in columns if any(_roles().get(word) == "current" for word in _tokens(names[i]))]
    years = {i: int(found[-1]) for i in columns if (found := _YEAR.findall(names[i]))}
    if not today and len(years) == len(columns) and len(set(years.values())) == len(columns):
        today = [max(years, key=lambda i: years[i])]
    if len(today) != 1:
        return roles
    return [f"{role} prior" if i in columns and i not in today else role for i, role in enumerate(roles)]


def _role(name: str) -> str:
    """Role of a column name, "?" when unknown: all its words must be known, the most telling one decides."""
    parts = re.split(r"\s*/\s*", name)
    if len(parts) == 2 and "suv" in name.lower():  # "SUVmax now/before"
        words = [{_roles().get(w, "?") for w in _tokens(part)} for part in parts]
        if "?" not in words[0] | words[1] and ("prior" in words[0]) != ("prior" in words[1]):
            return "suv prior/suv" if "prior" in words[0] else "suv/suv prior"
    words_of = _tokens(name)
    if not words_of:
        return "" if not _NUMBER.search(name) else "?"
    whole = _roles().get(" ".join(words_of))
    roles = {whole} if whole else {_roles().get(word, "?") for word in words_of}
    roles.discard("number")
    if "slice" in roles and roles & {"suv", "mean", "peak"}:
        return "?"  # "current SUVmax, slice" is a legend
    if "?" in roles or (_NUMBER.search(name) and "suv" not in roles):
        return "?"
    if "other" in roles:
        return ""
    if "suv" in roles or "mean" in roles or "peak" in roles:
        kind = "mean" if "mean" in roles else "peak" if "peak" in roles else "suv"
        return f"{kind} prior" if "prior" in roles else kind
    for role in ("slice", "size", "side", "site"):
        if role in roles:
            return "" if "prior" in roles and role in ("slice", "size") else role
    return "suv prior" if "prior" in roles else ""


def _tokens(name: str) -> list[str]:
    return [word.lower() for word in _NAME.findall(name)]


def _spans(split: re.Pattern[str], line: str) -> list[tuple[int, int]]:
    """Cells of a line as characters within it; the empty ones outside the outer bars left out."""
    edges = [0]
    for match in split.finditer(line):
        edges += [match.start(), match.end()]
    edges.append(len(line))
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    while spans and not line[slice(*spans[0])].strip():
        spans.pop(0)
    while len(spans) > 1 and not line[slice(*spans[-1])].strip():
        spans.pop()
    return spans


def _row(text: str, start: int, end: int, split: Split, roles: tuple[str, ...]) -> Row | None:
    """The line as a row under the header, None when it is none: as many cells, and numbers where they must be."""
    line = text[start:end]
    spans = split(line)
    if len(spans) != len(roles):
        return None
    cells = []
    for (a, b), role in zip(spans, roles, strict=True):
        inside = line[a:b]
        if "suv" in role and not (_NUMBER.search(inside) or _NOTHING.match(inside)):
            return None
        cells += _halves(inside, start + a, role) if "/" in role else [Cell(role, start + a, start + b)]
    return Row(start, end, tuple(cells))


def _halves(inside: str, place: int, role: str) -> list[Cell]:
    """The two values of "5.7/9.0" under "SUVmax now/before"."""
    left, _, right = inside.partition("/")
    first, second = role.split("/")
    return [
        Cell(first, place, place + len(left)),
        Cell(second, place + len(left) + 1, place + len(left) + 1 + len(right)),
    ]


def _inline(text: str, start: int, end: int) -> list[Row]:
    """Rows of a line that begins with its header and a colon; rows are parted by semicolons."""
    match = _INLINE.match(text, start, end)
    if match is None or "," not in match.group():
        return []
    split = partial(_spans, _COMMA)
    names = [match.group()[a:b] for a, b in split(match.group()[:-1])]
    roles = _named(names) if 2 <= len(names) <= _MAX_COLUMNS else None
    if roles is None or "site" not in roles:
        return []
    rows = [Row(start, match.end(), (), header=True)]
    place = match.end()
    for piece in text[place:end].split(";"):
        row = _row(text, place, place + len(piece.rstrip(" .")), split, roles)
        if row is None:
            return []
        rows.append(row)
        place += len(piece) + 1
    return rows

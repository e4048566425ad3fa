"""Lines that are no report: a hundred thousand characters without a line end are an export gone wrong.

Reports have lines of up to some thousand characters, a whole report without line ends some twenty thousand. A line
above the limit is many reports run together, or a dump: which exam a value in it belongs to cannot be known. Its
values are kept, each with the reason `ambiguous`, found by one regular expression: the time stays linear and small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from petground.labeling.finding import Finding

__all__ = ["LIMIT", "find_overlong", "overlong_values"]

LIMIT = 100_000
"""Characters of one line beyond which it is not read as language."""

_VALUE = re.compile(
    r"\bsuv[ _-]?\(?(?:max|mean|peak)?\)?[ :=]{0,3}(?:of |is |was )?(\d{1,3}(?:[.,]\d{1,3})?)(?![\d.,]*\d)", re.I
)


def find_overlong(text: str) -> list[tuple[int, int]]:
    """Characters (start, end) of every line above the limit. Form feeds and the like end a line as well."""
    if len(text) <= LIMIT:
        return []
    spans = []
    place = 0
    for line in text.splitlines(keepends=True):
        if len(line) > LIMIT:
            spans.append((place, place + len(line)))
        place += len(line)
    return spans


def overlong_values(text: str, start: int, end: int) -> Iterator[Finding]:
    """The SUVs [g/ml] of an overlong line, excluded as `ambiguous`; their sentence is left empty."""
    for match in _VALUE.finditer(text, start, end):
        printed = match.group(1).replace(",", ".")
        decimals = len(printed.partition(".")[2])
        yield Finding(float(printed), None, None, None, "excluded", "ambiguous", match.span(), decimals)

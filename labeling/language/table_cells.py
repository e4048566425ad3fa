"""Mentions of a table's row: each cell's number is what its column says."""

from __future__ import annotations

from petground.labeling.language.indices import find_indices
from petground.labeling.language.mention import Mention, Scan, is_integer, is_number
from petground.labeling.language.quantities import find_dates, find_labelled, find_sizes
from petground.labeling.language.tables import Cell
from petground.labeling.language.tokens import Words

__all__ = ["scan_cells"]

_KINDS = {"suv": "max", "mean": "mean", "peak": "peak"}


def scan_cells(words: Words, begin: int, stop: int, cells: tuple[Cell, ...]) -> list[Mention]:
    """Mentions of the row that spans the tokens begin..stop, in order of their place."""
    scan = Scan(words, begin, stop)
    for cell in cells:
        first, last = max(begin, words.at(cell.start)), min(stop, words.at(cell.end))
        if first >= last:
            continue
        role, _, when = cell.role.partition(" ")
        if role in _KINDS:
            _value(scan, first, last, _KINDS[role], when or "current")
        elif role == "slice":
            _index(scan, first, last)
        elif role == "size":
            _size(scan, first, last)
        else:
            _words(scan, words, first, last)
    return sorted(scan.mentions, key=lambda m: (m.first, m.last))


def _value(scan: Scan, first: int, last: int, kind: str, when: str) -> None:
    numbers = [i for i in range(first, last) if is_number(scan.word(i))]
    if not numbers:
        return
    at = numbers[-1] if any(scan.word(i).isalpha() for i in range(first, last)) else numbers[0]  # "1. Left hilum 5.4"
    word = scan.word(at)
    mention = scan.take("suv", at, at + 1)
    mention.value, mention.suv_kind, mention.when = float(word.replace(",", ".")), kind, when
    mention.decimals = 0 if is_integer(word) else len(word) - 1 - max(word.find("."), word.find(","))
    mention.core, mention.link = (mention.start, mention.end), "head"


def _index(scan: Scan, first: int, last: int) -> None:
    """Reads "58", "3/58" (series and image), "58-64" (a range), "58, 64" (several)."""
    numbers = [i for i in range(first, last) if is_integer(scan.word(i)) and len(scan.word(i)) <= 4]
    links = {scan.word(i) for i in range(first, last)}
    if not numbers:
        return
    values = [int(scan.word(i)) for i in numbers]
    mention = scan.take("slice", numbers[0], numbers[-1] + 1)
    if len(values) == 2 and links & {"/", ":"}:
        mention.series, values, numbers = values[0], values[1:], numbers[1:]
    mention.is_range = len(values) == 2 and bool(links & {"-", "–", "to"}) and values[0] < values[1]
    mention.indices = tuple(values)
    mention.index_spans = tuple((scan.words.start[i], scan.words.end[i]) for i in numbers)
    if links & {"cor", "coronal", "sag", "sagittal", "mip"}:
        mention.plane = "other"


def _size(scan: Scan, first: int, last: int) -> None:
    numbers = [float(scan.word(i).replace(",", ".")) for i in range(first, last) if is_number(scan.word(i))]
    if numbers:
        scan.take("size", first, last).value = max(numbers)


def _words(scan: Scan, words: Words, first: int, last: int) -> None:
    """A cell of words: its numbers are sizes, dates, vertebrae, and slices only with their word."""
    inner = Scan(words, first, last)
    for find in (find_dates, find_sizes, find_indices, find_labelled):
        find(inner)
    scan.mentions += inner.mentions

"""Exams split by scanner and time into groups that count slices alike: a regression tree on evidence.

A split is made when the parts, each under its own convention, are a hundred times likelier than the whole under one,
the number of splits tried taken into account. A scanner may need a second split, in time, to show (it changed and the
others did not), so the best one of each part is looked at as well. Parts that come out alike are joined again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from petground.labeling.evidence import CONVENTIONS
from petground.labeling.infer_numbering import EXACT, MARGIN, ExamEvidence, Table, evidence, same_slices
from petground.labeling.site import scanner_matches

__all__ = ["Condition", "ExamSums", "Rows", "leaves"]

SPLIT = MARGIN  # two groups must be this much likelier than one, beyond the number of splits tried
AS_GOOD = 2.0  # splits within this of the best are about as good; the plainest of them is taken [log]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Condition:
    """Which exams a group holds: since <= date < until (ISO), and scanner.

    scanner: None for any, else a name, or a beginning with * behind it, or "" for exams whose scanner is not known.
    """

    scanner: str | None = None
    since: str | None = None
    until: str | None = None

    def __str__(self) -> str:
        parts = [self.scanner or "scanner not known"] if self.scanner is not None else []
        parts += [f"from {self.since}"] if self.since else []
        parts += [f"until {self.until}"] if self.until else []
        return ", ".join(parts) or "all others"


Part = tuple[Condition, Rows]


class ExamSums:
    """Evidence summed by exam: sums [E, H, P]; scanners and dates as strings, "" where not known."""

    def __init__(self, exams: Sequence[ExamEvidence], table: Table) -> None:
        self.table = table
        self.sums = np.zeros((len(exams), len(CONVENTIONS), len(EXACT)))
        np.add.at(self.sums, table.exam, table.logs)
        self.testable = np.bincount(table.exam, minlength=len(exams))
        self.scanner = np.array([e.scanner or "" for e in exams], dtype=object)
        self.date = np.array([e.date or "" for e in exams], dtype=object)

    def of(self, rows: Rows) -> Table:
        return self.table.rows(np.isin(self.table.exam, rows))

    def total(self, rows: Rows) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.sums[rows].sum(axis=0)
        return found


def leaves(data: ExamSums, rows: Rows, condition: Condition) -> list[Part]:
    """The groups of `rows`, in an order in which the first condition that an exam fulfils is that of its group."""
    split = _best_split(data, rows, condition)
    if split is None:
        return [(condition, rows)]
    found = [leaf for part, part_rows in split for leaf in leaves(data, part_rows, part)]
    return [(condition, rows)] if _alike(data, rows, [leaf for _, leaf in found]) else found


def _explained(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., H, P] -> [...]: log likelihood of the exams under one convention or none, which one not known."""
    logs = np.logaddexp.reduce(sums, axis=-1) - np.log(len(EXACT))
    none = np.zeros((*logs.shape[:-1], 1))
    both = np.concatenate([logs, none], axis=-1)
    found: NDArray[np.float64] = np.logaddexp.reduce(both, axis=-1) - np.log(both.shape[-1])
    return found


def _alike(data: ExamSums, rows: Rows, parts: Sequence[Rows]) -> bool:
    """Whether all parts follow one convention, so that the split told of something else (of how exact reports are)."""
    table = data.of(rows)
    columns = []
    for part in parts:
        logs = evidence(data.total(part))
        if data.testable[part].any():
            columns.append(int(np.argmax(logs)) if logs.max() > 0 else None)
    if not columns or columns[0] is None:
        return all(column is None for column in columns)
    return all(other is not None and same_slices(table, columns[0], other) for other in columns[1:])


def _best_split(data: ExamSums, rows: Rows, condition: Condition) -> list[Part] | None:
    whole = float(_explained(data.total(rows)))
    cuts, values = _cuts(data, rows)
    scanners = list(_by_scanner(data, rows, condition))
    price = SPLIT + float(np.log(max(len(cuts) + len(scanners), 1)))
    options: list[tuple[float, int, str | tuple[Part, Part]]] = [
        (float(value) - whole - price, int(cut.endswith("-01-01")), cut)
        for cut, value in zip(cuts, values, strict=True)
    ]
    for parts in scanners:
        worth = 0.0
        for _, part in parts:
            alone = float(_explained(data.total(part)))
            worth += max(alone, float(_cuts(data, part)[1].max(initial=-np.inf)) - price)
        pattern = str(parts[0][0].scanner)
        options.append((worth - whole - price, 2 if pattern.endswith("*") else 0, parts))
    options = [option for option in options if option[0] > 0]
    if not options:
        return None
    top = max(option[0] for option in options)
    _, _, chosen = max((o for o in options if o[0] > top - AS_GOOD), key=lambda o: (o[1], o[0]))
    return _at(data, rows, condition, chosen) if isinstance(chosen, str) else list(chosen)


def _by_scanner(data: ExamSums, rows: Rows, condition: Condition) -> Iterator[tuple[Part, Part]]:
    """One maker, model or machine against the rest."""
    names = {name for name in data.scanner[rows] if name}
    patterns: set[str] = set(names)
    for name in names:
        words = name.split(" / ")
        patterns |= {" / ".join(words[:n]) + " / *" for n in range(1, len(words))}
    for pattern in sorted(patterns):
        inside = np.array([scanner_matches(pattern, name) for name in data.scanner[rows]])
        if not inside.all() and inside.any():
            yield (replace(condition, scanner=pattern), rows[inside]), (condition, rows[~inside])


def _cuts(data: ExamSums, rows: Rows) -> tuple[list[str], NDArray[np.float64]]:
    """First days of months between the exams, and how well the exams are explained when they are cut there."""
    dates = data.date[rows]
    months = sorted({date[:7] for date in dates if date})
    if len(months) < 2:
        return [], np.zeros(0)
    every = sorted({*months[1:], *(f"{month[:4]}-01" for month in months[1:] if f"{month[:4]}-01" > months[0])})
    place = {month: np.searchsorted(every, month, side="right") for month in months}
    binned = np.zeros((len(every) + 1, *data.sums.shape[1:]))
    known = dates != ""
    np.add.at(binned, [place[date[:7]] for date in dates[known]], data.sums[rows[known]])
    before = np.cumsum(binned, axis=0)[:-1]
    undated = _explained(data.total(rows[~known])) if (~known).any() else 0.0
    return [f"{month}-01" for month in every], _explained(before) + _explained(binned.sum(axis=0) - before) + undated


def _at(data: ExamSums, rows: Rows, condition: Condition, cut: str) -> list[Part]:
    """Before and from a day on; exams without a date are a part of their own, and the last."""
    dates = data.date[rows]
    before, known = (dates < cut) & (dates != ""), dates != ""
    return [
        (replace(condition, until=cut), rows[before]),
        (replace(condition, since=cut), rows[known & ~before]),
        (condition, rows[~known]),
    ]

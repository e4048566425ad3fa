"""How an export counts slices, found from where its reported values are found: evidence, and whether it is clear.

If a convention is right, the printed slice number points at a slice that holds a local maximum of the printed SUVmax;
under a wrong one that happens by chance, the more often the commoner the value is there. Per finding and convention the
likelihood ratio against chance is `p / c + 1 - p` where the value is met and `1 - p` where it is not: c is how often a
slice nearby holds such a maximum, p how often reports are exact. p is not known and integrated out (a flat prior), so
an export with many slips needs more findings but is not misjudged. A value that is everywhere weighs nothing, a rare
one much. Evidence is told in powers of ten: 3 means a thousand times likelier than chance.

The choice is compared not only with the other conventions but with itself shifted by a few slices: what random numbers
reach there, a convention has to surpass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petground.labeling.evidence import CONVENTIONS, Convention, Sighting

__all__ = ["MARGIN", "ExamEvidence", "Standing", "Table", "Verdict", "evidence", "judge", "same_slices", "tabulate"]

Real = NDArray[np.float64]
EXACT = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])  # values of p that are summed over
NEARBY = 15  # slices on each side that tell how common a value is in that part of the body
SHIFTS = tuple(d for d in range(-25, 26) if abs(d) > 1)  # by one slice is another convention
CLEAR = float(np.log(1e4))  # ten conventions are tried: a thousand to one after that
MARGIN = float(np.log(100.0))  # the runner-up must be a hundred times less likely
FEWEST_MET, FEWEST_EXAMS = 5, 3
SPECIFIC = 0.2  # a value met by chance more often than this tells next to nothing
ALIKE = 0.05  # two conventions that differ in fewer findings than this need not be told apart
SECOND_HABIT = 0.15  # part of the findings that another convention may explain without being a second habit


@dataclass(frozen=True)
class ExamEvidence:
    """One exam: who scanned it, when (ISO date), and its findings' sightings."""

    exam_id: str
    sightings: tuple[Sighting, ...]
    scanner: str | None = None
    date: str | None = None


@dataclass(frozen=True)
class Table:
    """Evidence as arrays; F findings that are found somewhere, H conventions, P values of EXACT.

    exam [F]: index of the exam. met, can [F, H]: value met where the number points; whether it can be counted so.
    chance [F, H]. logs [F, H, P]: log likelihood ratio against chance. sightings: of the F rows.
    """

    exam: NDArray[np.int64]
    met: NDArray[np.bool_]
    can: NDArray[np.bool_]
    chance: Real
    logs: Real
    sightings: tuple[Sighting, ...]

    def rows(self, keep: NDArray[np.bool_]) -> Table:
        chosen = tuple(s for s, k in zip(self.sightings, keep, strict=True) if k)
        return Table(self.exam[keep], self.met[keep], self.can[keep], self.chance[keep], self.logs[keep], chosen)


@dataclass(frozen=True)
class Standing:
    """A convention and those that mean the same slices here: findings counted, met, met by chance, evidence [log10]."""

    convention: Convention
    same: tuple[Convention, ...]
    findings: int
    met: int
    by_chance: float
    evidence: float


@dataclass(frozen=True)
class Verdict:
    """Standings, best first; the convention, or None and why it is not clear; what else is worth knowing."""

    standings: tuple[Standing, ...]
    convention: Convention | None
    why_not: str = ""
    notes: tuple[str, ...] = ()


def tabulate(exams: Sequence[ExamEvidence]) -> Table:
    """Arrays of all findings whose value is met anywhere in their exam: the others tell nothing of numbering."""
    rows = [(n, s) for n, exam in enumerate(exams) for s in exam.sightings if s.met]
    shape = (len(rows), len(CONVENTIONS))
    met, can, chance = np.zeros(shape, bool), np.zeros(shape, bool), np.ones(shape)
    for row, (_, sighting) in enumerate(rows):
        common = _commonness(sighting)
        for column, place in enumerate(sighting.places):
            can[row, column] = place is not None
            if place:
                met[row, column] = any(place[0] <= k < place[1] for k in sighting.met)
                chance[row, column] = _by_chance(common, place)
    return Table(
        np.array([n for n, _ in rows], dtype=np.int64),
        met,
        can,
        chance,
        _logs(met, can, chance),
        tuple(s for _, s in rows),
    )


def judge(table: Table) -> Verdict:
    """Which convention the findings of `table` follow, if that is clear."""
    standings, best, logs = _standings(table)
    if not standings:
        return Verdict((), None, "no reported value is met anywhere in its exam")
    top, column = standings[0], best[0]
    testable = len(table.exam), len(set(table.exam.tolist()))
    if testable[0] < FEWEST_MET or testable[1] < FEWEST_EXAMS:
        return Verdict(standings, None, _too_few(testable))
    if logs[0] < CLEAR:
        moved = [(*_best_shift(table, other), n) for n, other in enumerate(best)]
        evidence, shift, n = max(moved)
        if evidence > CLEAR:
            where = f"{abs(shift)} slices nearer to the {'head' if shift > 0 else 'feet'}"
            why = f"the values are found {where} than '{standings[n].convention}' says: is the stack cut off at an end?"
            return Verdict(standings, None, why)
        reached = f"the best reaches {logs[0] / np.log(10):+.1f}, {CLEAR / np.log(10):.0f} is the least"
        return Verdict(standings, None, f"no convention does clearly better than chance: {reached}")
    specific = table.met[:, column] & (table.chance[:, column] < SPECIFIC)
    telling = int(specific.sum()), len(set(table.exam[specific].tolist()))
    if telling[0] < FEWEST_MET or telling[1] < FEWEST_EXAMS:
        return Verdict(standings, None, _too_few(telling))
    control, shift = _best_shift(table, column)
    if control > logs[0] - MARGIN:
        where = f"{abs(shift)} slices nearer to the {'head' if shift > 0 else 'feet'} than '{top.convention}' says"
        return Verdict(standings, None, f"the values are found about as well {where}: is the stack cut off at an end?")
    habit = _second_habit(table, column, best)
    if habit is not None:
        return Verdict(standings, None, habit)
    notes = list(_spread(table, column))
    if len(logs) > 1 and logs[0] - logs[1] < MARGIN:
        share = _differing(table, column, best[1])
        if share > ALIKE:
            why = f"'{top.convention}' and '{standings[1].convention}' are too near to each other"
            return Verdict(standings, None, why)
        notes.append(f"'{standings[1].convention}' differs in {share:.1%} of the findings only and was not ruled out")
    return Verdict(standings, top.convention, "", tuple(notes))


def _too_few(have: tuple[int, int]) -> str:
    return f"{have[0]} telling findings in {have[1]} exams are too few: {FEWEST_MET} in {FEWEST_EXAMS} are the least"


def evidence(logs: Real) -> Real:
    """[F, H, P] or sums of them [H, P] -> log of the likelihood ratio against chance, p integrated out, [H]."""
    total = logs.sum(axis=0) if logs.ndim == 3 else logs
    return np.asarray(np.logaddexp.reduce(total, axis=-1) - np.log(len(EXACT)))


def same_slices(table: Table, one: int, other: int) -> bool:
    """Whether two conventions mean the same slices wherever both can be counted (and there is such a finding)."""
    both = table.can[:, one] & table.can[:, other]
    return bool(both.any()) and _differing(table, one, other) == 0.0


def _standings(table: Table) -> tuple[tuple[Standing, ...], list[int], list[float]]:
    """Standings best first, the column of each, and its evidence as a natural logarithm."""
    logs = evidence(table.logs)
    classes: list[list[int]] = []
    for column in range(len(CONVENTIONS)):
        if not table.can[:, column].any():
            continue
        known = next((c for c in classes if same_slices(table, c[0], column)), None)
        if known is None:
            classes.append([column])
        else:
            known.append(column)
    found = []
    for columns in classes:
        column = max(columns, key=lambda c: int(table.can[:, c].sum()))  # the first of those that serve most findings
        can = table.can[:, column]
        standing = Standing(
            CONVENTIONS[column],
            tuple(CONVENTIONS[c] for c in columns if c != column),
            int(can.sum()),
            int(table.met[:, column].sum()),
            float(table.chance[can & (table.chance[:, column] < 1), column].sum()),
            float(logs[column] / np.log(10)),
        )
        found.append((float(logs[column]), -column, standing))
    found.sort(key=lambda row: row[:2], reverse=True)
    return tuple(s for _, _, s in found), [-c for _, c, _ in found], [value for value, _, _ in found]


def _commonness(sighting: Sighting) -> Real:
    """[K]: the part of the slices around each that holds the value, or of all slices where that is more."""
    held = _held(sighting)
    total = np.concatenate([[0.0], np.cumsum(held)])
    k = np.arange(sighting.slices)
    low, high = np.maximum(k - NEARBY, 0), np.minimum(k + NEARBY + 1, sighting.slices)
    return np.maximum((total[high] - total[low]) / (high - low), held.mean())


def _held(sighting: Sighting) -> Real:
    held = np.zeros(sighting.slices)
    held[list(sighting.met)] = 1.0
    return held


def _by_chance(common: Real, place: Sequence[int]) -> float:
    """Chance that one slice or more of [start, stop) holds the value; certainty is never claimed."""
    each = float(common[min(max((place[0] + place[1] - 1) // 2, 0), len(common) - 1)])
    return float(min(1.0 - (1.0 - each) ** (place[1] - place[0]), 0.999))


def _logs(met: NDArray[np.bool_], can: NDArray[np.bool_], chance: Real) -> Real:
    hit = np.log(EXACT / chance[..., None] + 1 - EXACT)
    return np.where(can[..., None], np.where(met[..., None], hit, np.log(1 - EXACT)), 0.0)


def _shifted(table: Table, column: int, shifts: Sequence[int]) -> tuple[NDArray[np.bool_], Real]:
    """What is met, and by chance, [F, S], where the numbers point moved by each of `shifts` slices towards the head.

    What falls off the image is neither met nor met by chance (1.0 stands for that).
    """
    shape = (len(table.sightings), len(shifts))
    met, chance = np.zeros(shape, bool), np.ones(shape)
    for row, sighting in enumerate(table.sightings):
        place = sighting.places[column]
        if not place:
            continue
        start = place[0] + sighting.up * np.asarray(shifts)
        stop = start + place[1] - place[0]
        inside = (start >= 0) & (stop <= sighting.slices)
        total = np.concatenate([[0.0], np.cumsum(_held(sighting))])
        met[row, inside] = total[stop[inside]] > total[start[inside]]
        each = _commonness(sighting)[(start[inside] + stop[inside] - 1) // 2]
        chance[row, inside] = np.minimum(1.0 - (1.0 - each) ** (place[1] - place[0]), 0.999)
    return met, chance


def _best_shift(table: Table, column: int) -> tuple[float, int]:
    """The most evidence that the convention gets when it is moved, and by how many slices towards the head."""
    met, chance = _shifted(table, column, SHIFTS)
    logs = evidence(_logs(met, np.repeat(table.can[:, [column]], len(SHIFTS), axis=1), chance))
    best = int(np.argmax(logs))
    return float(logs[best]), SHIFTS[best]


def _spread(table: Table, column: int) -> list[str]:
    """Whether more findings than by chance are found one or two slices off."""
    missed = table.can[:, column] & ~table.met[:, column]
    met, chance = _shifted(table, column, (-2, -1, 1, 2))
    near = met.any(axis=1) & missed
    by_chance = float(np.where(missed[:, None] & (chance < 1), chance, 0.0).sum())
    extra, total = float(near.sum()) - by_chance, int(table.can[:, column].sum())
    if extra < max(3.0, 3.0 * np.sqrt(by_chance), 0.03 * total):
        return []
    return [f"about {extra / total:.0%} more are found within two slices: consider slice_tolerance: 2 in the site file"]


def _differing(table: Table, one: int, other: int) -> float:
    """Part of the findings, counted both ways, for which the numbers mean other slices."""
    both = table.can[:, one] & table.can[:, other]
    differ = [s.places[one] != s.places[other] for s, b in zip(table.sightings, both, strict=True) if b]
    return float(np.mean(differ)) if differ else 1.0


def _second_habit(table: Table, column: int, best: Sequence[int]) -> str | None:
    """Whether another convention explains, clearly, a good part of what the chosen one does not meet: which, how well.

    Its evidence is that of those findings alone, which no greater number of exams would take away.
    """
    missed = table.can[:, column] & ~table.met[:, column]
    if missed.sum() < SECOND_HABIT * len(missed):
        return None
    rest = table.rows(missed)
    logs = evidence(rest.logs)
    for other in best[1:]:
        gained = float(rest.met[:, other].sum() - rest.chance[rest.can[:, other], other].sum())
        if logs[other] < CLEAR or gained < SECOND_HABIT * len(missed):
            continue
        offset = _constant_offset(rest, column, other)
        if offset is not None and abs(offset) <= 2:  # slips of a slice go both ways, a habit goes one way
            back, chance = _shifted(rest, column, (-offset,))
            if float(back.sum() - chance[chance < 1].sum()) > gained / 3:
                continue
        return (
            f"beside '{CONVENTIONS[column]}' a part of the findings follows '{CONVENTIONS[other]}': it meets "
            f"{int(rest.met[:, other].sum())} of the {len(rest.sightings)} that the former does not "
            f"(evidence {logs[other] / np.log(10):+.1f}), of {len(missed)} in all"
        )
    return None


def _constant_offset(table: Table, column: int, other: int) -> int | None:
    """By how many slices towards the head the other convention's places lie, where that is one number."""
    offsets = {s.up * (b[0] - a[0]) for s in table.sightings if (a := s.places[column]) and (b := s.places[other])}
    return offsets.pop() if len(offsets) == 1 else None

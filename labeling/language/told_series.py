"""Values told as a row in time: "current/prior 3.0/2.1", "12.2 at baseline, 7.0 in March, 3.1 now", FDG beside PSMA."""

from __future__ import annotations

import itertools

from petground.labeling.language.stream import Item, Row
from petground.labeling.language.told import Tense

__all__ = ["settle_pairs", "settle_series", "settle_tracers"]

_JOINS = ("and", "/", "&", ",", "or", "vs", "versus", "->", "→")
_PAIR_REACH = 24  # items between the cues and the first of their values


def settle_pairs(row: Row, values: list[int], tenses: dict[int, Tense]) -> None:
    """Gives "current and prior ... 3.0 and 2.1" and "SUVmax prior/now 2.1/3.0" their tenses in the order told."""
    if len(values) < 2 or row.lacks("current"):
        return
    one, two = values[0], values[1]
    around = [*_time_cues(row, 0, one), *_time_cues(row, two + 1, min(two + 7, len(row)))]
    for first, second in itertools.pairwise(around):
        told = (_when(row, first), _when(row, second))
        if "" in told or told[0] == told[1]:
            continue
        between = [item.text for item in row[first + 1 : second]]
        slices = sum("slice" in item.kinds for item in row[first + 1 : second])
        joined = any(text in _JOINS for text in between) and (len(between) <= 2 or slices == 1)
        link = [item.text for item in row[one + 1 : two]]
        if (
            joined
            and (second < one or first > two)
            and one - second <= _PAIR_REACH
            and len(link) <= 2
            and (not link or link[0] in _JOINS)
        ):
            for value, when, cue in zip((one, two), told, (first, second), strict=True):
                tenses[value] = Tense(when, "paired", cue=cue)
            return


def _time_cues(row: list[Item], first: int, stop: int) -> list[int]:
    return [i for i in range(first, stop) if _when(row, i)]


def _when(row: list[Item], i: int) -> str:
    if row[i].has("prior") or row[i].text == "then":
        return "prior"
    return "current" if row[i].has("current") and row[i].text not in ("is", "are", "has", "new") else ""


def settle_series(row: list[Item], values: list[int], tenses: dict[int, Tense]) -> None:
    """Where one value of a lesion is said to be today's, the others of the same kind, without a slice, are earlier."""
    if not any(tense.when == "current" for tense in tenses.values()):
        return
    for run in _runs(row, values):
        today = [v for v in run if tenses[v].when == "current" and tenses[v].sign in ("current", "after")]
        if len(today) != 1 or row[tenses[today[0]].cue].text in ("is", "are", "has", "new", "remains"):
            continue
        for order, v in enumerate(run):
            stop = run[order + 1] if order + 1 < len(run) else len(row)
            if tenses[v].when or tenses[v].sign == "range" or _kind(row, v) != _kind(row, today[0]):
                continue
            if not any("slice" in item.kinds for item in row[v:stop]):
                tenses[v] = Tense("prior", "series", cue=tenses[today[0]].cue)


def _runs(row: list[Item], values: list[int]) -> list[list[int]]:
    """Values between which no other lesion, tissue or comparison is named."""
    runs: list[list[int]] = []
    for v in values:
        apart = runs and any(
            (item.own and not item.has("another")) or item.has("compare", "ref", "reference")
            for item in row[runs[-1][-1] + 1 : v]
        )
        if runs and not apart:
            runs[-1].append(v)
        else:
            runs.append([v])
    return [run for run in runs if len(run) > 1]


def settle_tracers(row: list[Item], values: list[int], tenses: dict[int, Tense]) -> None:
    """A value of another tracer than the first one's is of another exam: "PSMA SUVmax 12.1; FDG SUVmax 3.0"."""
    told = [(v, mention.tracer) for v in values if (mention := row[v].mention) is not None and mention.tracer]
    for v, tracer in told[1:]:
        if tracer != told[0][1]:
            tenses[v] = Tense("prior", "tracer")


def _kind(row: list[Item], index: int) -> str:
    mention = row[index].mention
    return mention.suv_kind if mention is not None else ""

"""Values told against each other: ranges, lists, from..to, arrows, versus, and "was" beside a value of today."""

from __future__ import annotations

from dataclasses import dataclass

from petground.labeling.language.stream import Item

__all__ = ["Tense", "chain_values", "of_compared_exam", "pair_values", "range_joint", "settle_past"]


@dataclass
class Tense:
    """when: prior | current | "" (nothing said). sign: what said so; strong: said outright, not by "was" alone.

    cue: index of the item that said it. pair: index of the item of the value it is told against, or -1.
    """

    when: str = ""
    sign: str = ""
    strong: bool = True
    cue: int = -1
    pair: int = -1


_TO = ("to", "and", "through", "up to", "-", "–", "—")


def range_joint(row: list[Item], a: int, b: int) -> int:
    """Item of "to" in "range from 3.4 (L2, slice 181) to 12.0 (right ala, slice 230)": each end is a lesion; or -1."""
    joint = next((t for t in range(b - 1, max(a, b - 6), -1) if row[t].text in _TO), -1)
    if joint < 0:
        return -1
    ranged = any(item.has("range") for item in row[max(0, a - 6) : a])
    plain = any(item.text == "from" for item in row[max(0, a - 3) : a]) and joint > 0
    if not ranged and not (plain and any(item.own for item in row[a:joint])):
        return -1
    if joint < 0 or row[joint].depth > row[a].depth or any(item.has("slice") for item in row[:a]):
        return -1
    told = any(item.has("slice") for item in row[a:joint]) and any(item.has("slice") for item in row[b:])
    return joint if told else -1


def _word(row: list[Item], j: int) -> str:
    return row[j].text if 0 <= j < len(row) else ""


def _between(row: list[Item], a: int, b: int) -> list[Item]:
    return row[a + 1 : b]


def chain_values(row: list[Item], before: int, index: int, tenses: dict[int, Tense]) -> None:
    """A value that only hangs on the one before ("previously 7.2 and 8.1") shares its tense; a dash makes a range."""
    if range_joint(row, before, index) >= 0:
        tenses[before], tenses[index] = Tense(), Tense()
        return
    between = [item.text for item in _between(row, before, index)]
    first = tenses[before]
    if (any(t in ("-", "–", "—", "--") for t in between) and len(between) <= 2) or (
        _ranged(row, before) and set(between) & {"and", "to"}
    ):
        tenses[index] = Tense(first.when, "range", cue=first.cue, pair=before)
        first.sign, first.pair = "range", index
    elif between in (["("], ["["]) and _word(row, index + 1) in (")", "]"):
        tenses[index] = Tense("prior", "bracket", cue=index, pair=before)  # SUVmax 5.4 (7.2)
    elif set(between) <= {"and", ",", "/", "&", "or", ""} or not between:
        tenses[index] = Tense(first.when, "list" if first.when else "", first.strong, first.cue, first.pair)
    else:
        tenses[index] = Tense()


def pair_values(row: list[Item], before: int, index: int, tenses: dict[int, Tense]) -> None:
    """Settles two values told against each other: from..to, ->, versus."""
    if range_joint(row, before, index) >= 0:
        tenses[before], tenses[index] = Tense(), Tense()
        return
    tense, first = tenses[index], tenses[before]
    near = index - before <= 10 and not any(item.own for item in _between(row, before, index))
    if tense.sign == "to" and near and not any(row[i].text in (";",) for i in range(before, index)):
        told = first.sign == "from" or tense.cue - before <= 1 or (first.sign in ("after", "adverb", "exam", "date"))
        if not told:
            return
        changed = any(item.has("change") for item in row[max(0, before - 12) : index]) or first.sign in (
            "after",
            "exam",
            "date",
        )
        many = any(item.has("plural") for item in row[:before])
        if _ranged(row, before) or (not changed and (many or first.sign != "from")):
            tenses[before] = Tense("", "range", pair=index)
            tenses[index] = Tense("", "range", pair=before)
        else:
            tenses[before] = Tense("prior", first.sign or "to", cue=first.cue, pair=index)
            tense.pair = before
    elif tense.sign == "arrow":
        tenses[before] = Tense("prior", "arrow", cue=tense.cue, pair=index)
        tense.pair = before
    elif tense.sign in ("versus", "from", "after", "adverb", "exam", "current", "clause") and near:
        tense.pair = before
        if (
            tense.sign == "after"
            and tense.when == "current"
            and first.when == ""
            and any(item.has("versus") for item in _between(row, before, index))
        ):
            tenses[before] = Tense("prior", "versus", cue=tense.cue, pair=index)
    if tense.sign == "from" and near is False and not first.when:
        tense.pair = before


def _ranged(row: list[Item], before: int) -> bool:
    return any(item.has("range") for item in row[max(0, before - 5) : before])


def of_compared_exam(row: list[Item], index: int) -> int:
    """Item of "prior" in "SUVmax 5.4, unchanged from prior SUVmax 5.5", for the second value; else -1."""
    cue = index - 1
    while cue > 0 and (row[cue].has("head") or row[cue].text in ("of", ",", "(", ":", "=")):
        cue -= 1
    earlier = "prior" in row[cue].text or "previous" in row[cue].text
    if not (earlier and cue < index - 1 and row[cue].has("prior", "stable", "compare", "versus")):
        return -1
    for j in range(cue - 1, max(cue - 12, -1), -1):
        if "value" in row[j].kinds:
            return cue if _kind(row, j) == _kind(row, index) else -1
        if row[j].own or row[j].text == ";":
            return -1
    return -1


def settle_past(row: list[Item], values: list[int], tenses: dict[int, Tense]) -> None:
    """A mere "was" means earlier only beside a value of this exam of the same lesion."""
    for order, index in enumerate(values):
        tense = tenses[index]
        if tense.sign != "past":
            continue
        beside = False
        for step in (-1, 1):
            if not 0 <= order + step < len(values):
                continue
            neighbour = values[order + step]
            low, high = min(index, neighbour), max(index, neighbour)
            gap = row[low + 1 : high]
            apart = any(item.own and not item.has("another") for item in gap) or any(
                item.has("compare") for item in gap
            )
            told = tenses[neighbour]
            if not apart and told.when != "prior" and told.sign != "past":
                beside = beside or told.when == "current" or _kind(row, index) == _kind(row, neighbour)
        tense.when = "prior" if beside else ""


def _kind(row: list[Item], index: int) -> str:
    mention = row[index].mention
    return mention.suv_kind if mention is not None else ""

"""On which side a lesion lies, and the words for its place."""

from __future__ import annotations

from typing import cast

from petground.labeling.finding import Laterality
from petground.labeling.language.anatomy import POSITIONS
from petground.labeling.language.stream import Item, Row
from petground.labeling.language.tokens import Words

__all__ = ["find_place", "find_side", "find_site", "listed_places", "listed_side", "opposite"]


MANY_PLACES = 40
"""Places in one sentence beyond which it is none."""
_BESIDE = frozenset((".", ":", ",", "(", ")", "-", "/", "st", "nd", "rd", "th", "and", "&"))


def _sides(row: list[Item], indices: list[int]) -> list[tuple[int, str]]:
    found = []
    for i in indices:
        item = row[i]
        if not item.own:
            continue
        label = item.kinds.get("side") or item.kinds.get("sided")
        if not label or item.has("noside"):
            continue
        if "letter" in item.kinds and not _before_a_place(row, i):
            continue
        if item.text in ("left", "right") and _means_leaving(row, i):
            continue
        found.append((i, label))
    return found


def _before_a_place(row: list[Item], i: int) -> bool:
    """Whether "R" or "L" stands at what it can be the side of: "R ext iliac", "R 5th rib", "node (R)"."""
    if i and row[i - 1].text in ("(", "[") and row[i + 1 : i + 2] and row[i + 1].text in (")", "]"):
        return True
    words = 0
    for item in row[i + 1 : i + 9]:
        if item.own or item.has("head", "value"):
            return True
        if item.has("number", "size") or item.text in _BESIDE or item.text in POSITIONS:
            continue
        words += 1
        if words > 2 or item.kinds or not item.text.isalpha():
            return False
    return False


def _means_leaving(row: list[Item], i: int) -> bool:
    """Whether the side, as in "concerning for a right-sided primary", is another lesion's."""
    back = [item.text for item in row[max(0, i - 4) : i]]
    further = [item.text for item in row[max(0, i - 6) : i]]
    across = {"across", "crossing", "crosses", "toward", "towards"} & set(further) and back[-1:] == ["the"]
    return "concerning" in back or "suggesting" in back or bool(across)


def find_side(row: Row, indices: list[int], value: int) -> Laterality | None:
    """Side of the lesion of a value among the items that speak of it: before the value first, the nearest of them."""
    if row.lacks("side", "sided"):
        return None
    sides = _sides(row, indices)
    near = [
        (i, s) for i, s in sides if 0 < i - value <= 3 and row[i - 1].text == "the" and row[i - 2].text in ("on", "in")
    ]
    if near:
        return cast(Laterality, near[0][1])  # "SUVmax 6.2 on the right"
    if value + 1 < len(row) and row[value].bracket and row[value + 1].has("side") and not _goes_on(row, value + 1):
        return cast(Laterality, row[value + 1].kinds["side"])  # "(SUVmax 3.3 right, slice 113; ..."
    before = [(i, s) for i, s in sides if i < value]
    after = [(i, s) for i, s in sides if i > value]
    if before:
        index, side = before[-1]
        other = next((i for i in indices if index + 1 < i < value and row[i].has("contralateral")), None)
        if other is not None and side in ("left", "right"):
            return opposite(cast(Laterality, side))  # "after right nephrectomy the contralateral adrenal"
        if len(before) > 1 and _joined(row, before[-2][0], index) and {before[-2][1], side} == {"left", "right"}:
            return "bilateral"
        one = next((i for i in indices if index < i < value and row[i].has("single")), None)
        if side == "bilateral" and one is not None and any(row[i].has("site") for i in indices if one < i < value):
            return cast(Laterality, after[0][1]) if after else None  # "in both lobes, the largest in segment VII"
        return cast(Laterality, side)
    if after:
        index, side = after[0]
        if len(after) > 1 and _joined(row, index, after[1][0]) and {after[1][1], side} == {"left", "right"}:
            return "bilateral"
        return cast(Laterality, side)
    return None


def _goes_on(row: list[Item], i: int) -> bool:
    """Whether a place follows the side, so that it is that place's."""
    return i + 1 < len(row) and row[i + 1].own


def _joined(row: list[Item], a: int, b: int) -> bool:
    between = [item.text for item in row[a + 1 : b]]
    return len(between) <= 3 and "and" in between and not any("value" in row[i].kinds for i in range(a, b))


def listed_places(row: list[Item], first: int, stop: int, count: int) -> list[list[int]] | None:
    """The members of "a right iliac focus and an L4 lesion show 14.7 and 11.6" as item indices, one per value.

    None when as many places as values cannot be told apart between the two items.
    """
    parts = _parts(row, first, stop)
    if len(parts) == count > 1 and all(_names(row, part) for part in parts):
        return parts  # "on slice 61, a left-sided node; on slice 115, a subcarinal node; SUVmax 4.4 and 6.0"
    members: list[list[int]] = [[]]
    for i in range(first, stop):
        if row[i].text in ("and", ",", "&", ", and", "plus", "than", "more than") or row[i].has("coord"):
            if members[-1] and _names(row, members[-1]):
                members.append([])
            continue
        if row[i].text in (":", "(", ";") and len(members) > 1:
            break
        members[-1].append(i)
    members = [member for member in members if _names(row, member)]
    return members if len(members) == count > 1 else None


def _parts(row: list[Item], first: int, stop: int) -> list[list[int]]:
    """What semicolons part, as item indices."""
    parts: list[list[int]] = [[]]
    for i in range(first, stop):
        if row[i].text == ";":
            parts.append([])
        else:
            parts[-1].append(i)
    return [part for part in parts if any(row[i].has(*_PLACE, "side") for i in part)]


def _names(row: list[Item], member: list[int]) -> bool:
    return any(row[i].has("side", "sided", "site", "ref", "phys", "lesion") for i in member)


def listed_side(row: Row, members: list[list[int]], at: int) -> Laterality | None:
    """Side of one member: its own, or that of the one before where "right axillary and hilar nodes" share it."""
    side = find_side(row, members[at], len(row))
    if side is not None or at == 0:
        return side
    apart = any(row[i].text in ("a", "an", "the") or row[i].has("midline", "size") for i in members[at])
    return None if apart else listed_side(row, members, at - 1)


def opposite(side: Laterality | None) -> Laterality | None:
    """Left for right and right for left."""
    swap: dict[str, Laterality] = {"left": "right", "right": "left"}
    return swap.get(side or "", side)


def find_site(row: list[Item], indices: list[int], value: int, text: str, words: Words) -> str | None:
    """Lower-case key words of the place: the anatomy words nearest to the value, with a lesion word if possible."""
    runs = _best_runs(row, indices)
    before = [run for run in runs if run[0] < value]
    return _key_words(row, before[-1] if before else runs[0], text, words) if runs else None


def find_place(row: Row, words: Words) -> tuple[str | None, Laterality | None]:
    """Site and side of a row that tells no value: the first place named, unless another one has another side."""
    indices = list(range(len(row)))
    runs = _best_runs(row, indices)
    if len(runs) > MANY_PLACES:
        return None, None
    sides = {_side_of_run(row, indices, run) for run in runs or [indices]}
    side = sides.pop() if len(sides) == 1 else None
    return _key_words(row, runs[0], words.text, words) if runs else None, side


def _side_of_run(row: Row, indices: list[int], run: list[int]) -> Laterality | None:
    """The side that a place has by its name ("4R", "LUL"), or else the one next to it."""
    own = {side for _, side in _sides(row, run)}
    return cast(Laterality, own.pop()) if len(own) == 1 else find_side(row, indices, run[0]) if run else None


def _key_words(row: list[Item], run: list[int], text: str, words: Words) -> str | None:
    start, end = words.start[row[run[0]].first], words.end[row[run[-1]].last - 1]
    return " ".join(text[start:end].lower().replace("(", " ").replace(")", " ").split()) or None


def _best_runs(row: list[Item], indices: list[int]) -> list[list[int]]:
    """Of the neighbouring anatomy items those that tell a place best."""
    runs = _runs(row, indices)
    worth = [_worth(row, run) for run in runs]
    best = max(worth, default=0)
    return [run for run, its in zip(runs, worth, strict=True) if its == best]


_PLACE = frozenset(("site", "sided", "ref", "phys", "midline", "lesion"))


def _runs(row: list[Item], indices: list[int]) -> list[list[int]]:
    """Neighbouring anatomy items, brackets and hyphens between them included."""
    runs: list[list[int]] = []
    for i in [i for i in indices if (own := row[i].kinds) and not _PLACE.isdisjoint(own)]:
        if runs and (
            i - runs[-1][-1] == 1 or (i - runs[-1][-1] == 2 and row[i - 1].text in ("(", ")", "-", "of", "/"))
        ):
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _worth(row: list[Item], run: list[int]) -> int:
    kinds = row[run[0]].kinds.keys() if len(run) == 1 else {kind for i in run for kind in row[i].kinds}
    place = not kinds.isdisjoint(("site", "sided", "ref", "phys", "midline"))
    exact = "spine" in kinds or "sided" in kinds
    return 2 * place + 2 * exact + ("lesion" in kinds)

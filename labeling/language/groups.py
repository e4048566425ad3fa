"""Lesion groups: where, in a sentence with several values, one lesion ends and the next begins."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from petground.labeling.language.lexicon import word_set
from petground.labeling.language.stream import Item, Row
from petground.labeling.language.told import range_joint

__all__ = ["Group", "make_groups"]

_DETERMINERS = word_set(
    "a an the in at on within of new also another small with along there is mild mildly avid its focal"
)

_BEFORE_NAME = ("size", "contralateral", "normal", "reference", "compare", "physio", "ipsi", "abnormal")


@dataclass
class Group:
    """Items first..last (end exclusive) that speak of one lesion (or one list of them); values are item indices."""

    first: int
    last: int
    values: list[int]


def make_groups(row: Row) -> list[Group]:
    """Splits a sentence between its values wherever a new lesion, side or tissue is named between them."""
    values = row.values
    if not values:
        return []
    leading = _named_first(row, values[0])
    groups = [Group(0, len(row), [values[0]])]
    for a, b in itertools.pairwise(values):
        cut = _boundary(row, a, b, leading)
        if cut is None:
            groups[-1].values.append(b)
        else:
            groups[-1].last = cut
            groups.append(Group(cut, len(row), [b]))
    groups[-1].last = _before_next_lesion(row, groups[-1])
    return groups


def _before_next_lesion(row: Row, group: Group) -> int:
    """Where "... on image 273 with SUVmax 4.0 and one on the left on image 277" goes on to a lesion without a value."""
    last = group.values[-1]
    if not any(group.first <= i < last for i in row.slices):
        return group.last
    for i in range(last + 1, min(row.slices[-1] + 1, group.last - 1)):
        begins = row[i].has("coord") or row[i].text == ";"
        if begins and any(row[k].text == "one" or row[k].has("another") for k in range(i + 1, min(i + 3, group.last))):
            return i
    return group.last


def _named_first(row: list[Item], value: int) -> bool:
    """Whether lesions are named before their values ("left node, SUVmax 5"), not after ("SUVmax 5 in the node")."""
    return any(item.own for item in row[:value])


def _boundary(row: list[Item], a: int, b: int, leading: bool) -> int | None:
    between = range(a + 1, b)
    own = [i for i in between if row[i].own and not (row[i].has("another") and row[i].text == "further")]
    if not own:
        return _bare_split(row, a, b)
    if (joint := range_joint(row, a, b)) >= 0:
        return joint
    if row[a].bracket and row[a].bracket == row[b].bracket and not any(row[i].has("slice") for i in between):
        inner = [i for i in own if row[i].bracket == row[a].bracket]
        if not inner:
            return None
    if not leading:
        told = next((i for i in between if row[i].has("compare") and any(j > i for j in own)), None)
        if told is not None and not any(row[i].has("coord") or row[i].text == ";" for i in range(told, b)):
            return told  # "At SUVmax 7.3 ... hotter than its left counterpart, which reads 2.9"
    opening = _other_bracket(row, a, b, own)
    if opening is not None:
        return opening
    scored: list[tuple[int, int]] = []
    for i in between:
        score = _separator(row, i, a, b)
        if not score:
            continue
        follows = any(j > i for j in own)
        if leading and not follows:
            continue
        if not leading and follows and not _near_value(row, i, b):
            score -= 1
        scored.append((score, i))
    if not leading and scored:
        best = max(score for score, _ in scored)
        return max(i for score, i in scored if score == best)
    if not scored and leading:
        return _trailing_side(row, a, b, own)
    if scored:
        best = max(score for score, _ in scored)
        at = [i for score, i in scored if score == best]
        cut = at[0] if best >= 5 and len(at) == 1 else at[-1]
        if best == 5:
            cut = max(i for i in at if any(j > i for j in own))
        if row[cut].has("starter"):
            cut = _back_over_place(row, cut, a)
        return cut
    return b - _head_length(row, b)


def _other_bracket(row: list[Item], a: int, b: int, own: list[int]) -> int | None:
    """The bracket of "slice 194 (spleen 24.1, liver 9.3)": all that is named since the value before stands inside."""
    if not row[b].depth or row[a].bracket == row[b].bracket:
        return None
    opening = next((i for i in range(b, a, -1) if row[i].text in ("(", "[") and row[i].bracket == row[b].bracket), None)
    if opening is None or any(i < opening for i in own):
        return None
    return opening


def _trailing_side(row: list[Item], a: int, b: int, own: list[int]) -> int:
    """Without a separator before the next name: "6.2 on the right and 4.4 on the left", or run-on dictation."""
    joint = [i for i in range(own[-1] + 1, b) if _separator(row, i, a, b)]
    told_after = any(item.own for item in row[b + 1 : b + 5])
    if joint and told_after and all(row[i].has("side") or i < joint[0] for i in own):
        return joint[-1]
    first = own[0]
    while first - 1 > a and (row[first - 1].text in _DETERMINERS or row[first - 1].has(*_BEFORE_NAME)):
        first -= 1
    return _back_over_denial(row, first, a)


def _back_over_denial(row: list[Item], first: int, a: int) -> int:
    """Reads "(SUVmax 7) without uptake in the left node (SUVmax 0.9)": what denies belongs to the name behind it."""
    for i in range(first - 1, max(a, first - 5), -1):
        if row[i].has("negation"):
            cut = i - 1 if row[i - 1].text in ("with", "but") else i
            return cut if cut > a and (row[cut - 1].has("value", "slice") or row[cut - 1].text in (")", "]")) else first
    return first


def _separator(row: list[Item], i: int, a: int, b: int) -> int:
    """How strongly an item parts two lesions: 0 not at all."""
    item = row[i]
    if item.depth and item.bracket not in (row[a].bracket, row[b].bracket):
        return 0
    if item.depth and item.bracket != row[b].bracket and row[a].bracket != row[b].bracket:
        return 0
    if item.has("starter"):
        return 4 if not row[i - 1].own else 3
    if item.text in (";", "•", "|", "?", "!", "...", ".."):
        return 5
    if item.has("coord"):
        if row[i - 1].own and row[min(i + 1, b)].own:
            return 1
        return 4 if row[i - 1].text in (",", ")", ";") or row[i - 1].has("value", "slice") else 3
    if item.text == ",":
        return 2 if not (row[i - 1].own and row[min(i + 1, b)].own) else 1
    if item.has("versus"):
        return 2
    return 0


def _near_value(row: list[Item], i: int, b: int) -> bool:
    return b - i <= 5


def _head_length(row: list[Item], b: int) -> int:
    step = 0
    while b - step - 1 >= 0 and (
        row[b - step - 1].has("head") or row[b - step - 1].text in ("of", "an", "a", "with", "is", ":", "=")
    ):
        step += 1
    return step


def _back_over_place(row: list[Item], cut: int, a: int) -> int:
    """Reads "... 2.9 in the left adrenal there is a nodule": the place before "there is" belongs to what follows."""
    i = cut - 1
    while i > a and (row[i].own or row[i].has("midline", "slice") or row[i].text in ("the", "both", "and")):
        i -= 1
    if (
        i > a
        and row[i].text in ("in", "within", "at", "on")
        and i < cut - 1
        and (row[i - 1].has("value", "slice", "prior", "size", "coord") or row[i - 1].text in (")", ","))
    ):
        return i
    return cut


def _bare_split(row: list[Item], a: int, b: int) -> int | None:
    """Without a name between, values stay together, except across a starter that is no pronoun."""
    for i in range(a + 1, b):
        if row[i].has("starter") and row[i].text.startswith("there"):
            return _back_over_place(row, i, a)
    return None

"""Which values belong to an earlier exam and which to this one, in every order of words.

Each value looks to its left and right across words that only connect, until something says when it was measured:
"previously 7.2", "7.2 on the prior PET/CT", "from 7.2 to 5.4", "7.2 -> 5.4", "5.4 vs 7.2", "was 7.2, now 5.4".
"""

from __future__ import annotations

from petground.labeling.language.brackets import (
    bracket_of_then,
    bracket_without_value,
    sets_against,
    slice_of_then,
    value_in_bracket,
)
from petground.labeling.language.lexicon import word_set
from petground.labeling.language.stream import Item, Row
from petground.labeling.language.timepoints import settle_timepoints
from petground.labeling.language.told import Tense, chain_values, of_compared_exam, pair_values, settle_past
from petground.labeling.language.told_series import settle_pairs, settle_series, settle_tracers

__all__ = ["Tense", "read_tenses"]

_FILL = word_set(
    "with an a the of at and its had has have having measuring value values which where when it on in been "
    "being as approximately about intensity level maximum max for to by our their that ~ : = > < - – — / is "
    "are showing showed shown demonstrating demonstrated demonstrates recorded reported noted found seen "
    "measured dated dating , up down same this outside"
)
_AFTER_FILL = word_set("on in at the a an of dated our as by her his their from seen noted measured recorded scan")
_SAID = word_set("measured demonstrated showed shown recorded reported noted had was were with exhibited reached at of")
_CUES = frozenset(("arrow", "prior", "current", "date", "versus", "from"))
_LEFT = 14
_RIGHT = 8


def read_tenses(row: Row) -> dict[int, Tense]:
    """Tense of every value of a sentence, by item index. `range` in sign marks the two ends of a range."""
    values = row.values
    tenses: dict[int, Tense] = {}
    for order, index in enumerate(values):
        before = values[order - 1] if order else -1
        after = values[order + 1] if order + 1 < len(values) else -1
        left = _left(row, index)
        right = _right(row, index, after)
        tense = (
            right
            if right.when == "prior" or (right.when == "current" and left.sign in ("", "versus", "past", "value"))
            else left
        )
        if left.when == "prior" and right.when == "current":
            tense = left if row[left.cue + 1].has("head") else right  # "with prior SUVmax 9.2 is now non-avid"
        tenses[index] = tense
        if tense.sign == "value" and before >= 0:
            chain_values(row, before, index, tenses)
        elif before >= 0:
            pair_values(row, before, index, tenses)
    settle_past(row, values, tenses)
    settle_pairs(row, values, tenses)
    settle_series(row, values, tenses)
    settle_tracers(row, values, tenses)
    settle_timepoints(row, values, tenses)
    for v in values:
        mention = row[v].mention
        if mention is not None and mention.when:
            tenses[v] = Tense(mention.when, "column")
    return tenses


def _left(row: list[Item], index: int) -> Tense:
    weak: Tense | None = None
    subject = False
    sized = False
    closing = 0
    unknown = 0
    compared = of_compared_exam(row, index)
    if compared >= 0:
        return Tense("prior", "exam", cue=compared)
    for j in range(index - 1, max(index - _LEFT, -1), -1):
        item = row[j]
        if closing:
            closing -= 1
            continue
        if not item.kinds and item.text != "to":  # a plain word
            unknown += item.text not in _FILL
            if unknown > 2:
                break
            continue
        if "value" in item.kinds:
            if weak is not None or subject:
                break
            return Tense(sign="value", cue=j)
        found = _cue(row, j, index, crossed=subject)
        if found is not None:
            if subject and found.sign not in ("exam", "clause", "date"):
                break
            if subject and weak is None:
                break
            if found.sign == "from" and (unknown or any(row[k].has("physio") for k in range(j, index))):
                break  # "uptake from phonation (SUVmax 5.0)"
            return Tense("prior", "past", strong=False, cue=j) if sized and found.when == "prior" else found
        if item.has("stable"):
            told = any(row[k].text in ("(", "[") for k in range(j, index))
            if told and any(word in item.text for word in ("prior", "previous")) and not subject:
                return Tense("prior", "exam", cue=j)
            break
        if item.has("past") or (item.has("starter") and item.text.endswith(("was", "were"))):
            weak = weak or Tense("prior", "past", strong=False, cue=j)
            continue
        if "punct" in item.kinds:
            if item.text in ("(", "["):
                if sets_against(row, index):
                    break
                continue
            if item.text == "," and (cue := bracket_of_then(row, index)) >= 0:
                return Tense("prior", "exam", cue=cue)
            if item.text in (")", "]"):
                skip = bracket_without_value(row, j)
                if skip == 0:
                    break
                closing = skip
                continue
            if item.text == "," and _clause_start(row, j):
                continue
            if item.text == "," and row[j - 1].has("size"):  # "previously 20 mm, SUVmax 12.2"
                sized = True
                continue
            if item.text in (";", ".", "?", "!", ",", "..."):
                break
            continue
        if item.own or item.has("midline", "noside"):
            subject = True
            continue
        if item.has(
            "size", "slice", "head", "compare", "normal", "series", "number", "uptake", "change", "coord", "anaphor"
        ):
            if item.has("coord") and item.text not in ("and",):
                break
            continue
        if item.text not in _FILL:
            unknown += 1
            if unknown > 2:
                break
    return weak or Tense()


def _cue(row: list[Item], j: int, index: int, *, crossed: bool) -> Tense | None:
    item = row[j]
    if item.text != "to" and item.kinds.keys().isdisjoint(_CUES):
        return None
    if item.has("arrow"):
        if item.kinds["arrow"] == "back":
            return Tense("prior", "versus", cue=j)
        return Tense("current", "arrow", cue=j)
    if item.has("prior") and not _describes(row, j):
        if item.kinds["prior"] == "direct":
            return Tense("prior", "adverb", cue=j) if j == index - 1 or row[j + 1].has("head") else None
        if item.kinds["prior"] == "exam":
            if _only_compared(row, j, index):
                return Tense(sign="compared", cue=j)
            return Tense("prior", "exam", cue=j)
        sign = "clause" if j == 0 or row[j - 1].text in (",", ";", "(", "and") else "adverb"
        return Tense("prior", sign, cue=j)
    if item.has("current"):
        return Tense("current", "current", cue=j)
    if item.has("date") and _word(row, j - 1) not in ("since",):
        return Tense("prior", "date", cue=j) if not _versus_zone(row, j) else None
    if crossed:
        return None
    if item.has("versus"):
        return Tense("prior", "versus", cue=j)
    if item.has("from"):
        return Tense("prior", "from", cue=j)
    if item.text == "to" and j >= 1:
        return Tense("current", "to", cue=j)
    return None


def _only_compared(row: list[Item], j: int, index: int) -> bool:
    """Whether, as in "new since the prior study with SUVmax 6.2", the earlier exam is only compared with."""
    back = row[max(0, j - 3) : j]
    if not any(
        item.text in ("since", "than", "unlike", "from") or item.has("versus", "stable", "compare") for item in back
    ):
        return False
    gap = row[j + 1 : index]
    return any(item.text in ("with", "has", "is", "shows", "demonstrates", "having", ",", "now") for item in gap)


def _describes(row: list[Item], j: int) -> bool:
    """Whether, as in "previously biopsied node", the adverb tells of the node, not of a value."""
    if row[j].kinds.get("prior") == "direct":
        return not row[j + 1 : j + 2] or not row[j + 1].has("value", "head")
    if row[j].kinds.get("prior") != "adverb" or j + 1 >= len(row):
        return False
    after = row[j + 1].text
    if row[j].text == "last" and after in ("with", "of", "in", "at", "on", "being", "one", "showing", "has"):
        return True  # "the last with SUVmax 5.2" of a list
    return after.endswith(("ed", "wn", "en")) and after not in _SAID and not row[j + 1].has("uptake", "head")


def _versus_zone(row: list[Item], j: int) -> bool:
    return any(row[i].has("versus", "stable") for i in range(max(0, j - 3), j))


def _clause_start(row: list[Item], j: int) -> bool:
    """A comma right after an opening "Previously," or "On the prior exam,"."""
    if j < 1 or not (row[j - 1].has("prior", "date") or row[j - 1].has("current")):
        return False
    back = j - 1
    for i in range(j - 1, max(j - 6, -1), -1):
        if row[i].has("prior", "date", "current"):
            back = i
        if row[i].has("versus", "stable"):
            return False
    while back > 0 and row[back - 1].text in ("on", "in", "at", "the", "our", "a", "of", "from"):
        back -= 1
    return back == 0 or row[back - 1].text in (";", "(", ",") or row[back - 1].has("coord")


def _right(row: list[Item], index: int, after: int) -> Tense:
    opened = False
    linked = ""
    stop = min(index + _RIGHT, len(row))
    for j in range(index + 1, stop):
        item = row[j]
        if not item.kinds:  # a plain word
            if item.text not in _AFTER_FILL:
                break
            linked = linked or item.text
            continue
        if "value" in item.kinds or item.has("stable", "head", "size", "versus", "arrow", "coord"):
            break
        if item.has("prior") and not _describes(row, j):
            label = item.kinds["prior"]
            if linked == "from" or (not opened and _leads_to_value(row, j, after)):
                break
            if opened and (value_in_bracket(row, j) or slice_of_then(row, index, j)):
                break
            if (
                label == "exam"
                and linked == ""
                and not opened
                and row[j - 1].mention is None
                and row[j - 1].has("versus")
            ):
                break
            return Tense("prior", "after", cue=j)
        if item.has("date"):
            if opened and value_in_bracket(row, j):
                break
            return Tense("prior", "after", cue=j)
        if item.has("current"):
            if (opened and value_in_bracket(row, j)) or _leads_to_value(row, j, after):
                break
            return Tense("current", "after", cue=j)
        if "punct" in item.kinds:
            if item.text in ("(", "["):
                opened = True
                continue
            if item.text in (")", "]") and row[index].depth < item.depth:
                opened = False
                continue
            break
        if "slice" in item.kinds:
            continue
        if item.has("from"):
            linked = "from"
            if j + 1 < len(row) and row[j + 1].has("date"):
                continue
            continue
        if item.text not in _AFTER_FILL:
            break
        linked = linked or item.text
    return Tense()


def _leads_to_value(row: list[Item], j: int, after: int) -> bool:
    """Whether the cue at j belongs to the next value instead: "5.4 previously 7.2"."""
    if after < 0 or after - j > 6:
        return False
    return not any(
        row[i].text in (")", "]", ";", ",", ".")
        or row[i].own
        or row[i].has("coord", "current", "prior")
        or row[i].text == "to"
        for i in range(j + 1, after)
    )


def _word(row: list[Item], j: int) -> str:
    return row[j].text if 0 <= j < len(row) else ""

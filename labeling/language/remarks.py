"""Remarks: what stands in brackets, between commas or behind a semicolon and is not about the lesion of the sentence.

"The renal mass (liver SUVmax 3.0) has SUVmax 8.0", "Left node SUVmax 5.0, slice 100; biopsy if SUVmax exceeds 8",
"SUVmax 5.8 on slice 221 (slice 220 on the prior)". A remark is an island: it is read by itself, and its words, sides
and cues reach nothing outside it. The sentence is read as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from petground.labeling.language.bounds import bounded_at, has_kind, tells_bound
from petground.labeling.language.lexicon import word_set
from petground.labeling.language.stream import Item, Row

__all__ = ["Remark", "find_remarks", "part_of", "without"]

_OPEN, _CLOSE = ("(", "["), (")", "]")
_NAMES = ("site", "sided", "side", "ref", "phys", "lesion", "another")
_BESIDE = ("ref", "contralateral", "side", "phys", "normal")
_SAYS = frozenset((*_BESIDE, "site", "prior", "condition", "verdict"))
_PLACES = ("site", "sided", "side", "ref", "phys")
_VERBS = word_set(
    "has had have shows showed demonstrates demonstrated measures measured is are was exhibits reaches with"
)
_LEADS = word_set("with where for versus vs against the")


@dataclass(frozen=True)
class Remark:
    """Items first..last (end exclusive) of a row, cut out with them. kind: reference | threshold | then.

    told: the first item that is no part of what a model may read; the words before it stay.
    """

    first: int
    last: int
    kind: str
    told: int


def find_remarks(row: Row) -> list[Remark]:
    """Remarks of a sentence, in order, without overlap; none where they would leave a lesion without its value."""
    if row.lacks("value"):
        return []
    beside = not row.lacks(*_BESIDE) and sum("value" in item.kinds for item in row) > 1
    bounds = not row.lacks("condition", "verdict")
    then = not row.lacks("prior") and sum("slice" in item.kinds for item in row) > 1
    if not (beside or bounds or then):
        return []
    found: list[Remark] = []
    for opening, closing in _brackets(row):
        found += _in_bracket(row, opening, closing)
    if bounds or then or not row.lacks("ref", "contralateral"):
        for first, last in _parts(row, 0, len(row), (",", ";")):
            found += _in_clause(row, first, last)
    if not row.lacks("verdict"):
        for first, last in _parts(row, 0, len(row), (";",)):
            if tells_bound(row, first, last):
                begin = first - (first > 0)
                found.append(Remark(begin, last, "threshold", begin))
    return _kept(row, sorted(found, key=lambda r: (r.first, -r.last)))


def _kept(row: Row, found: list[Remark]) -> list[Remark]:
    """The remarks that do not lie in another; no references where no value would be left beside them."""
    kept: list[Remark] = []
    for remark in found:
        if not kept or remark.first >= kept[-1].last:
            kept.append(remark)
    hidden = {i for remark in kept for i in range(remark.first, remark.last)}
    if any("value" in item.kinds for i, item in enumerate(row) if i not in hidden):
        return kept
    return [remark for remark in kept if remark.kind == "threshold"]


def without(row: Row, remarks: list[Remark]) -> Row:
    """The sentence without its remarks."""
    hidden = {i for remark in remarks for i in range(remark.first, remark.last)}
    return _row(item for i, item in enumerate(row) if i not in hidden)


def part_of(row: Row, remark: Remark) -> Row:
    """The remark as a sentence of its own."""
    return _row(iter(row[remark.first : remark.last]))


def _row(items: Iterator[Item]) -> Row:
    part = Row()
    part.extend(items)
    part.kinds = {kind for item in part for kind in item.kinds} - {"punct"}
    part.said = " ".join(item.text for item in part)
    part.values = [i for i, item in enumerate(part) if item.mention is not None and "value" in item.kinds]
    part.slices = [i for i, item in enumerate(part) if item.mention is not None and "slice" in item.kinds]
    return part


def _brackets(row: Row) -> Iterator[tuple[int, int]]:
    """Opening and closing of the outermost brackets."""
    opening = -1
    for i, item in enumerate(row):
        if item.text in _OPEN and item.depth == 1:
            opening = i
        elif item.text in _CLOSE and item.depth == 1 and opening >= 0:
            yield opening, i
            opening = -1


def _parts(row: Row, first: int, stop: int, signs: tuple[str, ...], bracket: int = 0) -> list[tuple[int, int]]:
    """What the signs part between two items, outside inner brackets."""
    parts, place = [], first
    for i in range(first, stop):
        if row[i].text in signs and row[i].bracket == bracket:
            parts.append((place, i))
            place = i + 1
    return [*parts, (place, stop)]


def _in_bracket(row: Row, opening: int, closing: int) -> list[Remark]:
    """Remarks among the parts of a bracket; one over all of it when there is nothing else in it."""
    inside = {kind for item in row[opening + 1 : closing] for kind in item.kinds}
    if inside.isdisjoint(_SAYS) and _tissue_before(row, opening) < 0:
        return []
    parts = _parts(row, opening + 1, closing, (",", ";"), row[opening].bracket)
    kinds: list[str] = []
    valued = has_kind(row, 0, opening, "value") or has_kind(row, closing + 1, len(row), "value")
    opens = _opens_with_value(row, *parts[0])
    for first, last in parts:
        kind = _kind_in_bracket(row, opening, first, last, valued or (opens and first > opening + 1))
        goes_on = kinds and kinds[-1] == "reference" and _only_value(row, first, last)
        kinds.append("reference" if goes_on else kind)
    if (
        parts[1:]
        and kinds[0] == "reference"
        and "" in kinds
        and _slices_only(row, parts, kinds)
        and _placed(row, opening)
    ):
        kinds = ["reference"] * len(parts)  # "on slice 115 (liver SUVmax 3.0, slice 150)"
    elif has_kind(row, opening, closing, "uncertain", "lesion"):  # "(liver SUVmax 8.0, slice 150, a metastasis)"
        placed = [has_kind(row, *part, "slice") and not has_kind(row, *part, "value") for part in parts]
        kinds = ["" if kind == "reference" and any(placed[k + 1 : k + 2]) else kind for k, kind in enumerate(kinds)]
    if len(set(kinds)) == 1 and kinds[0]:
        if kinds[0] == "reference" and (tissue := _tissue_before(row, opening)) >= 0 and not _names(row, *parts[0]):
            return [Remark(tissue, closing + 1, "reference", opening)]
        return [Remark(opening, closing + 1, kinds[0], opening)]
    found = []
    for (first, last), kind in zip(parts, kinds, strict=True):
        if kind:
            a, b = (first - 1, last) if first > opening + 1 else (first, last + 1)
            found.append(Remark(a, b, kind, a))
    return found


def _kind_in_bracket(row: Row, opening: int, first: int, last: int, valued: bool) -> str:
    """What a part of a bracket is. valued: whether a value stands outside, to which the bracket is a remark."""
    if has_kind(row, first, last, "value"):
        if bounded_at(row, first, last) >= 0 or (valued and tells_bound(row, first, last)):
            return "threshold"
        named = _of_tissue(row, first, last) or _other_side(row, opening, first, last)
        neighbour = not _names(row, first, last) and _tissue_before(row, opening) >= 0
        return "reference" if valued and (named or neighbour) else ""
    if (
        has_kind(row, first, last, "slice")
        and has_kind(row, first, last, "prior")
        and not has_kind(row, first, last, "current")
    ):
        value = next((i for i in range(opening, -1, -1) if "value" in row[i].kinds), opening)
        if has_kind(row, value, opening, "slice"):
            return "then"
    return ""


def _placed(row: Row, opening: int) -> bool:
    return has_kind(row, 0, opening, "slice")


def _slices_only(row: Row, parts: list[tuple[int, int]], kinds: list[str]) -> bool:
    """Whether the parts that are no remark tell but a slice."""
    rest = [part for part, kind in zip(parts, kinds, strict=True) if not kind]
    return all(has_kind(row, *part, "slice") and not has_kind(row, *part, "value", *_NAMES) for part in rest)


def _opens_with_value(row: Row, first: int, last: int) -> bool:
    return has_kind(row, first, last, "value") and not has_kind(row, first, last, *_NAMES)


def _only_value(row: Row, first: int, last: int) -> bool:
    """Whether it tells but one more value of what was named: "(liver SUVmax 3.0, mean 2.2)"."""
    told = [item for item in row[first:last] if "value" in item.kinds]
    bare = not any(item.own or item.has("slice", "prior", "current") for item in row[first:last])
    return (
        bool(told)
        and bare
        and all(
            v.mention is not None and (v.mention.link != "head" or v.mention.suv_kind in ("mean", "peak")) for v in told
        )
    )


def _names(row: Row, first: int, last: int) -> list[int]:
    return [i for i in range(first, last) if row[i].own or row[i].has("contralateral")]


def _of_tissue(row: Row, first: int, last: int) -> bool:
    """Whether the values are those of a reference tissue or of the contralateral side, and nothing else is named."""
    names = _names(row, first, last)
    if not names or has_kind(row, first, last, "lesion", "another", "segment", "uncertain"):
        return False
    normal = row[names[0] - 1].has("normal") and names[0] > first and not has_kind(row, first, last, "slice")
    if not normal and not any(_is_reference(row[i]) for i in names):
        return False
    if any(item.text in ("focal", "focus", "new") for item in row[first:last]):
        return False
    value = next(i for i in range(first, last) if "value" in row[i].kinds)
    if names[0] < value:
        return True
    between = row[value + 1 : names[0]]
    return all(item.text in ("in", "of", "for", "the", "at", "within", "is", "=") for item in between)


def _is_reference(item: Item) -> bool:
    return item.has("ref", "contralateral") or item.text in ("mediastinum", "mediastinal")


def _other_side(row: Row, opening: int, first: int, last: int) -> bool:
    """Whether it gives the value of the same place on the other side: "Left parotid nodule (right parotid 2.2)"."""
    names = _names(row, first, last)
    sides = [row[i].kinds["side"] for i in names if row[i].kinds.get("side") in ("left", "right")]
    if len(sides) != 1 or has_kind(row, first, last, "lesion", "another", "slice", "prior", "compare"):
        return False
    before = [row[i].kinds["side"] for i in range(opening) if row[i].kinds.get("side") in ("left", "right")]
    told = {item.text for item in row[:opening]}
    places = [row[i].text for i in names if not row[i].has("side")]
    return before[-1:] not in ([], sides) and all(place in told for place in places)


def _tissue_before(row: Row, opening: int) -> int:
    """Item of the relation in "abuts the spleen (SUVmax 2.9) and shows": the bracket is the neighbour's; else -1."""
    i = opening - 1
    if i < 0 or not row[i].has("ref", "phys") or row[i].has("lesion"):
        return -1
    while i > 0 and (row[i].has(*_PLACES, "normal") or row[i].text in ("the", "of")) and not row[i].has("lesion"):
        i -= 1
    if not row[i].has("relation"):
        return -1
    closing = next((k for k in range(opening, len(row)) if row[k].text in _CLOSE and row[k].depth == 1), len(row))
    after = row[closing + 1 : closing + 4]
    goes_on = any(item.has("coord") or item.text in _VERBS or item.text == "," for item in after[:1])
    ahead = has_kind(row, closing + 1, closing + 9, "value") and not has_kind(row, closing + 1, closing + 4, "prior")
    return i if goes_on and ahead and not has_kind(row, opening, closing, "slice") else -1


def _in_clause(row: Row, first: int, last: int) -> Iterator[Remark]:
    """The remark that a stretch between commas or semicolons is, or ends in."""
    if has_kind(row, first, last, "value"):
        if (at := bounded_at(row, first, last)) >= 0:
            clean = not has_kind(row, first, at, "value", "slice")
            begin = first - (first > 0) if clean else at
            yield Remark(begin, last, "threshold", begin)
        elif (
            first > 0
            and last < len(row)
            and row[first - 1].text == row[last].text == ","
            and _told_aside(row, first, last)
        ):
            yield Remark(first - 1, last, "reference", first - 1)
        return
    told = first > 0 and has_kind(row, first, last, "slice") and has_kind(row, first, last, "prior")
    if told and not has_kind(row, first, last, "current") and not has_kind(row, last, len(row), "value"):
        value = next((i for i in range(first, -1, -1) if "value" in row[i].kinds), first)
        now = has_kind(row, last, last + 3, "current") and has_kind(row, last, len(row), "slice")
        if value < first and (now or has_kind(row, value, first, "slice")):
            yield Remark(first - 1, last, "then", first - 1)


def _told_aside(row: Row, first: int, last: int) -> bool:
    """Whether ", with blood pool SUVmax 2.1 as reference, has" stands between a lesion and what is said of it."""
    if not _of_tissue(row, first, last) or not any(item.own and not item.has("ref") for item in row[:first]):
        return False
    marked = row[first].text in _LEADS or has_kind(row, first, first + 2, "compare")
    marked = marked or has_kind(row, first, last, "reference", "contralateral", "normal")
    after = row[last + 1] if last + 1 < len(row) else None
    goes_on = after is not None and (after.text in _VERBS or after.has("head", "value", "slice"))
    return marked and goes_on

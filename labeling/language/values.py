"""SUV words and their values: which numbers of a sentence are SUVs, of which kind, how they hang together."""

from __future__ import annotations

from functools import cache

from petground.labeling.language.late_heads import join_late_heads, pair_heads
from petground.labeling.language.lexicon import load_rules, phrases_of, rule_words, word_set
from petground.labeling.language.mention import Mention, Scan, is_integer, is_number
from petground.labeling.language.number_forms import bound_of, split_fraction
from petground.labeling.language.phrases import PhraseIndex

__all__ = ["find_heads", "find_values"]

_SUV_LIMIT = 1000.0  # a printed SUV above is a typing error or no SUV at all
_NEAR = word_set(
    "previously prior previous formerly earlier was were now today currently from to vs versus before baseline "
    "initially originally -> → had been"
)
_LISTED_LIMIT = 100  # a whole number further down a list is rather an index than an SUV
_MAX_CONNECTORS = 9
_CUES = word_set(
    "previously prior previous formerly earlier before was were had now today currently current from to vs "
    "versus than compared against initially originally baseline and or respectively is -> --> → => > / & + , - "
    "– — ; to with"
)
_BETWEEN_KIND_AND_SUV = word_set(
    "- . fdg psma lesional measured tumor tumour recorded lesion nodal node nodule overall target uptake observed "
    "intralesional"
)
_SHORTENED = word_set("approx est ca appr")
_MEASURES = word_set("measures is at has shows : reaches measured = of")
_ASK_INT = word_set("is was of : = to measures at reaches are were reached measured → -> < > ~ ≈ approximately about")


@cache
def _heads() -> PhraseIndex:
    return PhraseIndex(
        [
            (p, "suv", rule["label"])
            for rule in load_rules("mentions")
            if rule["kind"] == "suv"
            for p in phrases_of(rule)
        ]
    )


@cache
def _qualifiers() -> dict[str, str]:
    return {
        p: rule["label"] for rule in load_rules("mentions") if rule["kind"] == "qualifier" for p in phrases_of(rule)
    }


@cache
def _tissues() -> frozenset[str]:
    """Last words of the reference tissues: "SUVmax 5.2. Liver 2.9." goes on about the SUV."""
    return frozenset(phrase.split()[-1] for phrase in rule_words("anatomy", "ref"))


def find_heads(scan: Scan) -> list[Mention]:
    """SUV words with the qualifier before or after: "max SUV", "SUV-max", "uptake value (SUVmax)"."""
    heads: list[Mention] = []
    for first, last, kinds in _heads().find(scan.words, scan.begin, scan.stop):
        label = kinds["suv"]
        if any(i in scan.taken for i in range(first, last)):
            continue
        kind, lean = ("unqualified", True) if label == "lean" else (label, False)
        tracer = _tracer(scan, first)
        first, last, kind = _before(scan, first, last, kind)
        last, kind = _behind(scan, last, kind)
        previous = heads[-1] if heads else None
        opened = previous is not None and first - previous.last == 1 and scan.word(previous.last) in ("(", "[")
        if previous is not None and (opened or first == previous.last):
            last += scan.word(last) in (")", "]")
            previous.suv_kind = kind if previous.suv_kind == "unqualified" else previous.suv_kind
            previous.lean |= lean
            _grow(scan, previous, last)
            continue
        last = _past_field_number(scan, last)
        mention = scan.take("head", first, last)
        mention.suv_kind, mention.lean, mention.tracer = kind, lean, tracer
        heads.append(mention)
    return heads


def _past_field_number(scan: Scan, last: int) -> int:
    """Past the number of a form's field: "SUVmax 2: 5.4", "SUVmax #2 = 5.4"."""
    step = last + (scan.word(last) in ("#", "no"))
    number = is_integer(scan.word(step)) and len(scan.word(step)) < 3 and step not in scan.taken
    if number and scan.word(step + 1) in (":", "=") and is_number(scan.word(step + 2)):
        return step + 1
    after = step + 1 + (scan.word(step + 1) in ("of", "is", "was"))
    return step + 1 if number and scan.glued(step) and is_number(scan.word(after)) else last  # "SUVmax1 5.4"


def _tracer(scan: Scan, first: int) -> str:
    """The tracer that the SUV word stands under: "FDG SUVmax", "PSMA: max SUV"."""
    back = first - 1 - (scan.word(first - 1) in (":", "-", "pet") or scan.word(first - 1) in _qualifiers())
    return scan.word(back) if scan.word(back) in rule_words("mentions", "tracer") else ""


def _grow(scan: Scan, mention: Mention, last: int) -> None:
    for index in range(mention.last, last):
        scan.taken[index] = "head"
    mention.last, mention.end = last, scan.words.end[last - 1]


def _before(scan: Scan, first: int, last: int, kind: str) -> tuple[int, int, str]:
    for back in (1, 2, 3):
        word = scan.word(first - back)
        if word in _qualifiers() and (first - back) not in scan.taken:
            return first - back, last, _qualifiers()[word] if kind == "unqualified" else kind
        if word not in _BETWEEN_KIND_AND_SUV:
            break
    return first, last, kind


def _behind(scan: Scan, last: int, kind: str) -> tuple[int, str]:
    """Qualifiers after the SUV word: `-max`, `(max)`, `_max`, ` max.`, `bw max`, `values`."""
    index = last
    for _ in range(2):
        step = index + (scan.word(index) in ("-", "(", "[", "_", ".", ":", "–", ",", "bw", "lbm"))
        step += scan.word(step) in ("bw", "-", "_") and scan.word(step + 1) in _qualifiers()
        word = scan.word(step)
        if word in _qualifiers() and step not in scan.taken:
            opened = scan.word(index) in ("(", "[")
            if (opened and scan.word(step + 1) not in (")", "]")) or (
                scan.word(index) in (":", ",") and kind != "unqualified"
            ):
                break
            kind = _qualifiers()[word] if kind == "unqualified" else kind
            index = step + 1 + opened
            if scan.word(index) == "." and scan.word(index + 1) and not is_number(scan.word(index + 1)):
                break
            continue
        if word in ("value", "values") and step == index:
            index += 1
            continue
        break
    return index, kind


def find_values(scan: Scan, carried: str = "") -> list[Mention]:
    """Numbers that are SUVs, in order.

    carried: kind of the SUV word of the sentence before, when this one may go on about it ("It was 6.8 before").
    """
    heads = find_heads(scan)
    values: list[Mention] = []
    if not heads and not carried:
        return values
    spent: set[int] = set()
    qualifiers, reached = _qualifiers(), scan.begin
    tokens = enumerate(scan.words.lower[scan.begin : scan.stop], scan.begin)
    for index, word in [(i, word) for i, word in tokens if word in qualifiers or word[0].isdecimal()]:
        if index < reached or index in scan.taken:
            continue
        if word in qualifiers:
            _bare_qualifier(scan, index, heads, carried)
        else:
            mention = _value(scan, index, heads, values, spent, carried)
            if mention is not None:
                values.append(mention)
                reached = mention.last
    join_late_heads(scan, heads, values, _qualifiers())
    pair_heads(scan, heads, values)
    return values


def _bare_qualifier(scan: Scan, index: int, heads: list[Mention], carried: str) -> None:
    """Reads "SUV: max 5.4, mean 3.1": once an SUV word was there, the qualifier alone is one."""
    known = carried or any(h.last <= index for h in heads)
    step = index + 1
    while scan.word(step) in ("of", "is", ":", "=", ".", "value", "now", "at"):
        step += 1
    if known and is_number(scan.word(step)) and step not in scan.taken:
        mention = scan.take("head", index, index + 1)
        mention.suv_kind = _qualifiers()[scan.word(index)]
        heads.append(mention)
        heads.sort(key=lambda h: h.first)


def _value(
    scan: Scan, index: int, heads: list[Mention], values: list[Mention], spent: set[int], carried: str
) -> Mention | None:
    start, word = index, scan.word(index)
    number = float(word.replace(",", "."))
    decimals = len(word) - 1 - max(word.find("."), word.find(",")) if not is_integer(word) else 0
    if scan.word(index - 1) == "." and scan.glued(index) and not scan.glued(index - 1) and is_integer(word):
        start, number, decimals = index - 1, float("0." + word), len(word)  # SUV .9
    split = split_fraction(scan, index) if start == index and is_integer(word) and len(word) < 3 else ""
    if split:
        number, decimals, index = float(f"{word}.{split}"), len(split), index + 2
    if values and decimals and start == index and scan.word(index - 1) in ("slice", "image", "img"):
        return None  # "SUVmax 5.4, slice 70.5"
    if number >= _SUV_LIMIT or (is_integer(word) and start == index and len(word) > 3):
        return None
    link, anchor = _walk_back(scan, start)
    fraction = decimals > 0
    head = anchor if link == "head" else None
    if link != "head":
        if link == "value":
            listed = scan.word(start - 1) in (",", "(") and anchor is not None and anchor.decimals > 0
            ok = fraction or (scan.stands_alone(index) and number < _LISTED_LIMIT and not listed)
        elif fraction:
            ok = bool(heads) or scan.listed or _cue_near(scan, start, index)
            ok = ok or scan.word(start - 1) in _MEASURES or scan.word(start - 1) in _tissues()
        else:
            waiting = [h for h in heads if h.first not in spent and h.last <= start]
            asked = scan.word(start - 1) in _ASK_INT and bool(waiting) and _nothing_since(waiting[-1], values)
            ok = scan.stands_alone(index) and (asked or (_cue_near(scan, start, index) and bool(heads or carried)))
            ok = ok or (scan.word(index + 1) in ("suv", "suvmax"))
        if not ok:
            return None
    if isinstance(head, Mention):
        spent.add(head.first)
    last = _unit_end(scan, index + 1)
    first = head.first if isinstance(head, Mention) else start
    mention = scan.take("suv", first, last)
    if isinstance(head, Mention):
        head.head = mention.first
    mention.value, mention.decimals, mention.link = number, decimals, link
    mention.warning = "decimal_split" if split else bound_of(scan, start, index + 1)
    mention.core = (scan.words.start[start], scan.words.end[index])
    owner = head if isinstance(head, Mention) else anchor if isinstance(anchor, Mention) else None
    owner = owner or next((h for h in reversed(heads) if h.last <= start), None) or (heads[0] if heads else None)
    mention.suv_kind = owner.suv_kind if owner is not None else carried
    mention.lean = owner.lean if owner is not None else False
    mention.tracer = owner.tracer if owner is not None else ""
    return mention


def _walk_back(scan: Scan, start: int) -> tuple[str, Mention | None]:
    """What stands before the number across connecting words only: an SUV word, another value, or neither."""
    connectors = rule_words("mentions", "connector")
    index = start - 1
    for _ in range(_MAX_CONNECTORS):
        if index < scan.begin:
            return "", None
        kind = scan.taken.get(index)
        if kind in ("head", "suv"):
            owner = next((m for m in reversed(scan.mentions) if m.kind == kind and m.first <= index < m.last), None)
            between = [scan.word(i) for i in range(owner.last, start)] if owner else []
            if kind == "head":
                return ("", None) if between.count(",") > 1 else ("head", owner)
            return "value", owner
        if kind is not None and not (kind == "date" or (kind == "number" and scan.word(index) == "%")):
            return "", None
        word = scan.word(index)
        short = word == "." and scan.word(index - 1) in _SHORTENED
        if word not in connectors and word not in _CUES and kind is None and not short:
            return "", None
        index -= 1
    return "", None


def _cue_near(scan: Scan, start: int, index: int) -> bool:
    """A word of comparison directly before or after the number: previously 7, was 6, 5.5 before, from 9 to 6."""
    near = [scan.word(start - 1), scan.word(start - 2), scan.word(index + 1)]
    if scan.word(start - 1) in ("of", "a", "at", "with"):
        near.append(scan.word(start - 3))
    on = scan.word(index + 1) in ("on", "in") and any(
        scan.word(i) in ("prior", "previous", "earlier", "last") for i in range(index + 2, index + 5)
    )
    return on or any(word in _NEAR for word in near)


def _nothing_since(head: Mention, values: list[Mention]) -> bool:
    return not any(v.first >= head.last for v in values)


def _unit_end(scan: Scan, index: int) -> int:
    """Past `g/mL`, `g/cc`, `SUV`, `(max)` after the value."""
    if scan.word(index) in ("g", "gm", "gram", "grams") and scan.word(index + 1) in ("/", "per"):
        return min(index + 3, scan.stop)
    return index

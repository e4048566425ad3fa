"""What a value stands for, slices aside: earlier exam, reference tissue, normal organ, negated, threshold, mean, range."""

from __future__ import annotations

from dataclasses import dataclass, field

from petground.labeling.language.groups import Group
from petground.labeling.language.lexicon import rule_words
from petground.labeling.language.stream import Item
from petground.labeling.language.tense import Tense

__all__ = ["Scope", "judge", "make_scope"]

_CLOSERS = frozenset({",", ";", ")", "]", ".", ":"})
_STRONG = frozenset(
    "focal focus focally increased intense intensely diffuse diffusely new elevated hypermetabolic suspicious abnormal "
    "asymmetric asymmetrically nodular marked markedly avid discrete prominent heterogeneous patchy multifocal".split()
)
_SAYS = frozenset(
    "is are was were be being felt considered likely probably favored favoured favor favors represent represents "
    "representing consistent compatible related due reflecting reflects reflect to , ( ; : as with keeping of for in "
    "presumably presumed thought deemed attributed attributable most suggesting suggests compatible".split()
)
_ADVERSATIVE = frozenset("but however though although yet while whereas except".split())
_ELSEWHERE = frozenset("elsewhere other otherwise additional else".split())


@dataclass
class Scope:
    """The items of a group that speak of one value: those in a side remark ("than liver (2.3)") belong to it alone.

    value: item index. zone: items of the side remark that the value lies in, empty outside; remarks: the others.
    items: what may speak of the value. label: kinds found in the heading the sentence stands under.
    """

    row: list[Item]
    value: int
    items: list[int]
    zone: list[int] = field(default_factory=list)
    heading: frozenset[str] = frozenset()
    section: str | None = None
    remarks: list[list[int]] = field(default_factory=list)

    def before(self) -> list[Item]:
        """Items of the scope before the value."""
        return [self.row[i] for i in self.items if i < self.value]

    def after(self) -> list[Item]:
        """Items of the scope after the value."""
        return [self.row[i] for i in self.items if i > self.value]

    def any(self, *kinds: str) -> bool:
        """Whether an item of the scope has one of the kinds."""
        return any(self.row[i].has(*kinds) for i in self.items)


def make_scope(row: list[Item], group: Group, value: int, section: str | None, heading: frozenset[str]) -> Scope:
    """The scope of one value of a group."""
    zones = _zones(row, group)
    mine = next((zone for zone in zones if value in zone), [])
    if mine:
        return Scope(row, value, [i for i in mine], mine, heading, section)
    hidden = {i for zone in zones for i in zone}
    hidden |= _relations(row, group, value)
    items = [i for i in range(group.first, group.last) if i not in hidden]
    return Scope(row, value, items, [], heading, section, zones)


def _zones(row: list[Item], group: Group) -> list[list[int]]:
    """Side remarks that compare: from "than", "above", "versus" to the end of the phrase and its bracket."""
    zones: list[list[int]] = []
    i = group.first
    while i < group.last:
        if not row[i].has("compare") or _measures(row, i, group):
            i += 1
            continue
        j = i + 1
        seen_value = False
        while j < group.last:
            item = row[j]
            if "value" in item.kinds:
                if seen_value:
                    break
                seen_value = True
            if item.text in ("(", "["):
                j = _close(row, j, group.last)
                seen_value = seen_value or any("value" in row[k].kinds for k in range(i, j))
                continue
            if item.text == "," and j + 1 < group.last and row[j + 1].text in ("which", "with", "whose", "having", "measuring"):
                if not seen_value and row[j + 1].text == "which":
                    j += 1
                    continue
                break
            if item.text in (";", ",", ")", "]", ":") or item.has("coord") and (seen_value or not _more_tissue(row, j, group.last)):
                break
            if item.has("slice") and not seen_value and not any("value" in row[k].kinds for k in range(j, group.last)):
                break
            j += 1
        zones.append(list(range(i, j)))
        i = j
    return zones


def _more_tissue(row: list[Item], coord: int, last: int) -> bool:
    """Whether "liver and spleen" goes on after the coordinator, rather than the sentence."""
    return any(row[j].own or row[j].has("normal") for j in range(coord + 1, min(coord + 3, last)))


def _measures(row: list[Item], i: int, group: Group) -> bool:
    """"above SUV 2.5", "SUVmax greater than 5": a bound on the value itself, not another tissue."""
    nearby = row[i + 1 : min(i + 4, group.last)]
    if row[i].has("versus"):
        return False
    for item in nearby:
        if item.own:
            return False
        if "value" in item.kinds:
            return not row[i].has("compare") or row[i].text not in ("compared with", "compared to")
    return False


def _close(row: list[Item], opening: int, last: int) -> int:
    depth = 0
    for j in range(opening, last):
        depth += row[j].text in ("(", "[")
        depth -= row[j].text in (")", "]")
        if depth == 0:
            return j + 1
    return last


def _relations(row: list[Item], group: Group, value: int) -> set[int]:
    """What a lesion lies next to: "adjacent to the left psoas"."""
    hidden: set[int] = set()
    for i in range(group.first, group.last):
        if row[i].has("relation"):
            j = i + 1
            while j < min(group.last, i + 9) and j != value:
                item = row[j]
                if item.text in _CLOSERS or item.text == "(" or item.has("coord", "head", "slice", "anaphor", "starter", "size"):
                    break
                if item.text in ("with", "on", "is", "has", "measuring", "measures", "shows", "demonstrates", "at", "and"):
                    break
                hidden.add(j)
                j += 1
    return hidden


def judge(scope: Scope, tense: Tense) -> str | None:
    """The first reason that applies, in the order of TEXT_REASONS up to `range`; None for a current lesion value."""
    mention = scope.row[scope.value].mention
    if tense.when == "prior" and tense.sign != "versus":
        return "prior"
    if scope.section in ("indication", "comparison") and tense.when != "current":
        return "prior"
    reference, physiologic = _reference(scope), _physiologic(scope)
    if physiologic == "said":
        if not (reference == "said" and scope.zone):
            return "physiologic"
    if reference:
        return "reference"
    if physiologic:
        return "physiologic"
    if tense.when == "prior":
        return "prior"
    if _negated(scope):
        return "negated"
    if _threshold(scope):
        return "threshold"
    if mention is not None and (mention.suv_kind in ("mean", "peak") or mention.lean):
        return "not_max"
    if tense.sign == "range" or _range(scope):
        return "range"
    return None


def _lesion(items: list[Item]) -> bool:
    return any(item.has("lesion") for item in items)


def _nearest(scope: Scope, *kinds: str) -> int:
    """Distance in items to the nearest one of the kinds, before the value first; large when there is none."""
    best = 999
    for i in scope.items:
        if scope.row[i].has(*kinds):
            best = min(best, abs(scope.value - i) if i < scope.value else 2 * abs(i - scope.value))
    return best


def _strong(scope: Scope) -> bool:
    """A word that makes uptake abnormal."""
    return any(
        word in _STRONG
        for i in scope.items
        for word in scope.row[i].text.split()
        if not scope.row[i].has("physio", "normal")
    ) or scope.any("change")


def _reference(scope: Scope) -> str:
    items = [scope.row[i] for i in scope.items]
    said = any(item.has("reference") for item in items)
    tissue = any(item.has("ref") for item in items)
    if scope.zone:
        if tissue and not _lesion([i for i in items if not i.has("ref")]) or said:
            return "said"
        if any(item.has("contralateral", "normal") for item in items) and not any(item.has("physio", "phys") for item in items):
            return "said"
        if any(item.has("side") for item in items) and not any(item.has("lesion", "prior", "date") for item in items):
            return "said"  # "versus 4.3 on the right"
        return ""
    lesion = _lesion(items)
    if said and (not lesion or _nearest(scope, "reference") < _nearest(scope, "lesion")):
        return "said"
    if "reference" in scope.heading and not lesion:
        return "heading"
    other_side = any(item.has("contralateral") for item in items)
    if other_side and not lesion:
        return "side"
    if any(item.has("normal") for item in scope.before()) and not scope.any("phys") and not lesion and not _strong(scope):
        if tissue or scope.any("side", "contralateral"):
            return "normal"
    if tissue and not lesion and not _strong(scope):
        near = [i for i in reversed(scope.items) if i < scope.value and scope.row[i].has("ref", "site", "phys")] or [
            i for i in scope.items if i > scope.value and scope.row[i].has("ref", "site", "phys")
        ]
        if near and scope.row[near[0]].has("ref"):
            return "tissue"
    return ""


def _physiologic(scope: Scope) -> str:
    for i in scope.items:
        item = scope.row[i]
        if not item.has("physio"):
            continue
        back = scope.row[max(0, i - 4) : i]
        if any(b.has("hedge") and b.text not in ("or",) for b in back) or any(b.has("affirmed") for b in back):
            continue
        if any(b.text in ("not", "non", "without", "no") for b in back[-2:]):
            continue
        if not scope.zone and any(b.text in ("than", "beyond") for b in back[-2:]):
            continue
        if i < scope.value:
            between = scope.row[i + 1 : scope.value]
            if any(b.has("lesion") for b in between) and not item.text.startswith("celiac"):
                continue
            if any(b.text in _ADVERSATIVE for b in between) and _strong_words(between):
                continue
            return "said"
        start = max(scope.value, i - 4)
        if any(b.text in _SAYS or b.has("uncertain") for b in scope.row[start + 1 : i]) or scope.zone:
            if not any(b.has("starter") for b in scope.row[scope.value : i]):
                return "said"
        elif not _lesion([scope.row[k] for k in scope.items]):
            return "said"
    items = [scope.row[i] for i in scope.items]
    if _lesion(items):
        return ""
    near = [i for i in reversed(scope.items) if i < scope.value and scope.row[i].has("ref", "site", "phys")] or [
        i for i in scope.items if i > scope.value and scope.row[i].has("ref", "site", "phys")
    ]
    if near and scope.row[near[0]].has("phys") and not _strong(scope):
        return "organ"
    normal = any(item.has("normal") for item in scope.before())
    if normal and not _strong(scope) and any(item.has("site", "phys") for item in items):
        return "normal"
    return ""


def _strong_words(items: list[Item]) -> bool:
    return any(word in _STRONG for item in items for word in item.text.split())


def _negated(scope: Scope) -> bool:
    row = scope.row
    for position, i in enumerate(scope.items):
        item = row[i]
        if item.has("affirmed"):
            continue
        hit = item.has("negated")
        end = i
        if not hit and item.has("negation"):
            end = _negated_uptake(row, scope.items[position + 1 :])
            hit = end >= 0
        if not hit:
            continue
        if i < scope.value:
            between = row[end + 1 : scope.value]
            if any(b.text in _ADVERSATIVE or b.has("starter") or b.text == ";" for b in between):
                continue
            comma = next((k for k, b in enumerate(between) if b.text == "," ), None)
            if comma is not None and any(b.own for b in between[comma:]):
                continue
            if item.has("negated") and any(b.has("lesion") for b in between):
                continue
            return True
        tail = row[end + 1 : end + 5]
        if any(t.text in _ELSEWHERE or t.has("another") for t in tail):
            continue
        gap = row[scope.value + 1 : i]
        if any(g.has("starter") for g in gap) or (any(t.own for t in tail) and not any(g.text in _SAYS for g in gap[-3:])):
            continue
        return True
    return False


def _negated_uptake(row: list[Item], after: list[int]) -> int:
    """Item index of the uptake word that a negation reaches, or -1."""
    filler = rule_words("context", "negfill")
    for step, i in enumerate(after[:9]):
        item = row[i]
        if item.has("uptake") and item.text not in ("significant", "increased", "suspicious", "abnormal", "elevated"):
            ahead = row[i + 1] if i + 1 < len(row) else None
            return i + 1 if ahead is not None and ahead.has("uptake") else i
        if item.has("affirmed", "change", "value") or item.text in _CLOSERS:
            return -1
        if item.has("uptake", "uncertain", "abnormal", "uptakeword") or item.own and step < 6:
            continue
        if item.text not in filler and not all(word in filler for word in item.text.split()):
            return -1
    return -1


def _threshold(scope: Scope) -> bool:
    if scope.section == "technique":
        return True
    has_slice = scope.any("slice")
    return scope.any("threshold") and not has_slice


def _range(scope: Scope) -> bool:
    """"up to" over several lesions."""
    before = [i for i in scope.items if i < scope.value]
    upto = [i for i in before if scope.row[i].has("upto") and scope.value - i <= 6]
    if not upto:
        return scope.any("range") and any(scope.row[i].has("range") and scope.value - i <= 5 for i in before)
    single = [i for i in before if scope.row[i].has("single")]
    plural = [i for i in before if scope.row[i].has("plural") or (scope.row[i].has("lesion") and _is_plural(scope.row[i].text))]
    return bool(plural) and not (single and max(single) > min(plural))


_PLURALS = frozenset("foci metastases masses malignancies opacities densities lns mets".split())


def _is_plural(text: str) -> bool:
    return text in _PLURALS or (text.endswith("s") and not text.endswith(("ss", "is", "us")))

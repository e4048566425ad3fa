"""What a value stands for, slices aside: earlier exam, reference tissue, normal organ, negation, threshold, range."""

from __future__ import annotations

from itertools import pairwise

from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.physiologic import ADVERSATIVE, SAYS, find_physiologic, has_lesion, is_strong
from petground.labeling.language.scope import CLOSERS, Scope, goes_on_bare
from petground.labeling.language.stream import Item, Row
from petground.labeling.language.tense import Tense
from petground.labeling.language.told import range_joint

__all__ = ["judge"]

_APART = (";", "apart", "aside", "other than", "exception")
_BLOOD_OR_LIVER = ("liver", "hepatic", "blood", "aort", "mediastinal", "mbp")
_UPPER_END = word_set("latter highest hottest greatest maximum upper most")
_BOUNDS = word_set("over ≥ >= > < ≤ exceeding more higher greater")
_ELSEWHERE = word_set("elsewhere other otherwise additional else")


def judge(scope: Scope, tense: Tense) -> str | None:
    """The first reason that applies, in the order of TEXT_REASONS up to `range`; None for a current lesion value."""
    mention = scope.row[scope.value].mention
    if tense.sign == "delayed":
        return "ambiguous"
    if tense.sign in ("from", "to", "range") and _threshold(scope):
        return "threshold"  # "an SUV window from 0 to 7"
    if tense.when == "prior" and tense.sign != "versus":
        return "prior"
    if (scope.section in ("indication", "comparison") or "then" in scope.heading) and tense.when != "current":
        return "prior"
    reference, physiologic = _reference(scope), find_physiologic(scope)
    if physiologic == "said" and not (reference and (scope.zone or _of_liver_or_blood(scope))):
        return "physiologic"
    if reference:
        return "reference"
    if physiologic:
        return "physiologic"
    if tense.when == "prior":
        return "prior"
    if "denied" in scope.heading and not scope.zone:
        return "negated"
    if _negated(scope):
        return "prior" if _gone(scope) else "negated"
    if _threshold(scope):
        return "threshold"
    if mention is not None and (mention.suv_kind in ("mean", "peak") or mention.lean):
        return "not_max"
    if (tense.sign == "range" or _range(scope)) and not _singled_out(scope, tense):
        return "range"
    return None


def _of_liver_or_blood(scope: Scope) -> bool:
    """Whether the organ said to take up physiologically is one that others are compared with."""
    places = [item for item in scope.before() if item.has("ref", "phys", "site")]
    return bool(places) and places[-1].text.startswith(_BLOOD_OR_LIVER)


def _nearest(scope: Scope, *kinds: str) -> int:
    """Distance in items to the nearest one of the kinds, before the value first; large when there is none."""
    best = 999
    for i in scope.items:
        if scope.row[i].has(*kinds):
            best = min(best, abs(scope.value - i) if i < scope.value else 2 * abs(i - scope.value))
    return best


_DISEASE = word_set("disease lesions metastases mets deposits foci involvement sites")


def _listed_as_disease(scope: Scope) -> bool:
    """Whether, as in "FDG-avid disease: right neck (...), spleen (SUVmax 7.0, im 161)", a list of lesions names it."""
    row = scope.row
    colon = next((i for i in range(1, scope.value) if row[i].text == ":"), -1)
    return colon > 0 and row[colon - 1].text in _DISEASE and scope.any("slice")


def _reference(scope: Scope) -> str:
    named = not scope.row.lacks("reference", "ref", "contralateral", "normal") or "reference" in scope.heading
    if not (scope.zone or named):
        return ""
    items = [scope.row[i] for i in scope.items]
    said = any(
        scope.row[i].has("reference") and (scope.zone or i == 0 or not scope.row[i - 1].has("compare"))
        for i in scope.items
        if not any(scope.row[k].text == ";" for k in range(scope.value, i))
    )
    tissue = any(item.has("ref") for item in items)
    if said and not tissue and not scope.zone and scope.any("slice") and has_lesion(items) and not scope.any("normal"):
        said = any(item.has("reference") and not item.text.startswith(("for ", "as ")) for item in items)
    if scope.zone:
        if any(item.text.startswith("mediastin") for item in items) and not has_lesion(items):
            return "said"
        if (tissue and not has_lesion([i for i in items if not i.has("ref")])) or said:
            return "said"
        if any(item.has("contralateral", "normal") for item in items) and not any(
            item.has("physio", "phys") for item in items
        ):
            return "said"
        if any(item.has("side") for item in items) and not any(item.has("lesion", "prior", "date") for item in items):
            return "said"  # "versus 4.3 on the right"
        if any(scope.row[i].has("ref") for zone in scope.remarks for i in zone if i < scope.value):
            return "said"  # "exceeds that of liver, SUVmax 6.2 versus 3.0"
        return ""
    lesion = has_lesion(items)
    if said and (not lesion or _nearest(scope, "reference") < _nearest(scope, "lesion")):
        return "said"
    if "reference" in scope.heading and not lesion:
        return "heading"
    other_side = any(item.has("contralateral") for item in items)
    if other_side and not lesion:
        return "side"
    if lesion or is_strong(scope) or any(item.has("segment") for item in items):
        return ""
    behind = scope.row[scope.value + 1 : scope.value + 3]
    normal = any(
        item.has("normal") and (tissue or not item.text.startswith("homogen")) for item in scope.before()
    ) and not scope.any("phys")
    normal = normal or (len(behind) == 2 and behind[0].text == "(" and behind[1].has("normal"))  # "2.1 (normal)"
    if normal and (tissue or scope.any("side", "contralateral")):
        return "normal"
    if tissue and not _listed_as_disease(scope):
        near = [i for i in reversed(scope.items) if i < scope.value and scope.row[i].has("ref", "site", "phys")] or [
            i for i in scope.items if i > scope.value and scope.row[i].has("ref", "site", "phys")
        ]
        limb = bool(near) and scope.row[near[0]].text.endswith("muscle") and scope.any("side") and scope.any("slice")
        if near and scope.row[near[0]].has("ref") and not limb:  # "left calf muscle, SUVmax 2.9, image 430" is none
            return "tissue"
    return ""


def _negated(scope: Scope) -> bool:
    row = scope.row
    if _neither(row, scope.value):
        return True
    if row.lacks("negated", "negation"):
        return False
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
            between = goes_on_bare(scope, between)
            if any(b.text in ADVERSATIVE or b.text.startswith(_APART) or b.has("starter") for b in between):
                continue
            comma = next((k for k, b in enumerate(between) if b.text == ","), None)
            if comma is not None and any(b.own for b in between[comma:]):
                continue
            if item.has("negated") and any(b.has("lesion") for b in between) and not _still_told(item, between):
                continue
            if item.has("negated") and (any(_says_avid(b) for b in between) or _other_tracer(row, i)):
                continue
            return True
        tail = row[end + 1 : end + 5]
        if any(t.text in _ELSEWHERE or t.has("another") for t in tail):
            continue
        gap = row[scope.value + 1 : i]
        comma = next((k for k in range(len(gap) - 1, -1, -1) if gap[k].text == ","), len(gap))
        if any(g.has("lesion", "site", "sided") for g in gap[comma:]):
            continue  # "..., right-sided pleural effusion without uptake"
        if any(g.has("starter") for g in gap) or (
            any(t.own for t in tail) and not any(g.text in SAYS for g in gap[-3:])
        ):
            continue
        return True
    return False


def _neither(row: Row, value: int) -> bool:
    """Whether, as in "Neither the right node (SUVmax 1.5) nor the left (SUVmax 1.4) is avid", the value is denied."""
    if "neither" not in row.said:
        return False
    first = next((i for i, item in enumerate(row[:value]) if "neither" in item.text), -1)
    if first < 0:
        return False
    nor = next((i for i in range(first + 1, len(row)) if "nor" in row[i].text.split()), -1)
    verb = next((i for i in range(nor + 1, len(row)) if row[i].has("uptake", "uptakeword")), -1)
    return -1 < first < nor and (value < verb or (verb < 0 and value < nor + 8))


def _says_avid(item: Item) -> bool:
    """Whether it is the avid part of "photopenic centre with a hypermetabolic rim"."""
    return item.has("uptakeword") and item.text.endswith(("avid", "hypermetabolic", "hypermetabolism", "intense"))


def _other_tracer(row: list[Item], i: int) -> bool:
    """Whether, as in "FDG avid, DOTATATE negative liver lesion", the lesion is negative on another tracer alone."""
    tracers = rule_words("mentions", "tracer")
    named = tracers.intersection(row[i - 1].text.split()) | tracers.intersection(row[i].text.split())
    avid = [item.text for item in row[max(0, i - 8) : i + 6] if _says_avid(item) or item.text in ("positive", "avid")]
    others = tracers.intersection(w for item in row[max(0, i - 8) : i + 6] for w in item.text.split()) - named
    return bool(named and others and avid)


def _still_told(negated: Item, between: list[Item]) -> bool:
    """Whether, as in "photopenic right renal cyst, SUVmax 0.8", but the one lesion that is negated is named."""
    if negated.text.endswith(" of"):
        return True
    lesions = [k for k, b in enumerate(between) if b.has("lesion")]
    return lesions[0] == lesions[-1] and not any(b.has("uptake", "coord", "slice") for b in between)


def _gone(scope: Scope) -> bool:
    """Whether, as in "the previously seen node (SUVmax 6.3) has resolved", what is gone had its value before."""
    gone = any(
        item.text.endswith(("resolved", "resolution", " none")) or "no longer" in item.text for item in scope.after()
    )
    return gone and any(item.has("prior", "stable") and "previous" in item.text for item in scope.before())


def _negated_uptake(row: list[Item], after: list[int]) -> int:
    """Item index of the uptake word that a negation reaches, or -1."""
    filler = rule_words("context", "negfill")
    for step, i in enumerate(after[:10]):
        item = row[i]
        if item.has("uptake") and item.text not in ("significant", "increased", "suspicious", "abnormal", "elevated"):
            ahead = row[i + 1] if i + 1 < len(row) else None
            return i + 1 if ahead is not None and ahead.has("uptake") else i
        if item.text in ("increased", "elevated") or item.has("head"):
            continue
        if item.has("compare") and any(row[k].has("value") for k in after[step + 1 : step + 3]):
            return i  # "no focus above SUV 2.0"
        if item.has("affirmed", "change", "value") or item.text in CLOSERS:
            return -1
        if item.has("uptake", "uncertain", "abnormal", "uptakeword") or (item.own and step < 6):
            continue
        if item.text not in filler and not all(word in filler for word in item.text.split()):
            return -1
    return -1


def _singled_out(scope: Scope, tense: Tense) -> bool:
    """Whether, as in "from 3.3 to 8.9, the latter in the left 9th rib on slice 162", the upper end is one lesion's."""
    after = scope.row[scope.value + 1 : scope.value + 5]
    slices = any(item.has("slice") for item in scope.row[scope.value + 1 :])
    named = any(word in _UPPER_END for item in after for word in item.text.split())
    return slices and named and -1 < tense.pair < scope.value


def _threshold(scope: Scope) -> bool:
    if scope.section == "technique" or (scope.row[0].text == "if" and any(i.has("compare") for i in _around(scope))):
        return True  # "If SUVmax exceeds 5.4 on slice 70 then biopsy."
    if scope.row.lacks("threshold"):
        return False
    at_value = [item for item in scope.row[max(0, scope.value - 3) : scope.value] if item.has("threshold")]
    if any(item.text in ("threshold", "cutoff", "cut-off", "cut off") for item in at_value):
        return True  # "...; PERCIST threshold 4.4"
    if scope.any("slice"):
        return False
    told = [scope.row[i].kinds["threshold"] for i in scope.items if scope.row[i].has("threshold")]
    bounded = scope.zone or any(item.has("compare") or item.text in _BOUNDS for item in _around(scope))
    return any(label != "bounded" or bounded for label in told)


def _around(scope: Scope) -> list[Item]:
    return scope.row[max(0, scope.value - 4) : scope.value + 4]


def _range(scope: Scope) -> bool:
    """Whether it is "up to" over several lesions, or one end of a range."""
    if scope.row.lacks("upto", "range"):
        return False
    values = [i for i, item in enumerate(scope.row) if "value" in item.kinds]
    if any(range_joint(scope.row, a, b) >= 0 for a, b in pairwise(values) if scope.value in (a, b)):
        return False
    before = [i for i in scope.items if i < scope.value]
    upto = [i for i in before if scope.row[i].has("upto") and scope.value - i <= 6]
    if not upto:
        return scope.any("range") and any(scope.row[i].has("range") and scope.value - i <= 5 for i in before)
    single = [i for i in before if scope.row[i].has("single")]
    plural = [
        i
        for i in before
        if scope.row[i].has("plural") or (scope.row[i].has("lesion") and _is_plural(scope.row[i].text))
    ]
    return bool(plural) and not (single and max(single) > min(plural))


_PLURALS = word_set("foci metastases masses malignancies opacities densities lns mets")


def _is_plural(text: str) -> bool:
    return text in _PLURALS or (text.endswith("s") and not text.endswith(("ss", "is", "us")))

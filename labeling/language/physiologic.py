"""Whether a value is normal uptake: said to be physiologic, or of an organ that takes up tracer without disease."""

from __future__ import annotations

from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.scope import Scope
from petground.labeling.language.stream import Item

__all__ = ["ADVERSATIVE", "SAYS", "find_physiologic", "has_lesion", "is_strong"]

_STRONG = word_set(
    "focal focus focally increased intense intensely diffuse diffusely new elevated hypermetabolic suspicious "
    "abnormal asymmetric asymmetrically nodular marked markedly avid discrete prominent heterogeneous patchy "
    "multifocal circumferential circumferentially mural transmural"
)
_FOCAL = word_set(
    "focal focus focally new suspicious abnormal asymmetric asymmetrically nodular discrete heterogeneous "
    "patchy multifocal avid hypermetabolic unexpected"
)
SAYS = word_set(
    "is are was were be being felt considered likely probably favored favoured favor favors represent "
    "represents representing consistent compatible related due reflecting reflects reflect to , ( ; : as with "
    "keeping of for in line presumably presumed thought deemed attributed attributable most suggesting suggests "
    "compatible"
)
ADVERSATIVE = word_set("but however though although yet while whereas except")
_TOLD_APART = word_set("distinguished distinguishable indistinguishable separated separable inseparable differentiated")
_BESIDES = word_set("with plus and superimposed")
_WITHIN = ("within normal", "within the normal", "within physiologic", "within physiological")


def has_lesion(items: list[Item]) -> bool:
    return any(item.has("lesion") for item in items)


def is_strong(scope: Scope) -> bool:
    """A word that makes uptake abnormal."""
    if any(scope.row[i].has("normal") and "not" in scope.row[i].text for i in scope.items):
        return False
    return any(
        word in _STRONG
        for i in scope.items
        for word in scope.row[i].text.split()
        if not scope.row[i].has("physio", "normal")
    ) or scope.any("change")


def _focal(scope: Scope) -> bool:
    """A word that makes uptake abnormal where it is always intense: "focal", not "intense"."""
    words = {
        word for i in scope.items for word in scope.row[i].text.split() if not scope.row[i].has("physio", "normal")
    }
    return bool(words & _FOCAL)


def find_physiologic(scope: Scope) -> str:
    row = scope.row
    for i in scope.items if not row.lacks("physio") else ():
        item = scope.row[i]
        if not item.has("physio"):
            continue
        back = scope.row[max(0, i - 4) : i]
        if any(b.has("hedge") and b.text not in ("or",) for b in back) or any(b.has("affirmed") for b in back):
            continue
        if any(b.text in ("not", "non", "without", "no") for b in back[-2:]):
            continue
        if any(word in _TOLD_APART for b in back for word in b.text.split()):
            continue  # "cannot be distinguished from urine"
        if not scope.zone and any(b.text in ("than", "beyond") for b in back[-2:]):
            continue
        if i < scope.value:
            between = scope.row[i + 1 : scope.value]
            mimics = any(b.has("relation") for b in between)  # "urine activity mimics a node"
            if any(b.has("lesion") for b in between) and not (mimics or item.text.startswith("celiac")):
                continue
            if _strong_words(between) and any(b.text in ADVERSATIVE or b.text in _BESIDES for b in between):
                continue
            return "said"
        if _of_another(scope, i):
            continue
        start = max(scope.value, i - 4)
        if any(b.text in SAYS or b.has("uncertain") for b in scope.row[start + 1 : i]) or scope.zone:
            if not any(b.has("starter") for b in scope.row[scope.value : i]):
                return "said"
        elif not has_lesion([scope.row[k] for k in scope.items]):
            return "said"
    items = [row[i] for i in scope.items]
    if row.lacks("site", "phys") or has_lesion(items):
        return ""
    near = [] if row.lacks("phys") else [i for i in scope.items if row[i].has("ref", "site", "phys")]
    near = [i for i in reversed(near) if i < scope.value] or [i for i in near if i > scope.value]
    if near and scope.row[near[0]].has("phys"):
        always = scope.row[near[0]].text in rule_words("anatomy", "always")
        if not (_focal(scope) if always else is_strong(scope)):
            return "organ"
    normal = not row.lacks("normal") and any(item.has("normal") for item in scope.before())
    normal = normal or any(item.text.startswith(_WITHIN) for item in scope.after())
    if normal and not is_strong(scope) and any(item.has("site", "phys") for item in items):
        return "normal"
    return ""


def _of_another(scope: Scope, i: int) -> bool:
    """Whether what is called physiologic behind the value is another organ: after a semicolon, or with a value of its
    own in a bracket."""
    row, v = scope.row, scope.value
    semicolon = next((k for k in range(v + 1, i) if row[k].text == ";"), -1)
    if semicolon >= 0 and any(row[k].has("site", "ref", "phys", "sided") for k in range(semicolon, i)):
        return True
    bracket = row[i].bracket
    return bool(bracket) and bracket != row[v].bracket and any(
        item.bracket == bracket and "value" in item.kinds for item in row[v + 1 :]
    )  # fmt: skip


def _strong_words(items: list[Item]) -> bool:
    return any(word in _STRONG for item in items for word in item.text.split())

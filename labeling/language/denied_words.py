"""Whether the words of a sentence negate uptake, or a lesion, and say of nothing that it is there.

Every word has to be known, and how words are joined: "no uptake in the liver or spleen" denies both, "no uptake in the
liver and a node in the neck" tells of a node.
"""

from __future__ import annotations

from petground.labeling.language.denied_places import PARTS
from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mentions import scan_sentence
from petground.labeling.language.tokens import Words

__all__ = ["denies", "tells_things"]

_PLACE = "PLACE"
_TAKES_UP = word_set("uptake activity avidity avid hypermetabolism hypermetabolic accumulation")
_GRAVE = word_set(
    "metastasis metastases metastatic mets malignancy malignancies malignant recurrence tumor tumors tumour tumours "
    "neoplasm neoplastic lesion lesions focus foci suspicious"
)
"""What a PET would show, told without a word for uptake."""
_LESION = word_set(
    "lymph node nodes nodal nodule nodules mass masses adenopathy lymphadenopathy disease deposit deposits implant "
    "implants abnormality abnormalities involvement lesion lesions"
)
_KINDS_OF = word_set(
    "abnormal abnormally pathologic pathological pathologically significant significantly focal focally increased "
    "elevated any appreciable detectable visible demonstrable identifiable discernible residual recurrent persistent "
    "associated corresponding local concerning worrisome suggestive indicative suggest indicate for evidence sign "
    "signs pet metabolic metabolically scintigraphic asymmetric ground glass enlarged -"
)
_BETWEEN = PARTS | word_set(
    "the a an this these of in within at on along throughout about around involving with either both and or nor , "
    "/ . region regions area areas side visualized visualised imaged included portion portions structures tissue "
    "tissues soft organs solid parenchyma parenchymal chain chains stations basin basins #"
)
_THINGS = _LESION | word_set("cyst cysts granuloma granulomas opacity opacities thickening")
"""What is there if it stands before the negation: "left lung mass without hepatic metastases"."""
_SEEN = word_set(
    "seen identified noted demonstrated detected visualized visualised present found observed appreciated evident "
    "apparent"
)
_IS = word_set("is are was were be")
_SHOWS = word_set(
    "show shows showing demonstrate demonstrates demonstrating exhibit exhibits have has contain contains appear "
    "appears"
)
_FIRST = (
    _THINGS
    | _BETWEEN
    | _IS
    | _SHOWS
    | word_set(
        "there do does did normal unremarkable clear size configuration morphology appearance attenuation caliber "
        "contour symmetric small tiny subcentimeter calcified cystic simple evaluation assessment imaging - --"
    )
)
"""What may stand before the negation: of what is denied there nothing but its name, size and normal looks."""
_BEHIND = _TAKES_UP | _GRAVE | _LESION | _KINDS_OF | _BETWEEN | _SEEN | _IS | _SHOWS
_NO = word_set("no not without")
_OR = word_set("or nor")
_THE = word_set("the a an this these")
_WITHIN = word_set("in within of at on along throughout about around involving with")
_GATHERED = word_set("area areas region regions focus foci")
_TELLS_OF = word_set("evidence sign signs concerning worrisome suspicious")
_LIKE = word_set("lymph nodal avid hypermetabolic metastatic malignant neoplastic suspicious")
_NOUNS = (_LESION | _TAKES_UP | _GRAVE) - _LIKE
_NODES = word_set("lymph node nodes nodal adenopathy lymphadenopathy")
_SUGGESTS = word_set("suggest indicate")
_AND = word_set("and with")
_ORDINALS = word_set("st nd rd th")
_JOINED = _LESION | _TAKES_UP | _GRAVE | word_set("suggest indicate suggestive indicative -")
_PASSED = _KINDS_OF - word_set("for evidence sign signs suggest indicate suggestive indicative")
_LEADS_ON = _IS | _SHOWS | word_set("and or , with there")


def tells_things(title: list[str]) -> bool:
    """Whether a title names a lesion, "Left lung mass:", which what stands behind does not deny."""
    return not (_THINGS | _NOUNS).difference(_NODES).isdisjoint(title)


def denies(words: Words, begin: int, covered: list[bool]) -> bool:
    """Whether all clauses behind a token negate uptake, or what takes it up, and affirm nothing."""
    marks = _simplified(words, begin, covered)
    clause: list[str] = []
    for mark in [*marks, ";"]:
        if mark != ";":
            clause.append(mark)
        elif not _clause_denies(clause):
            return False
        else:
            clause = []
    return True


def _simplified(words: Words, begin: int, covered: list[bool]) -> list[str]:
    """Words with places as _PLACE, sizes as "#", and every negation as one of _NO."""
    stop = len(words.lower)
    marks = [_PLACE if hit else word for word, hit in zip(words.lower[begin:stop], covered, strict=True)]
    for mention in scan_sentence(words, begin, stop).mentions:
        if not all(covered[i - begin] for i in range(mention.first, mention.last)):
            plain = mention.kind == "size" or words.lower[mention.last - 1] in _ORDINALS  # "5th rib"
            count = mention.last - mention.first
            marks[mention.first - begin : mention.last - begin] = ["#" if plain else "(number)"] * count
    tracers = rule_words("mentions", "tracer")
    found: list[str] = []
    i = 0
    while i < len(marks):
        mark, ahead = marks[i], marks[i + 1 : i + 5]
        if mark == "above":
            rest = ahead[1:] if ahead[:1] == ["the"] else ahead
            if rest[:1] == ["background"]:
                i += len(ahead) - len(rest) + 2 + (rest[1:2] in (["level"], ["levels"], ["activity"]))
                continue
        if mark in ("f", "ga", "cu") and ahead[:1] == ["-"] and ahead[1:2] in (["18"], ["68"], ["64"]):
            i += 3
            continue
        if mark == "to" and not _SUGGESTS.isdisjoint(ahead[:1]):
            i += 1
            continue
        if mark == "-" and not (words.glued(begin + i) and _glued(words, begin + i + 1)):
            mark = "--"  # a dash: what follows is a statement of its own
        if mark == "&":
            mark = "and"
        if (mark, *ahead[:1]) == ("metabolically", "active"):
            found.append("avid")
            i += 2
            continue
        if mark in ("non", "nonavid", "nonhypermetabolic"):
            found += ["not"] if mark == "non" else ["not", "avid"]
            i += 1 + (mark == "non" and ahead[:1] == ["-"])
            continue
        if (mark, *ahead[:1]) in (("negative", "for"), ("free", "of")):
            found.append("no")
            i += 2
            continue
        if mark == "neither":
            mark = "no"
        if mark not in tracers and mark not in ("radiotracer", "tracer"):
            found.append(mark)
        i += 1
    return found


def _glued(words: Words, index: int) -> bool:
    return index < len(words.lower) and words.glued(index)


def _clause_denies(marks: list[str]) -> bool:
    at = [i for i, mark in enumerate(marks) if mark in _NO]
    if not at or any(mark != _PLACE and mark not in _FIRST for mark in marks[: at[0]]):
        return False
    front, behind = set(marks[: at[0]]), set(marks[at[0] :])
    things = not _THINGS.isdisjoint(front)
    if _PLACE in behind and (things or _PLACE in front):
        return False  # "left lung mass without uptake in the liver"
    if things and not behind.isdisjoint(_NOUNS - _TAKES_UP):
        return False  # "left lung mass without metastases"
    for start, stop in zip(at, [*at[1:], len(marks)], strict=True):
        denied = marks[start + 1 : stop]
        if stop < len(marks):
            if not denied or denied[-1] not in _LEADS_ON:
                return False  # "no doubt", "not without uptake"
            while denied and denied[-1] in _LEADS_ON:
                denied.pop()
        if not _is_denied(denied):
            return False
        if marks[start] == "not" and _TAKES_UP.isdisjoint(denied):
            return False  # what is "not suspicious" may take up
    return True


def _is_denied(marks: list[str]) -> bool:
    """Whether what follows a negation is uptake, or a lesion that has it, and nothing behind is said to be there."""
    strong = False
    for i, mark in enumerate(marks):
        if mark == _PLACE:
            continue
        if mark not in _BEHIND:
            return False
        told = mark in _TAKES_UP or mark in _GRAVE
        if (told or mark in _LESION) and _added(marks, i):
            return False
        if told:
            if not _reached(marks, i, strong=strong):
                return False
            strong = strong or mark not in _LIKE or not _NOUNS.isdisjoint(marks[i + 1 :]) or mark in _TAKES_UP
        elif mark in _LESION and not _listed(marks, i):
            return False
        elif mark == "enlarged" and _before(marks, i)[1] not in _OR and marks[i + 1 : i + 2] != ["or"]:
            return False  # what is of normal size may be there
        elif mark in _SHOWS and (strong or "and" in marks[:i]):
            return False  # "no uptake in the liver and the spleen shows"
        elif mark in _IS and (strong or "and" in marks[:i]) and not _SEEN.intersection(marks[i + 1 : i + 3]):
            return False
    return strong


def _added(marks: list[str], i: int) -> bool:
    """Whether it is told beside what is denied: "no uptake in the liver and a node in the neck", "with a node"."""
    for j in range(i):
        if marks[j] not in _AND or _NOUNS.isdisjoint(marks[:j]):
            continue  # "no avid cervical and axillary nodes"
        has = marks[j] == "with" and marks[j - 1] in _LESION and marks[i] in _TAKES_UP
        if has and _TAKES_UP.isdisjoint(marks[:j]):
            continue  # "no lesion with uptake"
        if _SUGGESTS.isdisjoint(marks[j:i]):
            return True
    return False


def _listed(marks: list[str], i: int) -> bool:
    """Whether a lesion is one more of those denied, or where uptake is: not that of "no liver uptake, a lung node"."""
    at, joint = _before(marks, i)
    if joint in _THE:
        return at == 0 or marks[at - 1] in _OR or marks[at - 1] in _WITHIN
    return joint not in (",", "/") or not _OR.isdisjoint(marks[i:])


def _reached(marks: list[str], i: int, *, strong: bool) -> bool:
    """Whether the negation reaches uptake or a lesion: not that of "no lesion at the focus of uptake"."""
    at, joint = _before(marks, i)
    before = marks[at - 1] if at > 0 else ""
    if joint in _THE:
        start = at == 0 or before in _OR
        return start or (strong and marks[i] in _LESION and before in _WITHIN)  # "no uptake in the liver lesion"
    if joint == "of":  # "no evidence of", "no areas of"
        return all(mark in _KINDS_OF or mark in _GATHERED for mark in marks[:at])
    if joint == "for":
        return before in _TELLS_OF
    if joint in (",", "/"):
        return not _OR.isdisjoint(marks[i:])  # "no avid mass, metastasis or node"
    if joint == "and":
        return not strong  # "no nodal and hepatic metastases"
    if joint == "with":
        return before in _LESION
    return joint == "" or joint in _JOINED or joint in _OR or joint in _IS or joint in _SHOWS


def _before(marks: list[str], i: int) -> tuple[int, str]:
    """The word before and where it stands, places and words for a lesion's kind passed over."""
    i -= 1
    while i >= 0 and (marks[i] in _PASSED or marks[i] == _PLACE):
        i -= 1
    return i, (marks[i] if i >= 0 else "")

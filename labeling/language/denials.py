"""Sentences that deny a lesion or uptake at places, without any value: "No avid cervical or axillary nodes."

A sentence counts only if every word of it is known to keep to a plain denial: whatever hedges, compares, excepts or
looks back ("no other", "no longer", "except") is not among the words below, so it needs no rule. What CT alone denies
("no enlarged nodes") does not count, for a node may be small and avid.
"""

from __future__ import annotations

import re

from petground.labeling.finding import Denial
from petground.labeling.language.denied_places import PARTS, find_places
from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mentions import scan_sentence
from petground.labeling.language.overlong import find_overlong
from petground.labeling.language.sentences import Sentence, find_sentences
from petground.labeling.language.titles import earlier_titles, heading_kinds
from petground.labeling.language.tokens import Words, split_words

__all__ = ["find_denials"]

LONGEST = 600
"""Characters of a sentence beyond which it is no plain denial."""
_SECTIONS = (None, "findings", "impression")
_MAY_DENY = re.compile(r"\b(?:no|not|non\w*|without|neither|negative|free)\b", re.I)
_TAKES_BACK = re.compile(
    r"\W{0,3}(?:however|but|except\w*|although|though|only|with the exception|one exception)\b", re.I
)
_TELLS_UPTAKE = re.compile(r"\b(?:uptake|activity|avid\w*|hypermetaboli\w+|accumulation|metasta\w+|suv\w*)\b", re.I)
_SAYS_NORMAL = re.compile(r"\b(?:physiolog|excret|expected|normal|unremarkable|background|symmetric|homogen)", re.I)
_BAD_TITLE = frozenset(
    ("prior", "then", "reference", "threshold", "versus", "change", "uncertain", "condition", "physio", "compare")
)

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
    "signs pet metabolic metabolically scintigraphic asymmetric ground glass enlarged - &"
)
_BETWEEN = PARTS | word_set(
    "the a an this these of in within at on along throughout about around involving to with either both and or nor , "
    "/ . region regions area areas side visualized visualised imaged included portion portions structures tissue "
    "tissues soft organs solid parenchyma parenchymal chain chains stations basin basins #"
)
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
    _LESION
    | _BETWEEN
    | _IS
    | _SHOWS
    | word_set(
        "there do does did normal unremarkable clear size configuration morphology appearance attenuation caliber "
        "contour symmetric small tiny subcentimeter calcified cyst cysts cystic simple granuloma granulomas opacity "
        "opacities thickening evaluation assessment imaging -"
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
_ORDINALS = word_set("st nd rd th")
_JOINED = _LESION | _TAKES_UP | _GRAVE | word_set("suggest indicate suggestive indicative - &")
_PASSED = _KINDS_OF - word_set("for evidence sign signs suggest indicate suggestive indicative")
_LEADS_ON = _IS | _SHOWS | word_set("and or , with there")


def find_denials(text: str) -> list[Denial]:
    """Denials of a report, in order. Never raises; linear in the text; lines above `overlong.LIMIT` are not read."""
    for start, end in find_overlong(text):
        text = text[:start] + " " * (end - start - 1) + "\n" + text[end:]
    if _MAY_DENY.search(text) is None:
        return []
    sentences = find_sentences(text)
    earlier = earlier_titles(text, sentences)
    found = []
    for n, sentence in enumerate(sentences):
        if sentence.cells or sentence.section not in _SECTIONS or sentence.end - sentence.start > LONGEST:
            continue
        if _MAY_DENY.search(text, sentence.start, sentence.end) is not None:
            told = _read(text, sentence, earlier)
            behind = sentences[n + 1].start if n + 1 < len(sentences) else len(text)
            if told is not None and _TAKES_BACK.match(text, behind) is None:
                found.append(told)
    titles = {title for _, title in found if title is not None}
    under = ((title, one) for one in sentences for title in (one.label, one.group) if title in titles)
    affirmed = {title for title, one in under if _affirms(text, one)}
    return [denial for denial, title in found if title not in affirmed]


def _affirms(text: str, sentence: Sentence) -> bool:
    """Whether it tells of uptake that is not said to be normal: "Pelvis: No avid node. Uptake at the hip." """
    span = (sentence.start, sentence.end)
    return (
        _TELLS_UPTAKE.search(text, *span) is not None
        and _MAY_DENY.search(text, *span) is None
        and _SAYS_NORMAL.search(text, *span) is None
    )


def _read(
    text: str, sentence: Sentence, earlier: frozenset[tuple[int, int]]
) -> tuple[Denial, tuple[int, int] | None] | None:
    """The denial of a sentence, and the title that alone tells its place."""
    span = (sentence.start, sentence.end)
    words = split_words(text, span)
    title = sentence.label
    begin = 0
    if title is not None and span[0] <= title[0] and title[1] < span[1]:
        begin = words.at(title[1]) + 1  # behind its colon
    places = find_places(words, begin, len(words.lower))
    if not places.known or not _denies(words, begin, places.covered):
        return None
    if not _BAD_TITLE.isdisjoint(heading_kinds(text, sentence, earlier)):
        return None
    told = " ".join(text[slice(*span)].split())
    found, by = places.found, None
    if not found:
        by = title = title or sentence.group
        if title is None:
            return None
        head = split_words(text, title)
        while head.lower and head.lower[-1] == ":":
            head.lower.pop()
        found = find_places(head, 0, len(head.lower), title=True).found
        if title[1] < span[0]:
            told = f"{' '.join(text[slice(*title)].split()).rstrip(' :')}: {told}"
    return (Denial(tuple(found), span, text[slice(*span)], sentence.section, told), by) if found else None


def _denies(words: Words, begin: int, covered: list[bool]) -> bool:
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


def _clause_denies(marks: list[str]) -> bool:
    at = [i for i, mark in enumerate(marks) if mark in _NO]
    if not at or any(mark != _PLACE and mark not in _FIRST for mark in marks[: at[0]]):
        return False
    for start, stop in zip(at, [*at[1:], len(marks)], strict=True):
        denied = marks[start + 1 : stop]
        if stop < len(marks):
            if not denied or denied[-1] not in _LEADS_ON:
                return False  # "no doubt", "not without uptake"
            while denied and denied[-1] in _LEADS_ON:
                denied.pop()
        if not _is_denied(denied):
            return False
    return True


def _is_denied(marks: list[str]) -> bool:
    """Whether what follows a negation is uptake, or a lesion that has it, and nothing behind is said to be there."""
    strong = False
    for i, mark in enumerate(marks):
        if mark == _PLACE:
            continue
        if mark not in _BEHIND:
            return False
        if mark in _TAKES_UP or mark in _GRAVE:
            if not _reached(marks, i, strong=strong):
                return False
            strong = True
        elif mark in _LESION and _before(marks, i)[1] == "," and _OR.isdisjoint(marks[i:]):
            return False
        elif mark == "enlarged" and _before(marks, i)[1] not in _OR and marks[i + 1 : i + 2] != ["or"]:
            return False  # what is of normal size may be there
        elif mark in _SHOWS and (strong or "and" in marks[:i]):
            return False  # "no uptake in the liver and the spleen shows"
        elif mark in _IS and (strong or "and" in marks[:i]) and not _SEEN.intersection(marks[i + 1 : i + 3]):
            return False
    return strong


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
        return not strong and _NOUNS.isdisjoint(marks[:at])  # "no nodal and hepatic metastases"
    if joint == "with":
        return before in _LESION
    return joint == "" or joint in _JOINED or joint in _OR or joint in _IS or joint in _SHOWS


def _before(marks: list[str], i: int) -> tuple[int, str]:
    """The word before and where it stands, places and words for a lesion's kind passed over."""
    i -= 1
    while i >= 0 and (marks[i] in _PASSED or marks[i] == _PLACE):
        i -= 1
    return i, (marks[i] if i >= 0 else "")

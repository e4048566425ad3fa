"""What the titles above a sentence say of it: kinds of cue ("Background:") and the side ("Right breast:").

Titles recur from report to report, so what was found in one is kept.
"""

from __future__ import annotations

import re
from functools import lru_cache

from petground.labeling.finding import Laterality
from petground.labeling.language.anatomy import find_anatomy
from petground.labeling.language.context import find_cues
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.tokens import split_words

__all__ = ["earlier_titles", "heading_kinds", "heading_side", "interim_is_now"]


def heading_kinds(
    text: str, sentence: Sentence, earlier: frozenset[tuple[int, int]] = frozenset(), *, interim: bool = False
) -> frozenset[str]:
    """Kinds of cue in the label that a sentence stands under and in the title line above; `then` of an earlier exam.

    earlier: titles known to be of earlier exams (see `earlier_titles`). interim: an interim exam is the one reported,
    which is given as the kind `interim`.
    """
    kinds: frozenset[str] = frozenset()
    for span in (_own_title(text, sentence), sentence.group):
        if span is not None:
            kinds |= _title_kinds(text[slice(*span)]) | ({"then"} if span in earlier else set())
            if span == sentence.label and not sentence.start <= span[0] < sentence.end:
                kinds -= {"denied"}  # "Not avid: left nodule. Avid: right nodule."
            if interim and _INTERIM.search(text, *span) is not None:
                kinds -= {"then"}
    return kinds | {"interim"} if interim else kinds


def _own_title(text: str, sentence: Sentence) -> tuple[int, int] | None:
    """The label, or the title of another exam, "Interim PET: ... End-of-treatment PET: ...", within the line."""
    label = sentence.label
    if label is None or sentence.start <= label[1]:
        return label
    match = _EXAM_TITLE.match(text, sentence.start, sentence.end)
    return label if match is None else (match.start(), match.end() - 1)


_EXAM_TITLE = re.compile(r"[A-Z][\w /-]{0,40}\b(?:PET|PET/CT|PET-CT|scan|study|exam|examination)(?: \([^()]{1,30}\))?:")


@lru_cache(4096)
def _title_kinds(title: str) -> frozenset[str]:
    words = split_words(title)
    cues = find_cues(words, 0, len(words.lower))
    kinds = {kind for cue in cues for kind in cue.kinds}
    if _OF_THEN.match(title):
        kinds.add("then")
    nots = [cue.last for cue in cues if "negation" in cue.kinds]
    avid = any(
        word in ("avid", "positive", "hypermetabolic")
        and not any(c.first <= n < c.last for c in cues if "negated" in c.kinds)
        for n, word in enumerate(words.lower)
    )
    if ("negated" in kinds and not avid) or any(
        "uptake" in cue.kinds and 0 <= cue.first - n <= 3 for n in nots for cue in cues
    ):
        kinds.add("denied")  # "Lesions without tracer uptake:"
    return frozenset(kinds)


_NUMBERED = re.compile(r"(?:scan|study|exam|visit|pet|pet/ct|pet-ct|time ?point) ?#?(\d{1,2})\b", re.I)
_TODAY = re.compile(r"\b(?:current|today|now|present|this (?:scan|study|exam))\b", re.I)


def earlier_titles(text: str, sentences: list[Sentence]) -> frozenset[tuple[int, int]]:
    """Characters of the titles of earlier exams where exams are numbered: "PET 1 (Jan): ", "PET 3 (current): "."""
    spans = {span for s in sentences for span in (s.label, s.group) if span is not None}
    told = {span: match.group(1) for span in spans if (match := _NUMBERED.match(text[slice(*span)])) is not None}
    today = {number for span, number in told.items() if _TODAY.search(text[slice(*span)])}
    return frozenset(span for span, number in told.items() if len(today) == 1 and number not in today)


_INTERIM = re.compile(r"\binterim\b", re.I)
_INTERIM_TITLE = re.compile(
    r"(?:^|\n|[.:] )[^\w\n]{0,8}(?:[\w/-]{1,20} ){0,2}interim (?:[\w/-]{1,20} ){0,2}"
    r"(?:pet\S{0,9}|scan|study|exam\w{0,9}|assessment|response|staging)[^\n:.]{0,50}[:\n.]|\bthis interim\b",
    re.I,
)
_LATER = re.compile(
    r"\b(?:end[- ]of[- ](?:treatment|therapy|chemo)|eot\b|(?:restaging|follow-?up|final) (?:pet|scan|study|exam)|"
    r"(?:today|current|now|this (?:study|exam|examination|scan))\b\W{0,3}(?:pet|scan|study|exam|:))|"
    r"(?:^|[.;:]|\n)\s{0,8}(?:now|today|currently|today's)\b|"
    r"\b(?:than|since|versus|vs|from|prior|previous|last|compare|compared|comparison|comparing)\b[^\n.]{0,40}interim",
    re.I,
)


def interim_is_now(text: str) -> bool:
    """Whether "Interim PET: ..." is the exam reported: it stands as a title only, and no later exam is named."""
    if "interim" not in text.lower() or _INTERIM.search(text) is None or _LATER.search(text) is not None:
        return False
    titles = "".join(match.group() for match in _INTERIM_TITLE.finditer(text))
    return len(_INTERIM.findall(text)) == len(_INTERIM.findall(titles))


_OF_THEN = re.compile(
    r"(?:(?:scan|study|exam|visit|pet|pet/ct|pet-ct|time ?point) ?#?\d?\W{0,4})?"
    r"(?:baseline|prior|previous|interim|earlier|initial|outside|staging)\b(?!.*(?:suv|lesion|node|mass|compar|change|vs))",
    re.I,
)
"""The title of an earlier scan: "Scan 1 (baseline, 1/3/2022)", "Previous PET/CT"."""


def heading_side(text: str, sentence: Sentence) -> Laterality | None:
    """The side named in "Right breast: ..." or in the title line above."""
    for span in (sentence.label, sentence.group):
        sides = _title_sides(text[slice(*span)]) if span is not None else frozenset()
        if len(sides) == 1:
            side = next(iter(sides))
            return side if side in ("left", "right", "bilateral") else None  # type: ignore[return-value]
    return None


@lru_cache(4096)
def _title_sides(title: str) -> frozenset[str]:
    words = split_words(title)
    sides = (cue.kinds.get("side") or cue.kinds.get("sided") for cue in find_anatomy(words, 0, len(words.lower)))
    return frozenset(side for side in sides if side)

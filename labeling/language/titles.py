"""What the titles above a sentence say of it: kinds of cue ("Background:") and the side ("Right breast:").

Titles recur from report to report, so what was found in one is kept.
"""

from __future__ import annotations

from functools import lru_cache

from petground.labeling.finding import Laterality
from petground.labeling.language.anatomy import find_anatomy
from petground.labeling.language.context import find_cues
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.tokens import split_words

__all__ = ["heading_kinds", "heading_side"]


def heading_kinds(text: str, sentence: Sentence) -> frozenset[str]:
    """Kinds of cue in the label that a sentence stands under and in the title line above."""
    kinds: frozenset[str] = frozenset()
    for span in (sentence.label, sentence.group):
        if span is not None:
            kinds |= _title_kinds(text[slice(*span)])
    return kinds


@lru_cache(4096)
def _title_kinds(title: str) -> frozenset[str]:
    words = split_words(title)
    return frozenset(kind for cue in find_cues(words, 0, len(words.lower)) for kind in cue.kinds)


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

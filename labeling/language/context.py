"""Component `petground_context`: words that say what a value is: prior, normal, negated, a threshold, one of many.

Results: `doc._.petground_context`, a list of Cue in order. Which cue counts
for which value is decided in `tense` and `judge`; a cue here is only a phrase of context.json that was found.
"""

from __future__ import annotations

from typing import NamedTuple

from spacy.tokens import Doc

from petground.labeling.language.phrases import phrase_index
from petground.labeling.language.tokens import Words, words_of

__all__ = ["Cue", "context_component", "find_cues"]

_NOT_INDEXED = ("negfill",)


class Cue(NamedTuple):
    """Tokens first..last (end exclusive) and what they may mean: label by kind."""

    first: int
    last: int
    kinds: dict[str, str]


def find_cues(words: Words, begin: int, stop: int) -> list[Cue]:
    """Cues between two tokens, longest phrase first, without overlap."""
    return [Cue(a, b, kinds) for a, b, kinds in phrase_index("context", _NOT_INDEXED).find(words, begin, stop)]


def context_component(doc: Doc) -> Doc:
    """Finds the cues of the whole text."""
    words = words_of(doc)
    found = [cue for begin, stop in words.readable() for cue in find_cues(words, begin, stop)]
    doc._.petground_context = found
    return doc

"""Phrases of the rules matched over tokens: longest first, left to right."""

from __future__ import annotations

from functools import cache

from petground.labeling.language.lexicon import load_rules, phrases_of
from petground.labeling.language.tokens import Words, split_words

__all__ = ["PhraseIndex", "phrase_index"]


class PhraseIndex:
    """Longest phrase first, left to right; a phrase may have several kinds. Linear in the number of tokens."""

    def __init__(self, entries: list[tuple[str, str, str]]):
        phrases: dict[tuple[str, ...], dict[str, str]] = {}
        for phrase, kind, label in entries:
            words = tuple(split_words(phrase).lower)
            if words:
                phrases.setdefault(words, {})[kind] = label
        self._phrases = phrases
        lengths: dict[str, set[int]] = {}
        for words in phrases:
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: sorted(sizes, reverse=True) for word, sizes in lengths.items()}

    def find(self, words: Words, begin: int, stop: int) -> list[tuple[int, int, dict[str, str]]]:
        """(first token, end token, label by kind) of every phrase between two tokens, without overlap."""
        found = []
        lower, lengths, phrases, index = words.lower, self._lengths, self._phrases, begin
        while index < stop:
            step = 1
            for size in lengths.get(lower[index], ()):
                kinds = phrases.get(tuple(lower[index : index + size])) if index + size <= stop else None
                if kinds is not None:
                    found.append((index, index + size, kinds))
                    step = size
                    break
            index += step
        return found


@cache
def phrase_index(name: str, without: tuple[str, ...] = ()) -> PhraseIndex:
    """The index over the rules of a file, some kinds left out."""
    return PhraseIndex(
        [
            (p, rule["kind"], rule.get("label", ""))
            for rule in load_rules(name)
            if rule["kind"] not in without
            for p in phrases_of(rule)
        ]
    )

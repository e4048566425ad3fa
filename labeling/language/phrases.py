"""Phrases of the rules matched over tokens: longest first, left to right."""

from __future__ import annotations

from functools import cache
from typing import Any

from petground.labeling.language.lexicon import load_rules, phrases_of
from petground.labeling.language.tokens import Words, split_words

__all__ = ["PhraseIndex", "phrase_index"]

_END = ""  # no word


class PhraseIndex:
    """Longest phrase first, left to right; a phrase may have several kinds. Linear in the number of tokens.

    The phrases are kept as a tree of their words: from each node the next word leads to the next node, and _END to the
    kinds of the phrase that ends there.
    """

    def __init__(self, entries: list[tuple[str, str, str]]):
        self._root: dict[str, Any] = {}
        for phrase, kind, label in entries:
            node = self._root
            words = split_words(phrase).lower
            for word in words:
                node = node.setdefault(word, {})
            if words:
                node.setdefault(_END, {})[kind] = label

    def find(self, words: Words, begin: int, stop: int) -> list[tuple[int, int, dict[str, str]]]:
        """(first token, end token, label by kind) of every phrase between two tokens, without overlap."""
        found = []
        lower, opens, reached = words.lower, self._root.get, begin
        starts = [(i, node) for i, word in enumerate(lower[begin:stop], begin) if (node := opens(word)) is not None]
        for index, node in starts:
            if index < reached:
                continue
            after = index + 1
            while node is not None:
                if _END in node:
                    last, kinds = after, node[_END]
                    reached = after
                if after >= stop:
                    break
                node = node.get(lower[after])
                after += 1
            if reached > index:
                found.append((index, last, kinds))
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

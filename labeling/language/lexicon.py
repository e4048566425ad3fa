"""Rules as data: phrases by kind, read from the JSON files beside this module, matched over tokens.

Each rule of a JSON file has `name`, `kind`, `phrases` (or `combine`: lists whose every combination is a phrase) and
an `example` with what must come out of it (`expect`), which the tests run.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from importlib import resources
from typing import Any

from petground.labeling.language.tokens import Words, split_words

__all__ = ["PhraseIndex", "load_rules", "phrase_index", "rule_words", "word_set"]


@cache
def load_rules(name: str) -> tuple[dict[str, Any], ...]:
    """Rules of a file, e.g. `context`; raises ValueError for a rule without example or with unknown keys."""
    text = resources.files("petground.labeling.language").joinpath(f"{name}.json").read_text(encoding="utf-8")
    rules = json.loads(text)["rules"]
    known = {"name", "kind", "phrases", "combine", "example", "expect", "label", "data", "why"}
    for rule in rules:
        if not {"name", "kind", "example", "expect"} <= rule.keys() or rule.keys() - known:
            raise ValueError(f"{name}.json: rule {rule.get('name')!r} lacks a key or has an unknown one")
    return tuple(rules)


def word_set(words: str) -> frozenset[str]:
    """The words of a string."""
    return frozenset(words.split())


def phrases_of(rule: dict[str, Any]) -> list[str]:
    """All phrases of a rule, combinations spelt out."""
    phrases = list(rule.get("phrases", ()))
    for parts in rule.get("combine", ()):
        phrases += [" ".join(filter(None, choice)) for choice in itertools.product(*parts)]
    return phrases


@cache
def rule_words(file: str, kind: str) -> frozenset[str]:
    """All phrases of one kind, lower case."""
    return frozenset(p.lower() for rule in load_rules(file) if rule["kind"] == kind for p in phrases_of(rule))


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

"""Typing errors: a token that is a key word but for two swapped, one missing or one doubled letter is read as it.

The key words are the single words of the rules: those of at least six letters, and shorter ones listed under the kind
`spelling` of mentions.json. No letter is ever replaced by another one, so "ureteral" and "urethral" stay apart, and no
known word is changed into another. The table is made once; a token costs one look-up.
"""

from __future__ import annotations

from functools import cache

from petground.labeling.language.lexicon import load_rules, phrases_of

__all__ = ["corrections"]

_LONG = 6


@cache
def corrections() -> dict[str, str]:
    """The word that is meant, by its misspelling (both lower case). A misspelling of two words is left out."""
    known: set[str] = set()
    keys: set[str] = set()
    for file in ("mentions", "context", "anatomy", "sections"):
        for rule in load_rules(file):
            for phrase in phrases_of(rule):
                words = phrase.lower().split()
                known.update(words)
                if rule["kind"] == "spelling":
                    keys.update(words)
                elif rule["kind"] != "spelled_so":
                    keys.update(
                        w for w in words if len(w) >= _LONG and w.isascii() and w.isalpha() and not _typed(rule)
                    )
    meant: dict[str, set[str]] = {}
    for word in keys:
        for wrong in _variants(word):
            if wrong not in known:
                meant.setdefault(wrong, set()).add(word)
    return {wrong: next(iter(words)) for wrong, words in meant.items() if len(words) == 1}


def _typed(rule: dict[str, object]) -> bool:
    """Whether the rule lists misspellings itself; variants of those are none of our business."""
    return str(rule["name"]).endswith("typed_wrong")


def _variants(word: str) -> set[str]:
    """Neighbours swapped, an inner letter missing, a letter doubled."""
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    shorter = {word[:i] + word[i + 1 :] for i in range(1, len(word) - 1)} if len(word) > 4 else set()
    longer = {word[:i] + word[i] + word[i:] for i in range(len(word))}
    return (swapped | shorter | longer) - {word}

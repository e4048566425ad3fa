"""Rules as data: phrases by kind, read from the JSON files beside this module.

Each rule of a JSON file has `name`, `kind`, `phrases` (or `combine`: lists whose every combination is a phrase) and
an `example` with what must come out of it (`expect`), which the tests run.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["load_rules", "phrases_of", "rule_words", "word_set"]


@cache
def load_rules(name: str) -> tuple[dict[str, Any], ...]:
    """Rules of a file, e.g. `context`; raises ValueError for a rule without example or with unknown keys."""
    text = resources.files("petground.labeling.language").joinpath(f"{name}.json").read_text(encoding="utf-8")
    rules = json.loads(text)["rules"]
    known = {"name", "kind", "phrases", "combine", "example", "expect", "label", "data", "why", "plural"}
    for rule in rules:
        if not {"name", "kind", "example", "expect"} <= rule.keys() or rule.keys() - known:
            raise ValueError(f"{name}.json: rule {rule.get('name')!r} lacks a key or has an unknown one")
    return tuple(rules)


def word_set(words: str) -> frozenset[str]:
    """The words of a string."""
    return frozenset(words.split())


def phrases_of(rule: dict[str, Any]) -> list[str]:
    """All phrases of a rule, combinations and (with `plural`) plurals spelt out."""
    phrases = list(rule.get("phrases", ()))
    if rule.get("plural"):
        phrases += [f"{phrase}s" for phrase in phrases if phrase[-1] not in "sxy"]
    for parts in rule.get("combine", ()):
        phrases += [" ".join(filter(None, choice)) for choice in itertools.product(*parts)]
    return phrases


@cache
def rule_words(file: str, *kinds: str) -> frozenset[str]:
    """All phrases of the kinds, lower case."""
    return frozenset(p.lower() for rule in load_rules(file) if rule["kind"] in kinds for p in phrases_of(rule))

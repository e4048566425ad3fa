"""Every rule of the JSON files reads its own example; the rules are well formed."""

from __future__ import annotations

from typing import Any

import pytest

from petground.labeling.extract import extract_findings
from petground.labeling.finding import TEXT_REASONS
from petground.labeling.language.lexicon import load_rules, phrases_of

FILES = ("sections", "mentions", "context", "anatomy", "tables")
RULES = [(name, rule) for name in FILES for rule in load_rules(name)]


@pytest.mark.parametrize(("file", "rule"), RULES, ids=[f"{f}-{r['name']}" for f, r in RULES])
def test_rule_reads_its_example(file: str, rule: dict[str, Any]) -> None:
    found = [[f.suv, f.slice if f.status == "positive" else f.reason] for f in extract_findings(rule["example"])]
    assert found == rule["expect"]


@pytest.mark.parametrize("file", FILES)
def test_names_are_unique_and_phrases_present(file: str) -> None:
    names = [rule["name"] for rule in load_rules(file)]
    assert len(names) == len(set(names))
    for rule in load_rules(file):
        assert phrases_of(rule)
        for _, fate in rule["expect"]:
            assert isinstance(fate, int) or fate in TEXT_REASONS

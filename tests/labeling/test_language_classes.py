"""Classes of report language in many words each (reading_forms.json): every value ends as a slice or as a reason.

A value with a slice also gives its side. The sentences are made up; those of a class stand together in the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from petground.labeling.extract import extract_findings
from petground.labeling.language.lexicon import load_rules, phrases_of
from petground.labeling.language.mentions import find_mentions
from petground.labeling.language.reach import find_reach, has_suv_words, trigger_words
from petground.labeling.language.sentences import find_sentences
from petground.labeling.language.spelling import corrections
from petground.labeling.language.tokens import Cuts, split_words

ROWS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("reading_forms.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=[str(n) for n in range(len(ROWS))])
def test_form(row: dict[str, Any]) -> None:
    found = [
        [f.suv, f.slice, f.laterality] if f.status == "positive" else [f.suv, f.reason]
        for f in extract_findings(row["text"])
    ]
    assert found == row["expect"], row["text"]


def test_sentences_out_of_reach_hold_no_value() -> None:
    """Looking at all sentences of a report finds the values that looking at those within reach finds."""
    looked_at = count = 0
    for row in ROWS:
        text = (
            "The lungs are clear and without a nodule. " * 5 + f"\n\n{row['text']}\n\n" + "Normal bones elsewhere. " * 9
        )
        sentences = find_sentences(text)
        reach = find_reach(text, sentences)
        near = find_mentions(Cuts(text), sentences, reach)
        everywhere = find_mentions(Cuts(text, split_words(text)), sentences)
        for one, other in zip(near, everywhere, strict=True):
            values = [[(m.start, m.value) for m in found or () if m.kind == "suv"] for found in (one, other)]
            assert values[0] == values[1], row["text"]
        looked_at, count = looked_at + sum(reach), count + len(reach)
    assert 0.05 < looked_at / count < 0.9


def test_every_suv_word_is_noticed() -> None:
    for rule in load_rules("mentions"):
        for phrase in phrases_of(rule) if rule["kind"] == "suv" else ():
            assert has_suv_words(f"Left node, {phrase} 5.2."), phrase
            assert has_suv_words(f"Left node, {phrase.upper()} 5.2."), phrase
    assert not has_suv_words("Left hilar node is stable. No uptake. Subcarinal focus.")
    assert "suvmax" in trigger_words()


def test_spelling_never_changes_a_known_word() -> None:
    wrong = corrections()
    rules = [rule for file in ("mentions", "context", "anatomy") for rule in load_rules(file)]
    known = {word for rule in rules for phrase in phrases_of(rule) for word in phrase.split()}
    assert not known & wrong.keys()
    assert (wrong["rigth"], wrong["lesoin"], wrong["prevously"]) == ("right", "lesion", "previously")
    for word in ("though", "patent", "cold", "axila", "ureteral", "urethral", "ileal", "iliac"):
        assert word not in wrong

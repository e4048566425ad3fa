"""What keeps the reader fast: sentences that tell nothing are not cut, and no shortcut ever hides what is there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petground.labeling import extract_findings
from petground.labeling.language import declared, discourse
from petground.labeling.language.phrases import PhraseIndex
from petground.labeling.language.reading import Reading, read_sentence
from petground.labeling.language.sentences import Sentence, find_sentences
from petground.labeling.language.stream import make_stream
from petground.labeling.language.tokens import Cuts, Words, split_words

REPORT = (
    "FINDINGS: The brain is unremarkable. No hydronephrosis is seen on either side of the body today. "
    "Left hilar node, SUVmax 5.2 on slice 58. The gallbladder, the pancreas and the bowel are quite unremarkable. "
    "Degenerative changes of the spine. A 4 mm nodule is unchanged."
)


def test_sentences_that_tell_nothing_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []

    class Counted(Cuts):
        def within(self, start: int, end: int) -> Words:
            cut.append(self.text[start:end])
            return super().within(start, end)

    monkeypatch.setattr(discourse, "Cuts", Counted)
    (finding,) = extract_findings(REPORT)
    assert (finding.suv, finding.slice, finding.laterality) == (5.2, 58, "left")
    assert set(cut) == {"Left hilar node, SUVmax 5.2 on slice 58."}


BEFORE = "The brain is unremarkable. The bowel is normal. The spleen is enlarged."


@pytest.mark.parametrize(
    ("text", "read", "index"),
    [
        (f"{BEFORE} Right hilar node with SUVmax of 3.1. The spine is normal.", 1, None),
        (f"{BEFORE} It has an SUVmax of 3.1.", 4, None),
        ("PET: image 101. Right hilar mass, SUVmax 9.3.", 2, 101),
        ("Right hilar mass, SUVmax 9.3. It is seen on image 101.", 2, 101),
        ("Left hilar node, slice 58, SUVmax 5.2. Right hilar mass, SUVmax 9.3. The spine is normal.", 2, 58),
    ],
)
def test_only_sentences_that_a_value_may_take_something_from_are_read(
    monkeypatch: pytest.MonkeyPatch, text: str, read: int, index: int | None
) -> None:
    seen: list[str] = []

    def counted(words: Words, sentence: Sentence, *rest: Any) -> Reading:
        seen.append(text[sentence.start : sentence.end])
        return read_sentence(words, sentence, *rest)

    monkeypatch.setattr(discourse, "read_sentence", counted)
    findings = extract_findings(text)
    assert len(seen) == len(set(seen)) == read
    assert findings[0].slice == index


def test_no_words_for_a_model_of_what_is_no_lesion() -> None:
    text = "Left hilar node, SUVmax 5.2 on slice 58, previously 7.4. Liver SUVmax 2.9. Right hilar node, SUVmax 3.1."
    prompts = {f.reason: f.prompt for f in extract_findings(text)}
    assert prompts == {None: "Left hilar node.", "prior": "", "reference": "", "no_slice": "Right hilar node."}


WRITTEN = ("SUVmax", "SUV", "bw-SUV", "max. SUV", "maximal SUV", "SUV-bw (max)", "SUVs", "SUVmax values")
FRAMES = (
    "All values are {}.", "All decimals refer to {}.", "Values in brackets = {}.", "All numbers are given as the {}.",
    "{} is given throughout.", "{} were quoted throughout.", "{} are used.", "{} in parentheses.",
    "{} given in square brackets.",
)  # fmt: skip
TOLD = tuple(frame.format(word) for frame in FRAMES for word in WRITTEN)


def test_the_quick_look_for_declarations_misses_none() -> None:
    found = [text for text in TOLD if declared._DECLARED.search(text)]
    assert len(found) > len(TOLD) // 2
    assert all(declared.declares_values(text) for text in found)


WORD = st.sampled_from(["left", "lower", "lobe", "node", "of", "the"])
PHRASE = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@given(st.sets(PHRASE, min_size=1, max_size=8), st.lists(WORD, max_size=12))
def test_phrases_are_found_longest_first(phrases: set[str], text: list[str]) -> None:
    words = split_words(" ".join(text))
    want, at = [], 0
    while at < len(text):
        size = max(
            (n for n in range(1, 5) if " ".join(text[at : at + n]) in phrases and at + n <= len(text)), default=0
        )
        if size:
            want.append((at, at + size))
        at += max(size, 1)
    found = PhraseIndex([(phrase, "site", "") for phrase in phrases]).find(words, 0, len(text))
    assert [(a, b) for a, b, _ in found] == want


@pytest.mark.parametrize(
    "text", [REPORT, "SUVmax 5.4 (T12), was 7.0 on 3/4/2020; liver 2.1.", "Right [left (node)] 4R"]
)
def test_a_row_knows_the_kinds_of_its_items(text: str) -> None:
    for sentence in find_sentences(text):
        words = split_words(text, (sentence.start, sentence.end))
        row = read_sentence(words, sentence, [], frozenset()).row
        kinds = set(itertools.chain.from_iterable(item.kinds for item in row)) - {"punct"}
        assert row.kinds == kinds
        assert all(row.lacks(kind) != any(item.has(kind) for item in row) for kind in (*kinds, "nothing"))
        assert [item.first for item in row] == sorted(item.first for item in row)


def test_an_empty_row_lacks_everything() -> None:
    assert make_stream(split_words(""), 0, 0, [], [], []).lacks("site", "punct")

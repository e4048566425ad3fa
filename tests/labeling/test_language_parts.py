"""Each component alone: sections, sentences, mentions, context, anatomy, and the cutting of prompts."""

from __future__ import annotations

import re

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.language import build_pipeline, make_prompt, redact, register
from petground.labeling.language.pipeline import COMPONENTS
from petground.labeling.language.sections import find_sections
from petground.labeling.language.sentences import find_sentences
from petground.labeling.language.tokens import split_words


def _sentences(text: str) -> list[str]:
    return [text[s.start : s.end] for s in find_sentences(text)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("INDICATION: a. FINDINGS: b. IMPRESSION: c.", ["indication", "findings", "impression"]),
        ("Findings\nlungs clear\n\nImpression\nnormal", ["findings", "impression"]),
        ("**FINDINGS:**\nx", ["findings"]),
        ("FINDINGS (SUVmax, axial slice):\nx\nCONCLUSION:\ny", ["findings", "impression"]),
        ("Reason for exam: x\nProcedure: y\nPRIOR EXAMS: z", ["indication", "technique", "comparison"]),
        ("The findings are discussed below with care.", [None]),
        ("", []),
    ],
)
def test_sections(text: str, names: list[str | None]) -> None:
    assert [s.name for s in find_sections(text) if text] == names


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            "Nodes, e.g. a right hilar node, are avid. Liver normal.",
            ["Nodes, e.g. a right hilar node, are avid.", "Liver normal."],
        ),
        ("SUV of 5.4. The next.", ["SUV of 5.4.", "The next."]),
        ("SUV max. 5.4 on im. 88 vs. 7.1 before.", ["SUV max. 5.4 on im. 88 vs. 7.1 before."]),
        ("1. Left node.\n2. Right node.", ["Left node.", "Right node."]),
        ("1. Left node. 2. Right node.", ["Left node.", "Right node."]),
        ("• Left node\n• Right node", ["Left node", "Right node"]),
        ("Uptake in the\nleft node of\nSUVmax\n5.4.", ["Uptake in the\nleft node of\nSUVmax\n5.4."]),
        ("Left node SUVmax 5\nRight node SUVmax 6", ["Left node SUVmax 5", "Right node SUVmax 6"]),
        ("Left node.The right node.", ["Left node.", "The right node."]),
        ("Left rib:\nSUVmax 5.0\nslice 126", ["Left rib:\nSUVmax 5.0\nslice 126"]),
        ("SUV max 5.3... slice 226.", ["SUV max 5.3... slice 226."]),
    ],
)
def test_sentences(text: str, want: list[str]) -> None:
    assert _sentences(text) == want


@pytest.mark.parametrize(
    ("text", "values", "slices"),
    [
        ("SUV (max) of 5.4 on slices 60, 64 and 70", [5.4], [60, 64, 70]),
        ("SUVmax 10,3 (slices 60,64)", [10.3], [60, 64]),
        ("3/2/2019 at 10:35: 1.4 x 0.9 cm, 9.7 mCi, PSA 1.9, 35 HU, SUV 2.0", [2.0], []),
        ("Deauville 4, segment 7, T12, L3-4, level 2, 5th rib, F-18, SUVmax 3.1 (3:104)", [3.1], [104]),
        ("SUVmax 5.4 (+2.3), ratio 2.1, MTV 33.1 mL, 38% more, IMA 3-104", [5.4], [104]),
        ("series 3 image 104, se 4 im 51, image 41 of 263, axial 12; SUV 4", [4.0], [104, 51, 41, 12]),
    ],
)
def test_mentions_alone(text: str, values: list[float], slices: list[int]) -> None:
    register()
    nlp = spacy.blank("en")
    nlp.add_pipe("petground_mentions")
    doc = nlp(text)
    assert [m.value for m in doc._.petground_mentions if m.kind == "suv"] == values
    assert [i for m in doc._.petground_mentions if m.kind == "slice" for i in m.indices] == slices
    assert len(doc.spans["petground_suv"]) == len(values)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_component_runs_alone(name: str) -> None:
    register()
    register()
    nlp = spacy.blank("en")
    nlp.add_pipe(name)
    doc = nlp("FINDINGS: Left hilar node, SUVmax 5.4 (slice 104), previously 7.2.")
    assert getattr(doc._, name)


def test_pipeline_is_built_once_and_marks_sentences() -> None:
    assert build_pipeline() is build_pipeline()
    doc = build_pipeline()("Left node, e.g. here. Right node, SUVmax 5.4.")
    assert [str(s).strip() for s in doc.sents] == ["Left node, e.g. here.", "Right node, SUVmax 5.4."]


def test_redact_cuts_by_span_not_by_value() -> None:
    text = "A 5.4 cm mass with SUVmax 5.4 (slice 54) in segment 5."
    start = text.index("SUVmax 5.4")
    spans = [(start, start + 10), (text.index("slice 54"), text.index("slice 54") + 8)]
    assert redact(text, spans) == "A 5.4 cm mass in segment 5."


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Right hilar node with SUVmax of 5.4 (3:104), 1.2 cm.", "Right hilar node, 1.2 cm."),
        ("SUVmax 5.4 in the left axilla, slice 97.", "left axilla."),
        ("the left adrenal nodule", "the left adrenal nodule"),
        ("", ""),
    ],
)
def test_make_prompt(text: str, want: str) -> None:
    assert make_prompt(text) == want


@given(st.text(max_size=200), st.lists(st.tuples(st.integers(-5, 205), st.integers(-5, 205)), max_size=6))
@settings(max_examples=150, deadline=None)
def test_redact_never_raises_and_adds_nothing(text: str, spans: list[tuple[int, int]]) -> None:
    assert set(redact(text, spans)) <= set(text) | {" "}


@given(st.text(alphabet=st.sampled_from("aR1.5, (\n\té²½٣:-/;\u2028\x1c"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_tokens_cover_the_text(text: str) -> None:
    doc = build_pipeline().make_doc(text)
    assert doc.text == text
    words = split_words(text)
    assert re.sub(r"\s", "", text).lower() == "".join(words.lower).replace(" ", "")


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_each_component_alone(name: str) -> None:
    """Any component in a blank pipeline with spaCy's own tokenizer, also over an empty text."""
    nlp = spacy.blank("en")
    nlp.add_pipe(name)
    doc = nlp("FINDINGS: Previously avid left hilar node, e.g. SUVmax 5.2 (7.4 before), slice 58. Liver normal.")
    assert getattr(doc._, name)
    assert doc.text.endswith("normal.")
    assert not getattr(nlp("")._, name) or name in ("petground_sections", "petground_sentences")

"""The spaCy pipeline of the project's own components; each can be added to any pipeline by its name.

>>> nlp = build_pipeline()
>>> doc = nlp("Left hilar node, SUVmax 5.2, slice 58.")
>>> [m.value for m in doc._.petground_mentions if m.kind == "suv"]
[5.2]
"""

from __future__ import annotations

from functools import cache

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from petground.labeling.language.anatomy import anatomy_component
from petground.labeling.language.context import context_component
from petground.labeling.language.mentions import mentions_component
from petground.labeling.language.sections import sections_component
from petground.labeling.language.sentences import sentences_component
from petground.labeling.language.tokens import ReportTokenizer

__all__ = ["COMPONENTS", "build_pipeline", "register"]

COMPONENTS = {
    "petground_sections": sections_component,
    "petground_sentences": sentences_component,
    "petground_mentions": mentions_component,
    "petground_context": context_component,
    "petground_anatomy": anatomy_component,
}


def register() -> None:
    """Makes the components and the Doc extensions known to spaCy; may be called any number of times."""
    for name, component in COMPONENTS.items():
        if not Language.has_factory(name):
            Language.component(name, func=component)
        if not Doc.has_extension(name):
            Doc.set_extension(name, default=[])


@cache
def build_pipeline() -> Language:
    """The pipeline over a blank English vocabulary; made once."""
    register()
    nlp = spacy.blank("en")
    nlp.tokenizer = ReportTokenizer(nlp.vocab)
    nlp.max_length = 1 << 31  # the components' memory is linear in the text; spaCy's limit is for its parser
    for name in COMPONENTS:
        nlp.add_pipe(name)
    return nlp


register()  # `nlp.add_pipe("petground_mentions")` works once the package, or its spaCy entry point, is imported

"""Report language: sections, sentences, SUV and slice mentions, context, anatomy, as spaCy components."""

from __future__ import annotations

from petground.labeling.language.pipeline import build_pipeline, register
from petground.labeling.language.prompts import make_prompt, redact

__all__ = ["build_pipeline", "make_prompt", "redact", "register"]

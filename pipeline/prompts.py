"""What a model may read of a sentence: words, and no SUV or slice that would tell it the answer."""

from __future__ import annotations

import re

__all__ = ["has_words", "leaks"]

_LEAK = re.compile(
    r"\bSUV|\b(?:slices?|images?|img|im)\s*(?:no\.?|number|#|:)?\s*\d|\(\s*\d+\s*[:/]\s*\d+\s*\)", re.IGNORECASE
)


def has_words(prompt: str | None) -> bool:
    """False for a sentence of which nothing to read is left once SUV and slice are cut out."""
    return any(letter.isalpha() for letter in prompt or "")


def leaks(prompt: str) -> bool:
    """True when the words that a model may read still tell an SUV or an axial index."""
    return _LEAK.search(prompt) is not None

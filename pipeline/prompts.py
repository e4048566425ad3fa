"""What a model may read of a sentence: words, and no SUV or slice that would tell it the answer, unless asked for."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["PromptMode", "has_words", "leaks", "with_values"]

PromptMode = Literal["words", "words+suv", "words+slice", "all"]
"""What a model reads of a finding: the words alone, or its SUVmax or slice number or both behind them."""

_LEAK = re.compile(
    r"\bSUV|\b(?:slices?|images?|img|im)\s*(?:no\.?|number|#|:)?\s*\d|\(\s*\d+\s*[:/]\s*\d+\s*\)", re.IGNORECASE
)


def has_words(prompt: str | None) -> bool:
    """False for a sentence of which nothing to read is left once SUV and slice are cut out."""
    return any(letter.isalpha() for letter in prompt or "")


def leaks(prompt: str) -> bool:
    """True when the words that a model may read still tell an SUV or an axial index."""
    return _LEAK.search(prompt) is not None


def with_values(prompt: str, mode: PromptMode, suv: float | None, number: int | None) -> str:
    """The words with the values that the mode gives, in one wording: "left axillary node, SUVmax 5.2, slice 104."

    suv [g/ml] and number (of the slice, as the site counts) come from a table's columns, never from the text, whose own
    have been cut out. A value that is not known is left out; a prompt without words stays as it is.
    """
    values = []
    if mode in ("words+suv", "all") and suv is not None:
        values.append(f"SUVmax {suv:.1f}")
    if mode in ("words+slice", "all") and number is not None:
        values.append(f"slice {number}")
    if not values or not has_words(prompt):
        return prompt
    return ", ".join([prompt.rstrip(" .,;:"), *values]) + "."

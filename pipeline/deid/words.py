"""Words of a text with their places, and the word lists of `rules/words.json`."""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Word", "Words", "folded", "load_rules", "plain_letters", "word_list"]

_WORD = re.compile(r"[^\W\d_]+(?:['’`-][^\W\d_]+)*")


_UNPAIRED = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ß": "ss", "æ": "ae", "ı": "i"})


class Word(NamedTuple):
    """A run of letters; apostrophes and hyphens within belong to it. low: in small letters, without a final 's."""

    start: int
    end: int
    text: str
    low: str

    @property
    def capital(self) -> bool:
        """Begins with a capital letter (al-Hassan counts), or is of a script that has none."""
        return not self.text[0].islower() or any(part[:1].isupper() for part in re.split("['’-]", self.text)[1:])

    @property
    def capitals(self) -> bool:
        """Written in capitals throughout, two letters at least."""
        return len(self.text) > 1 and self.text.isupper()


class Words:
    """The words of a text in order; `first_at(place)` is the index of the first that begins there or later."""

    def __init__(self, text: str) -> None:
        self.all = [Word(m.start(), m.end(), m[0], folded(m[0])) for m in _WORD.finditer(text)]
        self._starts = [word.start for word in self.all]

    def first_at(self, place: int) -> int:
        return bisect_left(self._starts, place)


def folded(text: str) -> str:
    """Small plain letters and apostrophes, without a final 's."""
    low = plain_letters(text.lower()).replace("’", "'").replace("`", "'")
    return low[:-2] if low.endswith("'s") and len(low) > 3 else low


def plain_letters(text: str) -> str:
    """Without accents: é is e, ł is l, ø is o."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text.translate(_UNPAIRED)) if not unicodedata.combining(c))


@cache
def load_rules(name: str) -> dict[str, Any]:
    """A JSON file of the rules folder."""
    found: dict[str, Any] = json.loads(
        files("petground.pipeline.deid").joinpath(f"rules/{name}.json").read_text("utf-8")
    )
    return found


@cache
def word_list(name: str) -> frozenset[str]:
    """A list of `rules/words.json`, folded; what each is for stands there under `about`."""
    return frozenset(map(folded, " ".join(load_rules("words")[name]).split()))

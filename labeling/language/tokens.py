"""Tokens of report text: numbers with their decimals, runs of letters, punctuation; nothing else is one token.

One regular expression without nested repeats, so the time is linear in the text whatever the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate, chain
from unicodedata import normalize

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from petground.labeling.language.spelling import corrections

__all__ = ["Cuts", "ReportTokenizer", "Words", "span_of", "split_words", "words_of"]

_PIECE = re.compile(r"(?:[^\W\d_]+|\d+(?:[.,·‧∙]\d+)?|([^\w\s])\1*|_+|\s+)")
_TOKEN = re.compile(_PIECE.pattern.replace(r"|\s+)", ")"))
# Of ASCII text each sign has a branch of its own: no group to look back at, so all pieces come from one `findall`.
_SIGNS = ".,():-/;" + "".join(c for c in map(chr, range(128)) if c not in ".,():-/;" and re.match(r"[^\w\s]", c))
_ASCII = re.compile(rf"([a-z]+|[0-9]+(?:[.,][0-9]+)?|{'|'.join(re.escape(sign) + '+' for sign in _SIGNS)}|_+)(\s*)")
"""The tokens of lower-case ASCII text, each with the white space behind it; the common signs first."""
_RAISED = re.compile("[·‧∙]")
_KEY = "petground_words"


def _plain(word: str) -> str:
    """SUVₘₐₓ in plain letters, a raised decimal point as a point."""
    if word.isalpha():
        return normalize("NFKC", word)
    return _RAISED.sub(".", word) if word[0].isdecimal() else word


@dataclass
class Words:
    """Lower-case tokens of one text, typing errors mended, without white space, with the characters they stand at.

    start, end: characters, end exclusive.

    token: index of each one among the tokens of the Doc, empty when the Doc was cut by another tokenizer.
    dumps: stretches of tokens that `petground_mentions` found to be no language; later components pass over them.
    """

    text: str
    lower: list[str] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    token: list[int] = field(default_factory=list)
    dumps: list[tuple[int, int]] = field(default_factory=list)

    def at(self, char: int) -> int:
        """Index of the first token that starts at or after the character."""
        return bisect_left(self.start, char)

    def readable(self) -> list[tuple[int, int]]:
        """Stretches of tokens between the dumps."""
        edges = [0, *(edge for dump in self.dumps for edge in dump), len(self.lower)]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def glued(self, index: int) -> bool:
        """Whether a token follows the one before without white space."""
        return index > 0 and self.start[index] == self.end[index - 1]


def split_words(text: str, span: tuple[int, int] | None = None) -> Words:
    """Tokens of a text, or of its characters start..end alone. Never raises."""
    begin, stop = span or (0, len(text))
    piece = text[begin:stop]
    if piece.isascii():
        begin += len(piece) - len(piece.lstrip())
        flat = list(chain.from_iterable(_ASCII.findall(piece.lower().lstrip())))
        edges = list(accumulate(map(len, flat), initial=begin))
        lower, starts, ends = flat[::2], edges[:-1:2], edges[1::2]
    else:
        matches = list(_TOKEN.finditer(text, begin, stop))
        lower = [word if (word := match.group().lower()).isascii() else _plain(word) for match in matches]
        starts, ends = [match.start() for match in matches], [match.end() for match in matches]
    meant = corrections()
    if not meant.keys().isdisjoint(lower):
        lower = [meant.get(word, word) for word in lower]
    return Words(text, lower, starts, ends)


class Cuts:
    """Tokens of parts of a text, cut when asked for; with `whole`, every part is cut already."""

    def __init__(self, text: str, whole: Words | None = None):
        self.text = text
        self._whole = whole
        self._cut: dict[tuple[int, int], Words] = {}

    def within(self, start: int, end: int) -> Words:
        """Tokens that hold those of the characters start..end, to be addressed by `Words.at`."""
        if self._whole is not None:
            return self._whole
        words = self._cut.get((start, end))
        if words is None:
            words = self._cut[start, end] = split_words(self.text, (start, end))
        return words


def _split(text: str, pieces: list[str], spaces: list[bool]) -> Words:
    """Tokens of a text, and what spaCy wants to know of them: the pieces and which are followed by one blank."""
    words = Words(text)
    lower, start, end, token = words.lower, words.start, words.end, words.token
    meant = corrections().get
    for match in _PIECE.finditer(text):
        piece = match.group()
        if piece == " " and pieces and not spaces[-1]:
            spaces[-1] = True
            continue
        if not piece.isspace():
            word = piece.lower()
            if not word.isascii():
                word = _plain(word)
            lower.append(meant(word, word))
            begin, stop = match.span()
            start.append(begin)
            end.append(stop)
            token.append(len(pieces))
        pieces.append(piece)
        spaces.append(False)
    return words


def words_of(doc: Doc) -> Words:
    """Tokens of a Doc, made once: every component reads the same ones. `words_of(doc).text` is the report."""
    words: Words | None = doc.user_data.get(_KEY)
    if words is None:
        words = split_words(doc.text)
        words.token.clear()
        doc.user_data[_KEY] = words
    return words


def span_of(doc: Doc, start: int, end: int, label: str) -> Span | None:
    """The spaCy Span over the characters, None when they hold no token."""
    words = words_of(doc)
    first, last = words.at(start), words.at(end)
    if first >= last:
        return None
    if words.token:
        return Span(doc, words.token[first], words.token[last - 1] + 1, label=label)
    return doc.char_span(start, end, label=label, alignment_mode="expand")


class ReportTokenizer:
    """spaCy tokenizer over the same expression; white space longer than one blank becomes a token of its own."""

    def __init__(self, vocab: Vocab):
        self.vocab = vocab

    def __call__(self, text: str) -> Doc:
        pieces: list[str] = []
        spaces: list[bool] = []
        words = _split(text, pieces, spaces)
        doc = Doc(self.vocab, words=pieces, spaces=spaces)
        doc.user_data[_KEY] = words
        return doc

    def to_bytes(self, **_: object) -> bytes:
        """Nothing to save: the tokenizer has no state."""
        return b""

    def from_bytes(self, _data: bytes, **_kw: object) -> ReportTokenizer:
        """Nothing to load."""
        return self

    def to_disk(self, _path: str, **_: object) -> None:
        """Nothing to save."""

    def from_disk(self, _path: str, **_: object) -> ReportTokenizer:
        """Nothing to load."""
        return self

"""Component `petground_sentences`: sentences that survive "e.g.", decimals, list markers, wrapped lines, dictation.

Results: `doc._.petground_sentences` (a list of Sentence) and sentence starts on the tokens (`doc.sents`).
"""

from __future__ import annotations

import re
import string
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc

from petground.labeling.language.lexicon import word_set
from petground.labeling.language.sections import Section, find_sections
from petground.labeling.language.tables import Cell, Row, find_rows
from petground.labeling.language.tokens import span_of, words_of

__all__ = ["Sentence", "find_sentences", "sentences_component"]

MAX_SENTENCE = 3000
"""Characters; a longer stretch without an end is no language (a dump, a table) and is cut, so time stays linear."""

_ALWAYS_JOIN = word_set(
    "e.g eg i.e ie vs v approx est ca cf dr mr mrs ms prof fig al etc st resp incl excl dx hx s/p w w/o pt no nr "
    "nos im img sl ser lt rt max min avg ant post sup inf lat med seg lobe prev esp bilat mod ax cor sag "
    "transax ext int"
)
_NEVER_BEFORE_CAPITAL = word_set(
    "max min avg lat med ant post sup inf no im img sl mod al etc st ser seg lobe pt w resp ext int"
)
_STOP = re.compile(
    r"[.!?](?:[.!?]*[\"')\]]{0,2}(?=\s|$)|(?<=[a-z0-9)]\.)(?=[A-Z][a-z])|(?<=[!?])[!?]*(?=\S))"
)  # begins with the sign, so that the engine looks at signs only
_MARKER = re.compile(
    r"[ \t]*(?:[-*•·▪◦‣–—>+](?=[ \t\w])|\(?\d{1,2}[.)](?=\s|[A-Za-z])|\(?[a-zA-Z][.)](?=\s)|[ivx]{1,4}[.)](?=\s))[ \t]*"
)
_INLINE_MARKER = re.compile(
    r"\s(?:(?<=[.;]\s)\s{0,2}(?=\(?\d{1,2}[.)]\s{1,2}[A-Z]|\(?\d{1,2}\)\s{1,2}[a-z])|(?=[•▪‣◦]\s?\w))"
)
# What every place of _INLINE_MARKER has; it begins with a sign, few lines have it.
_MAY_HAVE_ITEMS = re.compile(r"[.;•▪‣◦](?:(?<=[.;])\s{1,3}\(?\d|(?<=[•▪‣◦]))")
_DOTTED = re.compile(r"(?:^|\.)[a-z]\.[a-z]$")
_STROKES = re.compile(r" [/|] [^/|\n]+ [/|] ")  # "2R / 9 mm / 4.2 / 80": a row of its own
_SUV_ENDS = re.compile(r"suv[ -]?(?:max(?:imum)?|bw|mean|peak)?$", re.I)
_IN_ABBREVIATION = string.ascii_letters + "./"
_ABBREVIATION = 12  # characters
_CONTINUES = re.compile(
    r"[ \t]*(?:[a-z(\[,;%)&=~/]|\d|(?i:suv|sul\b|max\b|slice|slc|im\b|ima|img|series|axial|coronal|maximum|standardi))"
)
_DANGLING = word_set(
    "of the a an in on with and or at to from by for is was has are which that level levels max suv suvmax slice "
    "image series left right approximately measuring measures than as axial maximum segment bilateral"
)
_LETTERS = string.ascii_letters + string.digits + "_"
_LABEL = re.compile(r"[ \t]*(?:\*\*)?([A-Za-z][^:\n.;=]{1,60}):(?!\d)")
_HAS_VALUE = re.compile(r"\bs\.?u\.?[vl]|uptake value|slice|image\b", re.I)


class Sentence(NamedTuple):
    """start..end: characters without surrounding blanks. section: canonical name.

    line: number of the logical line (list item, paragraph piece) it comes from. label: characters of the heading
    that it stands under ("Right breast:"), which may be its own beginning; group: the heading line above. cells: of
    a row of a table.
    """

    start: int
    end: int
    section: str | None = None
    line: int = 0
    item: bool = False
    label: tuple[int, int] | None = None
    group: tuple[int, int] | None = None
    cells: tuple[Cell, ...] = ()


def find_sentences(text: str, sections: list[Section] | None = None) -> list[Sentence]:
    """Sentences of all sections, in order. Linear in the text; never raises."""
    found: list[Sentence] = []
    number = 0
    for section in sections if sections is not None else find_sections(text):
        group: tuple[int, int] | None = None
        rows = find_rows(text, section.start, section.end)
        for start, end, item in _lines(text, section.start, section.end, rows):
            number += 1
            if isinstance(item, Row):
                if not item.header:
                    a, b = _trimmed(text, start, end)[0]
                    found.append(Sentence(a, b, section.name, number, True, None, group, item.cells))
                continue
            label = _label(text, start, end)
            if (label is not None and not text[label[1] + 1 : end].strip()) or _is_title(text, start, end, item):
                group = (start, end)
                continue
            if label is not None and not item and text[max(start - 2, 0) : start] == "\n\n":
                group = None
            found.extend(Sentence(a, b, section.name, number, item, label, group) for a, b in _split(text, start, end))
    return found


def _lines(text: str, start: int, end: int, rows: list[Row]) -> list[tuple[int, int, bool | Row]]:
    """Logical lines, each with whether it is a list item, and the rows of tables."""
    lines: list[tuple[int, int, bool | Row]] = []
    place = start
    for row in rows:
        lines += _prose(text, place, row.start)
        lines.append((row.start, row.end, row))
        place = row.end
    return lines + _prose(text, place, end)


def _prose(text: str, start: int, end: int) -> list[tuple[int, int, bool | Row]]:
    """Logical lines of a stretch without tables: list items and paragraphs, wrapped lines joined."""
    lines: list[tuple[int, int, bool]] = []
    place, blank = start, True
    stroked = False  # of the line that may go on, whatever its length
    while place < end:
        stop = text.find("\n", place, end)
        stop = end if stop < 0 else stop
        if not text[place:stop].strip():
            blank = True
        else:
            marker = _MARKER.match(text, place, stop)
            strokes = _STROKES.search(text, place, stop) is not None
            both = stroked and strokes
            follows = bool(lines) and not blank and _joins(text, lines[-1][0], lines[-1][1], place, stop, apart=both)
            if follows and marker and _dangles(text[max(lines[-1][1] - 16, lines[-1][0]) : lines[-1][1]]):
                marker = None
            if follows and (marker is None or marker.end() >= stop):
                lines[-1] = (lines[-1][0], stop, lines[-1][2])
                stroked = stroked or strokes
            else:
                stroked = strokes
                begin = marker.end() if marker and marker.end() < stop else place
                lines.append((begin, stop, marker is not None))
            blank = False
        place = stop + 1
    return [piece for line in lines for piece in _inline_items(text, *line)]


def _inline_items(text: str, start: int, end: int, item: bool) -> list[tuple[int, int, bool]]:
    """Reads "1. Left node. 2. Right node." on one line."""
    if _MAY_HAVE_ITEMS.search(text, max(start - 1, 0), end) is None:
        return [(start, end, item)] if not text[start:end].isspace() and start < end else []
    pieces, place = [], start
    for match in _INLINE_MARKER.finditer(text, start, end):
        pieces.append((place, match.start(), item))
        marker = _MARKER.match(text, match.end(), end)
        place, item = (marker.end() if marker else match.end()), True
    pieces.append((place, end, item))
    return [(a, b, i) for a, b, i in pieces if text[a:b].strip()]


def _joins(text: str, first: int, previous_end: int, place: int, stop: int, *, apart: bool) -> bool:
    """Whether the line at `place` goes on with the sentence of the line before. apart: each is a row of strokes."""
    tail = text[max(first, previous_end - 60) : previous_end].rstrip()
    if not tail:
        return False
    ended = tail[-1] in ".!?"
    if ended and not _is_abbreviation(tail[:-1], ""):
        return False
    if _dangles(tail[-16:]) and not tail.endswith(":"):
        return True
    if tail.count("(") > tail.count(")"):
        return True
    if apart:
        return False
    if tail.endswith(":"):
        return bool(_HAS_VALUE.match(text[place:stop].lstrip()))
    return bool(_CONTINUES.match(text, place, stop)) and not _new_label(text, place, stop)


def _dangles(tail: str) -> bool:
    """Whether it ends in a word or sign that something must follow."""
    tail = tail.rstrip()
    return tail.endswith((",", "(", "/", ":", "=", "&", "-")) or tail[len(tail.rstrip(_LETTERS)) :].lower() in _DANGLING


def _new_label(text: str, place: int, stop: int) -> bool:
    label = _LABEL.match(text, place, stop)
    return label is not None and not _HAS_VALUE.search(label.group(1)) and label.group(1)[:1].isupper()


def _split(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Sentences of one logical line."""
    pieces: list[tuple[int, int]] = []
    place = start
    for match in _STOP.finditer(text, start, end):
        at, stop = match.span()
        if stop < end:  # the last full stop of a line ends its last sentence in any case
            after = text[stop : stop + 3].lstrip()
            before = text[max(place, at - 12) : at]
            if text[at] == "." and (_is_abbreviation(before, after) or not before.strip()):
                continue
            if after[:1].isdigit() and _SUV_ENDS.search(before):
                continue  # "SUVmax. 6.2"
            sign = match.group()
            if sign.startswith("..") and after[:1].islower():
                continue
            if sign == "." and before[-1:].isdigit() and after[:1].isdigit() and _dangles(before[:-1]):
                continue
        pieces.append((place, stop))
        place = stop
    pieces.append((place, end))
    return [piece for a, b in pieces for piece in _trimmed(text, a, b)]


def _trimmed(text: str, start: int, end: int) -> list[tuple[int, int]]:
    if end - start <= MAX_SENTENCE:
        piece = text[start:end].lstrip()
        return [(end - len(piece), end - len(piece) + len(piece.rstrip()))] if piece else []
    pieces = []
    while end - start > MAX_SENTENCE:
        cut = text.rfind(", ", start + MAX_SENTENCE // 2, start + MAX_SENTENCE)
        cut = text.rfind(" ", start + MAX_SENTENCE // 2, start + MAX_SENTENCE) if cut < 0 else cut
        cut = start + MAX_SENTENCE if cut < 0 else cut
        pieces.append((start, cut))
        start = cut
    pieces.append((start, end))
    trimmed = []
    for a, b in pieces:
        piece = text[a:b].lstrip()
        if piece:
            trimmed.append((b - len(piece), b - len(piece) + len(piece.rstrip())))
    return trimmed


def _is_abbreviation(before: str, after: str) -> bool:
    before = before.removesuffix("\n")
    written = before[len(before.rstrip(_IN_ABBREVIATION)) :][-_ABBREVIATION:]
    if not written:
        return False
    word = written.lower().strip("/")
    if "." in word and _DOTTED.search(word):
        return not after[:1].isupper() or len(word) < 4  # s.u.v. max, a.p. window
    if len(word) == 1 and word.isalpha() and written.isupper():
        return len(before) > 1 and after[:1].isalpha() and after[:1].isupper()  # initials, "L. hilar"
    if word not in _ALWAYS_JOIN:
        return False
    return after[:2].lower() == "no" or not (after[:1].isupper() and word in _NEVER_BEFORE_CAPITAL)  # "Im. No. 44"


def _label(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Characters of "Right breast:" at the start of a line, unless it holds the value itself."""
    match = _LABEL.match(text, start, end)
    if match is None or _HAS_VALUE.search(match.group(1)):
        return None
    return match.span(1)


def _is_title(text: str, start: int, end: int, item: bool) -> bool:
    """A short line without a full stop, a number or a verb stands as a heading over the lines below."""
    line = text[start:end].strip()
    alone = text[end : end + 1] in ("\n", "")
    return (
        not item
        and alone
        and 2 < len(line) <= 40
        and line[0].isupper()
        and line[-1] not in ".!?,;"
        and not any(c.isdigit() for c in line)
        and not _HAS_VALUE.search(line)
        and len(line.split()) <= 5
    )


def sentences_component(doc: Doc) -> Doc:
    """Splits every section into sentences; uses `petground_sections` when it ran before."""
    words = words_of(doc)
    found = find_sentences(words.text, doc._.petground_sections or None)
    doc._.petground_sentences = found
    starts: NDArray[np.uint64] = np.zeros(len(doc), dtype=np.uint64)
    for sentence in found:
        span = span_of(doc, sentence.start, sentence.end, "")
        if span is not None:
            starts[span.start] = 1
    if len(doc):
        doc.from_array(["SENT_START"], starts)
    return doc

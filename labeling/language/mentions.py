"""Component `petground_mentions`: SUV values, slice indices, sizes, dates and other numbers of each sentence.

Results: `doc._.petground_mentions` (a list of Mention in order) and the span groups `petground_suv`,
`petground_slice`, `petground_size`.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from spacy.tokens import Doc

from petground.labeling.language.indices import find_indices
from petground.labeling.language.mention import Mention, Scan
from petground.labeling.language.quantities import find_dates, find_labelled, find_sizes
from petground.labeling.language.tokens import Words, span_of, words_of
from petground.labeling.language.values import find_values

__all__ = ["find_mentions", "mentions_component", "scan_sentence"]

_SHORT = 6  # tokens; "Image 155." between an SUV and what it was before does not end the talk of it
DENSE = 150
"""Numbers in one sentence beyond which it is a table or a dump."""

_PLAIN = re.compile(
    r"\bsuv[ -]?\(?(?:max|mean|peak)?\)?[ :=]{0,3}(?:of |is )?(\d{1,3}(?:[.,]\d{1,3})?)(?![\d.,]*\d)", re.I
)


def scan_sentence(words: Words, begin: int, stop: int, carried: str = "") -> Scan:
    """Types every number between two tokens; `scan.mentions` in order of their place."""
    scan = Scan(words, begin, stop)
    numbers = sum(1 for word in words.lower[begin:stop] if word[0].isdecimal())
    if numbers > DENSE:
        _scan_dense(scan)
    elif numbers:
        find_dates(scan)
        find_sizes(scan)
        find_indices(scan)
        find_labelled(scan)
        find_values(scan, carried)
        scan.mentions.sort(key=lambda m: (m.first, m.last))
    return scan


def _scan_dense(scan: Scan) -> None:
    """Of a stretch that is no language only the numbers that directly follow an SUV word are kept."""
    words = scan.words
    words.dumps.append((scan.begin, scan.stop))
    for match in _PLAIN.finditer(words.text, words.start[scan.begin], words.end[scan.stop - 1]):
        value = match.group(1).replace(",", ".")
        first, last = words.at(match.start()), words.at(match.end())
        core, fraction = match.span(1), value.partition(".")[2]
        kind = "mean" if "mean" in match.group().lower() else "max"
        scan.mentions.append(
            Mention("suv", *match.span(), first, last, float(value), len(fraction), suv_kind=kind, core=core)
        )


def find_mentions(words: Words, sentences: list[tuple[int, int]]) -> list[Mention]:
    """Mentions of all sentences given as characters; an SUV word carries on into the next sentence."""
    found: list[Mention] = []
    carried = ""
    for start, end in sentences:
        begin, stop = bisect_left(words.start, start), bisect_left(words.start, end)
        scan = scan_sentence(words, begin, stop, carried)
        found.extend(scan.mentions)
        kinds = [m.suv_kind for m in scan.mentions if m.kind in ("head", "suv")]
        short = stop - begin <= _SHORT
        carried = kinds[-1] if kinds else carried if short else ""
    return found


def mentions_component(doc: Doc) -> Doc:
    """Finds the mentions of every sentence, or of the whole text when no sentences were set."""
    sentences = [(s.start, s.end) for s in doc._.petground_sentences] or [(0, len(words_of(doc).text))]
    found = find_mentions(words_of(doc), sentences)
    doc._.petground_mentions = found
    for kind in ("suv", "slice", "size"):
        spans = (span_of(doc, m.start, m.end, kind) for m in found if m.kind == kind)
        doc.spans[f"petground_{kind}"] = [span for span in spans if span is not None]
    return doc

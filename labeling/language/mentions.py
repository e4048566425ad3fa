"""Component `petground_mentions`: SUV values, slice indices, sizes, dates and other numbers of each sentence.

Results: `doc._.petground_mentions` (a list of Mention in order) and the span groups `petground_suv`,
`petground_slice`, `petground_size`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from operator import attrgetter

from spacy.tokens import Doc

from petground.labeling.language.declared import declares_values, takes_bare_values
from petground.labeling.language.indices import find_indices
from petground.labeling.language.legend import find_legend, take_pairs
from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mention import Mention, Scan
from petground.labeling.language.quantities import find_dates, find_labelled, find_sizes
from petground.labeling.language.reach import has_suv_words
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.table_cells import scan_cells
from petground.labeling.language.tokens import Cuts, Words, span_of, split_words, words_of
from petground.labeling.language.values import find_values

__all__ = ["find_mentions", "mentions_component", "scan_sentence"]

_SHORT = 6  # tokens; "Image 155." between an SUV and what it was before does not end the talk of it
_TITLE = 20  # tokens
_VERBS = word_set("is are was were has have shows show demonstrates measured displayed")
DENSE = 150
"""Numbers in one sentence beyond which it is a table or a dump."""

_SHORT_TEXT = 80  # characters, more than _SHORT tokens
_DIGIT = re.compile(r"\d")
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)?")
_PLAIN = re.compile(
    r"\bsuv[ -]?\(?(?:max|mean|peak)?\)?[ :=]{0,3}(?:of |is )?(\d{1,3}(?:[.,]\d{1,3})?)(?![\d.,]*\d)", re.I
)


def scan_sentence(words: Words, begin: int, stop: int, carried: str = "", *, legend: bool = False) -> Scan:
    """Types every number between two tokens; `scan.mentions` in order of their place.

    carried: kind of the SUV word spoken of before. legend: pairs of numbers are a value and its slice.
    """
    scan = Scan(words, begin, stop, listed=legend)
    if not scan.numbers:
        return scan
    dense = len(scan.numbers) > DENSE // 2  # a token of numbers with a raised point holds two
    if dense and len(_NUMBERS.findall(words.text, words.start[begin], words.end[stop - 1])) > DENSE:
        _scan_dense(scan)
    else:
        find_dates(scan)
        find_sizes(scan)
        if legend:
            take_pairs(scan)
        find_indices(scan)
        find_labelled(scan)
        find_values(scan, carried)
        scan.mentions.sort(key=attrgetter("first", "last"))
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


def find_mentions(cuts: Cuts, sentences: list[Sentence], reach: list[bool] | None = None) -> list[list[Mention] | None]:
    """Mentions of each sentence; an SUV word carries on into the next one.

    reach: the sentences that are looked at, the others give None (see `reach`); all of them when it is not given.
    """
    found: list[list[Mention] | None] = [None] * len(sentences)
    carried = ""
    legends = _Legends(cuts.text)
    for n, sentence in enumerate(sentences):
        if reach is not None and not reach[n]:
            carried = ""
            continue
        if _says_nothing(cuts.text, sentence.start, sentence.end, carried=bool(carried)):
            found[n], carried = [], ""
            continue
        words = cuts.within(sentence.start, sentence.end)
        begin, stop = words.at(sentence.start), words.at(sentence.end)
        if sentence.cells:
            found[n] = scan_cells(words, begin, stop, sentence.cells)
            carried = ""
            continue
        legend = legends.covers(sentence, words, begin, stop)
        mentions = scan_sentence(words, begin, stop, legends.kind if legend else carried, legend=legend).mentions
        found[n] = mentions
        kinds = [m.suv_kind for m in mentions if m.kind in ("head", "suv")]
        if kinds and any(m.kind == "suv" and m.link != "head" for m in mentions):
            _scan_back(cuts, sentences, found, n, kinds[0])
        carried = kinds[-1] if kinds else carried if stop - begin <= _SHORT else ""
    return found


def _says_nothing(text: str, start: int, end: int, *, carried: bool) -> bool:
    """Whether start..end has no number and no SUV word, and ends the talk of an SUV: it is not even cut into words."""
    if _DIGIT.search(text, start, end) is not None or has_suv_words(said := text[start:end]):
        return False
    return not carried or len(said.split(None, _SHORT)) > _SHORT


def _scan_back(cuts: Cuts, sentences: list[Sentence], found: list[list[Mention] | None], n: int, kind: str) -> None:
    """Reads "Blood pool: 1.9. Liver: 2.8 (SUVmax).": the labelled numbers just before are SUVs as well."""
    for k in range(n - 1, -1, -1):
        sentence = sentences[k]
        if (
            sentence.cells
            or sentence.end - sentence.start > _SHORT_TEXT
            or any(m.kind in ("head", "suv") for m in found[k] or ())
        ):
            return
        words = cuts.within(sentence.start, sentence.end)
        begin, stop = words.at(sentence.start), words.at(sentence.end)
        if stop - begin > _SHORT or not _labelled(words, begin, stop):
            return
        found[k] = scan_sentence(words, begin, stop, kind).mentions


class _Legends:
    """Which sentences a legend covers: its own, those under its heading; told without numbers, the rest of its section.

    kind: of the SUVs that are told. _held: the section so covered; "" is no section's name.
    """

    def __init__(self, text: str):
        self.kind = "max"
        self._text = text
        self._held: str | None = ""
        self._declared = declares_values(text)

    def covers(self, sentence: Sentence, words: Words, begin: int, stop: int) -> bool:
        """Whether the sentence (tokens begin..stop), its label or the heading above says what its numbers mean."""
        lower = words.lower[begin:stop]
        own = not rule_words("mentions", "suv").isdisjoint(lower)
        text = self._text
        told = any(_title_is_legend(text[slice(*s)]) for s in (sentence.label, sentence.group) if s is not None)
        told = told or (own and find_legend(words, begin, stop))
        numberless = own and _DIGIT.search(self._text, sentence.start, sentence.end) is None
        if numberless and (told or self._heads_a_list(sentence, lower)):
            self._held = sentence.section
        if self._declared and not own:
            told = told or takes_bare_values(self._text, sentence.start, sentence.end, sentence.section)
        return told or self._held == sentence.section

    def _heads_a_list(self, sentence: Sentence, lower: list[str]) -> bool:
        """A line such as "Target lesions (current SUVmax, slice; prior SUVmax)" or "Nodes, SUVmax:"."""
        ends = self._text[max(sentence.end - 1, 0) : sentence.end] or " "
        return len(lower) <= _TITLE and ends in ":)]" and not _VERBS.intersection(lower)


@lru_cache(4096)
def _title_is_legend(title: str) -> bool:
    words = split_words(title)
    return find_legend(words, 0, len(words.lower))


def _labelled(words: Words, begin: int, stop: int) -> bool:
    """Whether it is but a label with a number: "Blood pool: 1.9."."""
    rest = words.lower[begin:stop]
    return ":" in rest and sum(word[0].isdecimal() for word in rest) == 1


def mentions_component(doc: Doc) -> Doc:
    """Finds the mentions of every sentence, or of the whole text when no sentences were set."""
    sentences = doc._.petground_sentences or [Sentence(0, len(words_of(doc).text))]
    words = words_of(doc)
    found = [mention for mentions in find_mentions(Cuts(words.text, words), sentences) for mention in mentions or ()]
    doc._.petground_mentions = found
    for kind in ("suv", "slice", "size"):
        spans = (span_of(doc, m.start, m.end, kind) for m in found if m.kind == kind)
        doc.spans[f"petground_{kind}"] = [span for span in spans if span is not None]
    return doc

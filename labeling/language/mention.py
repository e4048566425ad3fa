"""The record of one mention (an SUV value, a slice, a size ...) and small helpers on tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.tokens import Words

__all__ = ["FREE_NEXT", "Mention", "Scan", "is_integer", "is_number"]

_COUNTING_SIGNS = frozenset("%‰×°^*~'\"")  # "5%", "2×3", "30°"; any other sign leaves the number alone
FREE_NEXT = word_set(
    ". .. ... , ; : ) ] } ( [ / ! ? * - -- – — → -> > and & or vs versus v on in at of to from with the "
    "previously prior formerly before earlier today now currently respectively compared was is are were has "
    "which while whereas but plus series se ser for there it this that each both then if as by than have had "
    "with show shows demonstrate"
)
"""What may follow a bare whole number that stands for an SUV or an index; a noun there means that it counts things."""


@dataclass(slots=True)
class Mention:
    """One typed stretch of text.

    kind: suv | head | slice | series | size | date | number. start, end: characters. first, last: tokens (end
    exclusive). value: SUV [g/ml] or size [mm]. indices: slice numbers as printed. plane: axial | other | "" (not
    said). modality: pet | ct | "". is_range: "slices 102-131". best: named as the one to look at.
    shared: said to be one and the same for several lesions. when: prior | current, where a table's column says so.
    tracer: the one named at the SUV word ("FDG SUVmax"). core: characters of the number itself; `start` may lie before
    it, at its SUV word. warning: key of finding.WARNINGS, of a value that is not simply the number printed.
    """

    kind: str
    start: int
    end: int
    first: int
    last: int
    value: float = 0.0
    decimals: int = 0
    suv_kind: str = ""
    lean: bool = False
    core: tuple[int, int] = (0, 0)
    indices: tuple[int, ...] = ()
    index_spans: tuple[tuple[int, int], ...] = ()
    series: int | None = None
    plane: str = ""
    modality: str = ""
    is_range: bool = False
    best: bool = False
    shared: bool = False
    when: str = ""
    tracer: str = ""
    link: str = ""
    head: int = -1
    warning: str = ""


@dataclass(slots=True)
class Scan:
    """Tokens begin..stop of one sentence and what has been taken so far.

    listed: under a legend or a heading that names the SUV, so that a bare decimal is one. numbers: tokens that are one.
    """

    words: Words
    begin: int
    stop: int
    taken: dict[int, str] = field(default_factory=dict)
    mentions: list[Mention] = field(default_factory=list)
    listed: bool = False
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        lower = self.words.lower
        self.numbers = [i for i in range(self.begin, self.stop) if lower[i][0].isdecimal()]

    def word(self, index: int) -> str:
        """The token, or an empty string outside the sentence."""
        return self.words.lower[index] if self.begin <= index < self.stop else ""

    def glued(self, index: int) -> bool:
        """Whether a token of the sentence follows its predecessor without white space."""
        return self.begin < index < self.stop and self.words.glued(index)

    def take(self, kind: str, first: int, last: int) -> Mention:
        """Marks the tokens as used and returns the mention over them."""
        for index in range(first, last):
            self.taken[index] = kind
        mention = Mention(kind, self.words.start[first], self.words.end[last - 1], first, last)
        self.mentions.append(mention)
        return mention

    def slashed_values(self) -> bool:
        """Whether two decimal numbers stand with a slash between them: "SUVmax 9.0/7.0 on slices 95/101"."""
        return any(
            self.word(i) == "/" and all("." in self.word(k) and is_number(self.word(k)) for k in (i - 1, i + 1))
            for i in range(self.begin + 1, self.stop - 1)
        )

    def free_int(self, index: int) -> bool:
        """A whole number of at most four digits that is not part of anything yet."""
        word = self.word(index)
        return is_integer(word) and len(word) <= 4 and index not in self.taken

    def stands_alone(self, index: int) -> bool:
        """Whether the number is not followed by a unit or a counted noun."""
        after = self.word(index + 1)
        sign = not after[:1].isalnum() and after[:1] not in _COUNTING_SIGNS
        return sign or after in FREE_NEXT or after in rule_words("mentions", "modality")


def is_number(word: str) -> bool:
    """A token that starts with a digit is a whole number or one with a decimal point or comma."""
    return word[:1].isdecimal()


def is_integer(word: str) -> bool:
    """A number token without decimals."""
    return word.isdecimal()

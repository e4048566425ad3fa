"""What a sentence tells of the one before: "It was 9.8, slice 230." is of an earlier exam by "Is 4.5, slice 233."."""

from __future__ import annotations

from petground.labeling.language.reading import Reading

__all__ = ["settle_before"]

_NOW = ("is", "now", "today", "currently", "presently", "it is", "is now", "it is now")


def settle_before(reading: Reading, previous: Reading | None) -> None:
    """Marks "Left ilium: was SUVmax 9.8, slice 230." as earlier before "Is SUVmax 4.5, slice 233."."""
    if previous is None or len(previous.told) != 1 or len(reading.told) != 1 or previous.row.lacks("past"):
        return
    then, told = previous.told[0], reading.told[0]
    opens = any(item.text in _NOW for item in reading.row[:3]) and reading.row.lacks("past")
    same = then.tense.sign == "past" and then.reason in (None, "no_slice") and told.reason in (None, "no_slice")
    if opens and same and told.bare and previous.sentence.section == reading.sentence.section:
        then.reason = "prior"

"""What brackets tell of time: "(8.3 vs 5.0)", "(prior study: image 260, SUVmax 9.0)", "(previously on slice 146)"."""

from __future__ import annotations

from petground.labeling.language.stream import Item

__all__ = ["bracket_of_then", "bracket_without_value", "sets_against", "slice_of_then", "value_in_bracket"]


def sets_against(row: list[Item], index: int) -> bool:
    """Whether a value opens a bracket of two: "than on the previous scan (8.3 vs 5.0)" gives today's first."""
    behind = row[index + 1 : index + 5]
    second = next((k for k, item in enumerate(behind) if "value" in item.kinds), -1)
    return (
        second > 0
        and behind[0].has("versus")
        and behind[second].bracket == row[index].bracket
        and not any(item.has("prior", "current", "date") or item.own for item in behind[:second])
    )


def bracket_of_then(row: list[Item], index: int) -> int:
    """The earlier exam that a value's bracket begins with, "(prior study: image 260, SUVmax 9.0)", or -1."""
    if not row[index].bracket:
        return -1
    inside = [j for j in range(index) if row[j].bracket == row[index].bracket and row[j].text not in ("(", "[")]
    if not inside or any(row[j].has("current") or "value" in row[j].kinds for j in inside):
        return -1
    return next((j for j in inside[:2] if row[j].has("prior", "date")), -1)


def slice_of_then(row: list[Item], index: int, j: int) -> bool:
    """Whether, as in "9.0 on slice 150 (previously on slice 146)", the cue tells of the slice alone."""
    return any(item.has("slice") for item in row[index + 1 : j]) and any(
        item.has("slice") for item in row[j + 1 : j + 4]
    )


def value_in_bracket(row: list[Item], j: int) -> bool:
    for item in row[j + 1 :]:
        if "value" in item.kinds:
            return True
        if item.text in (")", "]"):
            return False
    return False


def bracket_without_value(row: list[Item], closing: int) -> int:
    """How many items before the closing bracket belong to it, 0 when a value stands inside or nothing opens it."""
    for j in range(closing - 1, max(closing - 8, -1), -1):
        if "value" in row[j].kinds:
            return 0
        if row[j].text in ("(", "["):
            return closing - j
    return 0

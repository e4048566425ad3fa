"""What becomes of each DICOM attribute: the table of the standard, the options taken, and what it does not list.

PS3.15 Annex E lists what is known to identify. What it does not list is decided here by value representation: names
and what nobody knows go, dates move, UIDs are mapped, text is searched for what is known, the rest stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

from petground.pipeline.deid.pixel_bytes import PIXEL_ELEMENTS
from petground.pipeline.deid.words import load_rules

__all__ = ["STANDARD", "Action", "action_for"]

Action = Literal[
    "keep", "remove", "empty", "dummy", "uid", "shift", "clean", "search", "pseudonym", "age", "check", "descend",
    "pixels",
]  # fmt: skip

TEXT_VALUE = 0x0040A160  # the text of a content item
TEXT = frozenset(("LO", "SH", "CS", "ST", "LT", "UT", "UC", "UR"))
PSEUDONYMS = frozenset(("PatientID", "PatientName", "AccessionNumber", "StationName", "DeviceSerialNumber"))
"""The table asks for an empty or dummy value; a keyed one also tells patients, studies and scanners apart."""
TEMPORAL: Mapping[str, Action] = {"DA": "shift", "DT": "shift", "TM": "check", "SH": "check"}  # SH: the offset from UTC
PERSONAL_GROUPS = (0x0010, 0x0012, 0x0038)
"""Descriptions of the person, the trial and the stay go, though the option Clean Descriptors would let them stay."""
FIGURES = frozenset(("TM", "DS", "IS"))
"""Written as text, so anything may stand in them: what are no figures goes."""
NARRATIVE = frozenset(("ST", "LT", "UT"))
CHARACTER_SET = 0x00080005  # read before any text can be


@cache
def _table() -> dict[int, tuple[str, str, str]]:
    rows = load_rules("confidentiality")["attributes"]
    return {int(tag, 16): (keyword, basic, options) for tag, keyword, basic, options in rows}


def _standard() -> str:
    return str(load_rules("confidentiality")["standard"])


STANDARD = _standard()


@cache
def action_for(tag: int, vr: str, kept: frozenset[str], structured: bool = False) -> Action:
    """The action for an attribute of a public group with this value representation.

    kept: keywords of patient characteristics that stay. structured: the content of a structured report is walked
    through instead of emptied.
    """
    group = tag >> 16
    if tag & 0xFFFF == 0 or group % 2 or 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return "remove"
    if tag in PIXEL_ELEMENTS:
        return "pixels"
    if tag not in _table():
        return "clean" if structured and tag == TEXT_VALUE else _unlisted(tag, vr)
    keyword, basic, options = _table()[tag]
    if keyword in PSEUDONYMS:
        return "pseudonym"
    if "t" in options:
        return TEMPORAL.get(vr, "remove")
    if "p" in options and keyword in kept:
        return "age" if vr == "AS" else "keep"
    if "d" in options and group not in PERSONAL_GROUPS and vr not in NARRATIVE:
        return "descend" if vr == "SQ" else "clean"
    if keyword == "ContentSequence" and structured:
        return "descend"
    return _basic(basic, vr)


def _basic(basic: str, vr: str) -> Action:
    """Of several actions the one that no object type forbids: type 1 keeps a value, type 2 its place."""
    if basic == "X":
        return "remove"
    if basic == "U":
        return "uid"
    if basic == "X/Z/U*":
        return "descend" if vr == "SQ" else "uid"
    if vr == "SQ":
        return "remove" if "D" in basic and "Z" not in basic else "empty"
    return "dummy" if "D" in basic else "empty"


def _unlisted(tag: int, vr: str) -> Action:
    if vr == "SQ":
        return "descend"
    if vr in ("PN", "AE", "UN", "??", ""):
        return "remove"
    if vr in ("DA", "DT"):
        return "shift"
    if vr == "AS":
        return "age"
    if vr == "UI":
        return "uid"
    if vr in FIGURES:
        return "check"
    if vr in TEXT and tag != CHARACTER_SET:
        return "search"
    return "keep"

"""Private attributes that SUV depends on: kept where their value is what it should be; all other private ones go.

PS3.15 Annex E.3.10 lets private attributes stay that are known to be safe. A date-time is moved like every date, a
factor must be a number, so neither can carry a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from petground.pipeline.deid.dates import shift_dicom_date

__all__ = ["Kept", "put_back", "safe_private"]

BLOCKS = (0x10, 0x11, 0x12)


class Safe(NamedTuple):
    """Group, element in its block, the block's creator, VR and what it tells."""

    group: int
    element: int
    creator: str
    vr: str
    about: str


class Kept(NamedTuple):
    """A safe attribute of a data set with its new value; block is where it lay."""

    safe: Safe
    block: int
    value: str

    @property
    def label(self) -> str:
        """Tag and meaning."""
        return f"({self.safe.group:04X},..{self.safe.element:02X}) {self.safe.about}"


SAFE = (
    Safe(0x0009, 0x0D, "GEMS_PETD_01", "DT", "GE scan date and time"),
    Safe(0x0071, 0x22, "SIEMENS MED PT", "DT", "Siemens decay correction date and time"),
    Safe(0x7053, 0x00, "Philips PET Private Group", "DS", "Philips SUV scale factor"),
    Safe(0x7053, 0x09, "Philips PET Private Group", "DS", "Philips activity concentration scale factor"),
)


def safe_private(dataset: Any, days: int) -> list[Kept]:
    """The safe private attributes, dates moved. Earlier de-identification may have taken their creators away."""
    found = []
    for safe in SAFE:
        base = safe.group << 16
        names = {block: _text(dataset.get_item(base + block)) for block in BLOCKS}
        maker = re.split(r"[ _]", safe.creator)[0][:4]
        blocks = [block for block, name in names.items() if name and name.upper().startswith(maker.upper())]
        if not blocks and names[BLOCKS[0]] is None:
            blocks = [BLOCKS[0]]
        for block in blocks:
            value = _checked(safe, _text(dataset.get_item(base + (block << 8) + safe.element)), days)
            if value is not None:
                found.append(Kept(safe, block, value))
                break
    return found


def put_back(dataset: Any, kept: Sequence[Kept]) -> None:
    """Writes them where they lay, under their creator's name."""
    for safe, block, value in kept:
        dataset.add_new((safe.group, block), "LO", safe.creator)
        dataset.add_new((safe.group, (block << 8) + safe.element), safe.vr, value)


def _checked(safe: Safe, value: str | None, days: int) -> str | None:
    if value is None:
        return None
    if safe.vr == "DS":
        return (
            value
            if re.fullmatch(r"[+-]?\d{0,12}\.?\d{0,12}(?:[eE][+-]?\d{1,3})?", value) and len(value) <= 16
            else None
        )
    if re.fullmatch(r"\d{2,6}(?:\.\d{1,6})?", value):
        return value  # a time of day alone
    return shift_dicom_date(value, days) if re.fullmatch(r"\d{8,14}(?:\.\d{1,6})?(?:[+-]\d{4})?", value) else None


def _text(element: Any) -> str | None:
    """The text of an element as it lies in the file: private ones come as bytes where nobody told their VR."""
    if element is None or element.value is None:
        return None
    value = element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    return str(value).strip("\0 ") or None

"""Where the elements of a DICOM file begin and end, without their meaning: explicit VR, little endian only.

Used for the second and every further file of a series, whose values are known from the first (`elements.Shared`): there
a full reader spends its time on what does not change. Whatever is out of the ordinary is left to pydicom.
"""

from __future__ import annotations

import struct

__all__ = ["HEAD", "Outline", "outline_of"]

HEAD = 1 << 16  # bytes: headers of one plane are a few thousand
PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
LONG_LENGTH = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
EXPLICIT = b"1.2.840.10008.1.2.1"  # Explicit VR Little Endian
_START = struct.Struct("<HH2sH")
_LONG = struct.Struct("<I")

Outline = tuple[dict[int, tuple[bytes, bytes]], int]
"""{tag: (VR, bytes as in the file)} and the offset of the pixel data element."""


def outline_of(head: bytes, wanted: frozenset[int]) -> Outline | None:
    """The wanted elements of a file that begins with `head`; None when it is not of the plain kind or goes beyond it.

    PS3.5 section 7.1.2 (elements with explicit VR), PS3.10 section 7.1 (preamble and file meta information).
    """
    if head[128:132] != b"DICM":
        return None
    found: dict[int, tuple[bytes, bytes]] = {}
    at, before, syntax, end = 132, -1, b"", len(head)
    while at + 12 <= end:
        group, element, kind, length = _START.unpack_from(head, at)
        tag = group << 16 | element
        if tag <= before or group == 0:  # the order is part of the format: something else is going on
            return None
        before = tag
        if group > 2 and syntax != EXPLICIT:
            return None
        if tag == PIXEL_DATA:
            return found, at
        value = at + 8
        if kind in LONG_LENGTH:
            (length,) = _LONG.unpack_from(head, value)
            value += 4
            if length == UNDEFINED:
                return None
        elif not kind.isalpha():
            return None
        at = value + length
        if tag == 0x00020010:
            syntax = head[value:at].rstrip(b"\0 ")
        elif tag in wanted:
            found[tag] = kind, head[value:at]
    return None

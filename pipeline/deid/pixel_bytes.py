"""The pixel data element cut to its frames: what an export wrote behind the image is no image.

Native pixel data have a length that the header tells (PS3.5 section 8.1.1). Encapsulated ones are frames in fragments
(A.4): fragments behind the last frame go, and within a frame what follows its codec's end marker.
"""

from __future__ import annotations

import struct
from typing import Any

from pydicom.encaps import encapsulate, generate_fragments, generate_frames
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLELossless

__all__ = ["PIXEL_ELEMENTS", "cut_to_frames"]

PIXEL_ELEMENTS = {0x7FE00008: ("FloatPixelData", 32), 0x7FE00009: ("DoubleFloatPixelData", 64),
                  0x7FE00010: ("PixelData", 0)}  # fmt: skip
"""Keyword and bits of a sample; 0: as BitsAllocated says."""
END_MARKED = frozenset(
    (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, "1.2.840.10008.1.2.4.201",
     "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
)  # fmt: skip
"""Code streams that end in FFD9: EOI of JPEG (T.81 B.1.1.3) and JPEG-LS, EOC of JPEG 2000 (T.800 A.4.4) and HTJ2K."""
END_MARK = b"\xff\xd9"
OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def cut_to_frames(dataset: Any, tag: int, syntax: str) -> int:
    """Cuts a pixel element in place; how many bytes went.

    Raises KeyError, ValueError or what pydicom raises when the header does not tell the size or fragments are damaged.
    """
    value = bytes(dataset[tag].value or b"")
    if UID(syntax).is_encapsulated:
        return _cut_frames(dataset, tag, value, UID(syntax))
    image = value[: _length(dataset, tag)]
    if value[len(image) :] in (b"", b"\0"):  # an even length is the format's
        return 0
    dataset[tag].value = image + b"\0" * (len(image) % 2)
    return len(value) - len(image)


def _length(dataset: Any, tag: int) -> int:
    """Bytes of native pixel data, without padding."""
    bits = PIXEL_ELEMENTS[tag][1] or int(dataset.BitsAllocated)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1) * samples
    if pixels <= 0 or bits <= 0:
        raise ValueError("no size")
    if str(dataset.get("PhotometricInterpretation", "")).endswith("_422"):
        pixels = pixels // 3 * 2
    return (pixels * bits + 7) // 8


def _cut_frames(dataset: Any, tag: int, value: bytes, syntax: UID) -> int:
    count = int(dataset.get("NumberOfFrames") or 1)
    fragments = list(generate_fragments(value))[1:]  # the first is the offset table
    frames = fragments if syntax == RLELossless else _joined(dataset, value, count)  # RLE: a fragment each, PS3.5 A.4.2
    whole = [frame[: _end(dataset, frame, syntax)] for frame in frames[:count]]
    behind = [frame[len(kept) :] for frame, kept in zip(frames, whole, strict=False)] + frames[count:]
    if not any(rest.strip(b"\0") for rest in behind):
        return 0
    for name in OFFSET_TABLES:
        if name in dataset:
            del dataset[name]
    dataset[tag].value = encapsulate(whole, has_bot=True)
    return sum(map(len, fragments)) - sum(map(len, whole))


def _joined(dataset: Any, value: bytes, count: int) -> list[bytes]:
    tables = [bytes(dataset[name].value) for name in OFFSET_TABLES if name in dataset]
    extended = (tables[0], tables[1]) if len(tables) == len(OFFSET_TABLES) else None
    return list(generate_frames(value, number_of_frames=count, extended_offsets=extended))


def _end(dataset: Any, frame: bytes, syntax: UID) -> int:
    """Where the code stream of a frame ends; its length where its codec has no end that can be found."""
    if syntax in END_MARKED:
        at = frame.rfind(END_MARK)
        return at + len(END_MARK) if at >= 0 else len(frame)
    return _end_of_rle(frame, int(dataset.Rows) * int(dataset.Columns)) if syntax == RLELossless else len(frame)


def _end_of_rle(frame: bytes, pixels: int) -> int:
    """The last segment ends with the byte that completes its plane (PS3.5 G.3 to G.5)."""
    segments, *offsets = struct.unpack_from("<16L", frame)
    at, have = offsets[segments - 1], 0
    while have < pixels and at < len(frame):
        control = frame[at]
        if control < 128:
            at, have = at + 2 + control, have + control + 1
        elif control > 128:
            at, have = at + 2, have + 257 - control
        else:
            at += 1
    return min(at, len(frame))

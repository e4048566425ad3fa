"""Headers of many files, their common part decoded once; where uncompressed pixels lie, so that they are read straight.

A series repeats itself: of fifty attributes a handful differ from slice to slice. pydicom decodes a value in tens of
microseconds, which for a thousand files costs more than reading their pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

__all__ = ["NATIVE_TAGS", "Native", "PlainHeader", "Shared", "read_native"]

T = TypeVar("T")
NATIVE_TAGS = ["BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SpecificCharacterSet"]
PIXEL_DATA = {
    b"\xe0\x7f\x10\x00OW": 12,
    b"\xe0\x7f\x10\x00OB": 12,
}  # explicit VR: tag, VR, 2 bytes, length; PS3.5 7.1.2
OF_ONE_SLICE = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept",
        "AcquisitionTime", "AcquisitionDateTime", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor",
    )
)  # fmt: skip
"""What may differ from slice to slice; `Shared.once` must not be asked for what hangs on it."""


@dataclass(frozen=True)
class Native:
    """Where the pixels of one uncompressed 16-bit plane lie, little endian: offset in the file, and their meaning."""

    offset: int
    signed: bool
    bits: int


class PlainHeader:
    """A header read from a file: `get(keyword)` gives a value, `get(tag)` an element, as pydicom's data sets do."""

    __slots__ = ("elements", "file_meta", "native", "shared")

    def __init__(self, elements: dict[int, Any], file_meta: Any, native: Native | None, shared: Shared) -> None:
        self.elements = elements
        self.file_meta = file_meta
        self.native = native
        self.shared = shared

    def get(self, key: str | int, default: Any = None) -> Any:
        element = self.elements.get(key if isinstance(key, int) else _tag(key))
        if element is None:
            return default
        return element if isinstance(key, int) else element.value


class Shared:
    """What the files of one exam have in common. It lives as long as their scan."""

    def __init__(self) -> None:
        self._elements: dict[tuple[Any, ...], Any] = {}
        self._made: dict[tuple[int, ...], tuple[list[Any], Any]] = {}

    def plain(self, data: Any, stream: BinaryIO) -> PlainHeader:
        """The header of `data`, all values decoded; `stream` is where dcmread stopped. Raises what pydicom raises."""
        raw = {int(tag): data.get_item(tag) for tag in data.keys()}  # noqa: SIM118 - iterating a data set decodes it
        charset = raw.get(0x00080005)
        words = charset.value if isinstance(charset, RawDataElement) else None
        elements = {}
        for tag, element in raw.items():
            value = element.value if isinstance(element, RawDataElement) else _signature(element)
            key = (tag, element.VR, value, words)
            known = self._elements.get(key)
            if known is None:
                known = _worded(element) if tag in OF_ONE_SLICE else None
                known = known or _decoded(data[tag])
                if tag not in OF_ONE_SLICE:
                    self._elements[key] = known
            elements[tag] = known
        header = PlainHeader(elements, data.file_meta, None, self)
        header.native = _native(header, stream)
        return header

    def once(self, header: PlainHeader, make: Callable[[Any], T]) -> T:
        """make(header), made once for all files whose headers differ in OF_ONE_SLICE only."""
        common = [element for tag, element in header.elements.items() if tag not in OF_ONE_SLICE]
        key = tuple(id(element) for element in common)
        if key not in self._made:
            self._made[key] = common, make(header)  # the elements are held, so that no other gets their identity
        made: T = self._made[key][1]
        return made


def read_native(file: Path, native: Native, rows: int, columns: int) -> NDArray[np.uint16] | None:
    """[rows, columns] stored values as they lie in the file, unused bits included; None when the file is too short."""
    pixels = np.fromfile(file, dtype="<u2", count=rows * columns, offset=native.offset)
    return pixels.reshape(rows, columns) if pixels.size == rows * columns else None


class _Text:
    """A value of a text VR, as written; several of them as a list."""

    __slots__ = ("value",)

    def __init__(self, value: str | list[str] | None) -> None:
        self.value = value


def _worded(element: Any) -> _Text | None:
    """Numbers, times and UIDs come as text: what is made of them is decided where they are asked for."""
    if not isinstance(element, RawDataElement) or element.VR not in ("DS", "IS", "TM", "DA", "DT", "UI"):
        return None
    try:
        text = (element.value or b"").decode("ascii").strip("\0 ")
    except UnicodeDecodeError:
        return None
    return _Text(text.split("\\") if "\\" in text else text or None)


def _signature(element: Any) -> tuple[Any, ...] | str:
    """What two equal elements share that pydicom has decoded while it read: sequences, and the character set."""
    if element.VR != "SQ":
        return str(element.value)
    parts: list[Any] = []
    for item in element.value:
        for tag in item.keys():  # noqa: SIM118
            inner = item.get_item(tag)
            parts.append((int(tag), inner.value if isinstance(inner, RawDataElement) else _signature(inner)))
        parts.append(None)
    return tuple(parts)


def _decoded(element: Any) -> Any:
    if element.VR == "SQ":
        for item in element.value:
            item.walk(lambda data, inner: None)  # its values would be decoded later, where nobody expects damage
    return element


def _native(header: PlainHeader, stream: BinaryIO) -> Native | None:
    """None for what needs pydicom's decoders: compressed, 8 or 32 bits, colour, several frames, odd bit places."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    allocated, bits = header.get("BitsAllocated"), header.get("BitsStored")
    if (
        syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        or allocated != 16
        or header.get("HighBit") is None
    ):
        return None
    if not 1 <= int(bits or 0) <= 16 or header.get("HighBit") != bits - 1 or header.get("SamplesPerPixel", 1) != 1:
        return None
    if header.get("NumberOfFrames") not in (None, 1) or header.get("PixelRepresentation") not in (0, 1):
        return None
    start, place = stream.read(12), stream.tell()
    ahead = PIXEL_DATA.get(start[:6], 0) if syntax == ExplicitVRLittleEndian else 8 * (start[:4] == b"\xe0\x7f\x10\x00")
    length = int.from_bytes(start[ahead - 4 : ahead], "little")
    wanted = 2 * int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
    if not ahead or length != wanted:
        return None
    return Native(place - len(start) + ahead, header.get("PixelRepresentation") == 1, int(bits))


_TAGS: dict[str, int] = {}


def _tag(keyword: str) -> int:
    tag = _TAGS.get(keyword)
    if tag is None:
        found = tag_for_keyword(keyword)
        tag = _TAGS[keyword] = -1 if found is None else int(found)
    return tag

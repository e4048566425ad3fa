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

from petground.pipeline.dicom.outline import outline_of

__all__ = ["NATIVE_TAGS", "Native", "PlainHeader", "Shared", "read_native"]

T = TypeVar("T")
NATIVE_TAGS = ["BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SpecificCharacterSet"]
PIXEL_DATA = {
    b"\xe0\x7f\x10\x00OW": 12,
    b"\xe0\x7f\x10\x00OB": 12,
}  # explicit VR: tag, VR, 2 bytes, length; PS3.5 7.1.2
CHARSET = 0x00080005
TEXTS = frozenset((b"DS", b"IS", b"TM", b"DA", b"DT", b"UI"))
OF_ONE_SLICE = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept",
        "AcquisitionTime", "AcquisitionDateTime", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor",
    )
)  # fmt: skip
"""What may differ from slice to slice; `Shared.once` must not be asked for what depends on it."""


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
        self._seen: dict[tuple[Any, ...], Any] = {}
        self._meta: Any = None

    def quick(self, head: bytes, wanted: frozenset[int]) -> PlainHeader | None:
        """The header of a file that begins with `head`, when all that it has beyond OF_ONE_SLICE was met before."""
        outline = outline_of(head, wanted) if self._seen else None
        if outline is None:
            return None
        raw, at = outline
        charset = raw.get(CHARSET)
        elements = {}
        for tag, (kind, value) in raw.items():
            if tag in OF_ONE_SLICE:
                element: Any = _text_of(value) if kind in TEXTS else None
            else:
                element = self._seen.get((tag, kind, value, charset))
            if element is None:
                return None
            elements[tag] = element
        header = PlainHeader(elements, self._meta, None, self)
        header.native = _native(header, head[at : at + 12], at)
        return header

    def learn(self, head: bytes, wanted: frozenset[int], header: PlainHeader) -> None:
        """Remembers the elements of a header that pydicom has read, by their bytes."""
        outline = outline_of(head, wanted)
        if outline is None or set(outline[0]) != set(header.elements):
            return
        self._meta = header.file_meta
        charset = outline[0].get(CHARSET)
        for tag, (kind, value) in outline[0].items():
            if tag not in OF_ONE_SLICE:
                self._seen[tag, kind, value, charset] = header.elements[tag]

    def plain(self, data: Any, stream: BinaryIO) -> PlainHeader:
        """The header of `data`, all values decoded; `stream` is where dcmread stopped. Raises what pydicom raises."""
        raw = {int(tag): data.get_item(tag) for tag in data.keys()}  # noqa: SIM118 - iterating a data set decodes it
        words = None if CHARSET not in raw else str(raw[CHARSET].value)
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
        at = stream.tell()
        header.native = _native(header, stream.read(12), at)
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
    if not isinstance(element, RawDataElement) or (element.VR or "").encode() not in TEXTS:
        return None
    return _text_of(element.value or b"")


def _text_of(value: bytes) -> _Text | None:
    if not value.isascii():
        return None
    text = value.decode("ascii").strip("\0 ")
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


def _native(header: PlainHeader, start: bytes, at: int) -> Native | None:
    """From the first bytes of the pixel data element, which begins at `at`.

    None for what needs pydicom's decoders: compressed, 8 or 32 bits, colour, several frames, odd bit places.
    """
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
    ahead = PIXEL_DATA.get(start[:6], 0) if syntax == ExplicitVRLittleEndian else 8 * (start[:4] == b"\xe0\x7f\x10\x00")
    length = int.from_bytes(start[ahead - 4 : ahead], "little")
    wanted = 2 * int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
    if not ahead or length != wanted:
        return None
    return Native(at + ahead, header.get("PixelRepresentation") == 1, int(bits))


_TAGS: dict[str, int] = {}


def _tag(keyword: str) -> int:
    tag = _TAGS.get(keyword)
    if tag is None:
        found = tag_for_keyword(keyword)
        tag = _TAGS[keyword] = -1 if found is None else int(found)
    return tag

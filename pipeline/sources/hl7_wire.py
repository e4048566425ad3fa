"""HL7 v2 messages out of files: batches, MLLP framing, any line ends, compressed or not."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from petground.labeling.errors import InputError

__all__ = ["messages"]

_START = re.compile(rb"MSH[^\w\s]")
_ENVELOPE = re.compile(rb"(?:FHS|BHS|BTS|FTS)[^\w\s]")  # file and batch headers and trailers (HL7 2.10.3)
_FRAME = b"\x0b\x1c\x00"  # MLLP: <VT> message <FS><CR>
CHUNK = 1 << 20


def messages(file: Path) -> Iterator[list[bytes] | InputError]:
    """The segments of each message, read as a stream; an InputError last when the file cannot be read to its end.

    Segments end in CR by the standard, in LF or CR LF in files that went through an editor.
    """
    message: list[bytes] = []
    try:
        with closing(_open(file)) as stream:
            for line in _lines(stream):
                if _START.match(line):
                    if message:
                        yield message
                    message = [line]
                elif _ENVELOPE.match(line):
                    if message:
                        yield message
                    message = []
                elif message:
                    message.append(line)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "it breaks off"
        yield InputError(f"{file.name} cannot be read: {why}", fix="export it again")
        return
    if message:
        yield message


def _open(file: Path) -> IO[bytes]:
    stream = _plain(file)
    start = stream.read(3)
    stream.seek(0)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with closing(stream):
            return io.BytesIO(stream.read().decode("utf-16", "replace").encode("utf-8", "replace"))
    if start == codecs.BOM_UTF8:
        stream.seek(3)
    return stream


def _plain(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[return-value]


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(CHUNK):
        *whole, rest = (rest + chunk.replace(b"\n", b"\r")).split(b"\r")
        yield from filter(None, (line.strip(_FRAME) for line in whole))
    if rest.strip(_FRAME):
        yield rest.strip(_FRAME)

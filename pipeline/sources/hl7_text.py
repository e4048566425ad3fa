"""The text of an HL7 v2 result: character sets, escape sequences, and OBX segments joined to a report.

In a text value the marks for components and subcomponents mean nothing, and senders do not always escape them; so
OBX-5 is cut at the field separator, which every sender escapes, and no further (HL7 2.5.1, 2.A.74 TX, 2.A.31 FT).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from petground.pipeline.sources.richtext import Unreadable, decode, decode_base64, to_text

__all__ = ["Observation", "decoded", "report_text", "unescaped"]

# MSH-18, HL7 table 0211, to Python's codecs. Latin-1 is read as Windows-1252, which is what is meant by it.
_CHARSETS = {
    "ASCII": "ascii", "8859/1": "cp1252", "8859/2": "iso8859-2", "8859/3": "iso8859-3", "8859/4": "iso8859-4",
    "8859/5": "iso8859-5", "8859/6": "iso8859-6", "8859/7": "iso8859-7", "8859/8": "iso8859-8", "8859/9": "iso8859-9",
    "8859/15": "iso8859-15", "ISO IR6": "ascii", "ISO IR14": "iso2022_jp", "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_2", "GB 18030-2000": "gb18030", "KS X 1001": "euc_kr", "BIG-5": "big5",
    "UNICODE": "utf-8", "UNICODE UTF-8": "utf-8", "UTF-8": "utf-8", "UTF8": "utf-8", "ISO-8859-1": "cp1252",
    "WINDOWS-1252": "cp1252",
}  # fmt: skip

_TEXT_TYPES = frozenset(["TX", "FT", "ST", ""])
_CODED = frozenset(["CE", "CWE", "CNE"])
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")

# What OBX-3 calls a part of the report: the suffixes of HL7 2.5.1, 7.1.4, LOINC parts, and plain names.
_SECTIONS = (
    ("IMPRESSION", r"&IMP\b|\b19005-8\b|\bimpression\b|\bconclusion\b"),
    ("ADDENDUM", r"&ADT\b|\b55107-7\b|\baddend"),
    ("FINDINGS", r"\b59776-5\b|\bfindings?\b"),
    ("TECHNIQUE", r"&TCM\b|\b55111-9\b|\btechnique\b"),
    ("COMPARISON", r"\b18834-2\b|\bcomparison\b"),
    ("HISTORY", r"\b11329-0\b|\bhistory\b|\bindication\b"),
)


@dataclass(frozen=True)
class Observation:
    """One OBX: value type, identifier, text pieces (repetitions), embedded data, and its status (OBX-11)."""

    value_type: str
    identifier: str
    lines: tuple[str, ...]
    status: str
    embedded: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Sequence[str], separator: str, marks: str, charset: str) -> Observation:
        """From an OBX segment cut at its field separator."""
        padded = [*fields, *[""] * 12]
        value_type, value = padded[2].strip().upper(), padded[5]
        status = padded[11].strip().upper()[:1]
        if value_type in ("ED", "RP"):
            parts = value.split(marks[0], 4)
            if len(parts) == 5 and parts[3].strip().upper() == "A":  # text as it is, so escaped like any other
                parts[4] = unescaped(parts[4], separator, marks, charset)
            return cls(value_type, padded[3], (), status, tuple(parts))
        if value_type in _CODED:  # code^text^...: an impression may be written as a row of diagnoses
            coded = [[*piece.split(marks[0]), ""][:2] for piece in value.split(marks[1])]
            said = (unescaped(text or code, separator, marks, charset) for code, text in coded)
            return cls(value_type, padded[3], tuple(line for line in said if line.strip(' "')), status)
        if value_type not in _TEXT_TYPES or value.strip() == '""':
            return cls(value_type, padded[3], (), status)
        lines = (unescaped(piece, separator, marks, charset) for piece in value.split(marks[1]))
        return cls(value_type, padded[3], tuple(lines), status)

    @classmethod
    def note(cls, text: str) -> Observation:
        """A comment (NTE) on the OBX before it."""
        return cls("NTE", "", (text,), "F")


def decoded(raw: Sequence[bytes]) -> tuple[list[str], str]:
    """Segments as text by the character set of MSH-18, and that set's codec for `\\X..\\` escapes.

    A line that starts no segment goes on with the one before: exports break long lines.
    """
    separator = raw[0][3:4]
    fields = raw[0].split(separator)
    first = fields[17].split(fields[1][1:2] or b"~")[0] if len(fields) > 17 else b""
    stated = first.decode("ascii", "replace").strip().upper()
    codec = _CHARSETS.get(stated, "")
    charset = None if codec == "ascii" else codec or None
    mark = separator.decode("latin-1")
    marks = fields[1].decode("latin-1") if len(fields) > 1 else ""
    escape = marks[2:3] or "\\"
    lines: list[str] = []
    for segment in raw:
        line = decode(segment, charset)
        if lines and not (_SEGMENT.match(line) and line[3:4] in (mark, "")):
            lines[-1] += f"{escape}.br{escape}{line}"
        else:
            lines.append(line)
    return lines, charset or "cp1252"


def unescaped(text: str, separator: str, marks: str, charset: str) -> str:
    """Escape sequences (HL7 2.5.1, 2.7) as what they stand for; what is no sequence stays: "L4\\L5" is a text."""
    escape = marks[2:3] or "\\"
    if escape not in text:
        return text
    values = {"F": separator, "S": marks[0:1], "R": marks[1:2], "E": escape, "T": marks[3:4], "P": marks[4:5] or "#"}

    def meant(found: re.Match[str]) -> str:
        code = found.group(1)
        if code in values:
            return values[code]
        if code[0] == "X":
            return decode(bytes.fromhex(code[1:]), charset)
        if code[0] == ".":
            count = min(int(code[3:] or 1), 200) if code[3:].lstrip("+-").isdigit() or not code[3:] else 1
            return {"br": "\n", "sp": "\n", "ce": "\n", "sk": " "}.get(code[1:3], "") * max(count, 1)
        return ""  # highlighting, character-set switches, local ones

    return _sequences(escape).sub(meant, text)


@lru_cache
def _sequences(escape: str) -> re.Pattern[str]:
    mark = re.escape(escape)
    hexadecimal = r"X(?:[0-9A-Fa-f]{2})+|C[0-9A-Fa-f]{4}|M[0-9A-Fa-f]{4,6}"
    commands = r"\.(?:br|sp|in|ti|fi|nf|sk|ce)[+-]?\d{0,4}"
    return re.compile(rf"{mark}([HNFSTREP]|{hexadecimal}|Z\w{{0,20}}|{commands}){mark}")


def report_text(observations: Sequence[Observation], notes: Sequence[str]) -> str:
    """The report: text values in order, a heading where OBX-3 names a part; embedded documents where there is none.

    Raises Unreadable when all there is is a document that is not read (PDF), or a pointer to one.
    """
    blocks: list[tuple[str | None, list[str]]] = []
    said = None
    for item in observations:
        if item.lines and item.value_type != "NTE" and item.identifier != said:
            said = item.identifier
            name = _section(said)
            if name is not None and (not blocks or name != blocks[-1][0]):
                blocks.append((name, []))
        if item.lines:
            if not blocks:
                blocks.append((None, []))
            blocks[-1][1].extend(item.lines)
    text = _joined(blocks)
    if text.strip():
        return text
    problem: Unreadable | None = None
    documents = []
    for item in observations:
        if not item.embedded:
            continue
        try:
            documents.append(_document(item))
        except Unreadable as error:
            problem = error
    if documents:
        return "\n\n".join(documents)
    if problem is not None:
        raise problem
    return "\n".join(notes)


def _joined(blocks: Sequence[tuple[str | None, list[str]]]) -> str:
    """Parts under their names; one that the text before holds already (the impression, sent twice) is left out."""
    lines: list[str] = []
    for name, part in blocks:
        words = " ".join(" ".join(part).split())
        if name is not None and words and words in " ".join(" ".join(lines).split()):
            continue
        if name is not None and not re.match(rf"\W*{name}", part[0], re.I):
            lines.append(f"{name}:")
        lines.extend(part)
    return "\n".join(lines)


def _section(identifier: str) -> str | None:
    return next((name for name, words in _SECTIONS if re.search(words, identifier, re.I)), None)


def _document(item: Observation) -> str:
    """ED: source^type^subtype^encoding^data. RP: a pointer to what lies elsewhere."""
    if item.value_type == "RP":
        raise Unreadable("report_is_link", "the message points to the report (OBX-2 RP) but does not hold it")
    _, kind, subtype, encoding, data = [*item.embedded, *[""] * 5][:5]
    encoding = encoding.strip().upper()
    if encoding == "HEX":
        try:
            content = bytes.fromhex(data)
        except ValueError:
            raise Unreadable("unreadable", "the embedded report is not valid hexadecimal") from None
    elif encoding == "A":
        content = data.encode("utf-8", "replace")
    else:
        content = decode_base64(data)
    subtype = subtype.strip().lower()
    known = {"html": "text/html", "rtf": "text/rtf", "pdf": "application/pdf", "x-hl7-cda-level-one": "text/xml"}
    return to_text(content, known.get(subtype) or (kind.strip() if "/" in kind else "text/plain"))

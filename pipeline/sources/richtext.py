"""Reports that come as HTML, RTF or encoded text, as the plain text that was meant."""

from __future__ import annotations

import base64
import binascii
import re
from html.parser import HTMLParser

__all__ = ["PDF", "Unreadable", "decode_base64", "html_to_text", "to_text"]

PDF = "report_is_pdf"
_BLOCKS = frozenset(
    [
        *("address", "article", "blockquote", "br", "caption", "dd", "div", "dl", "dt", "figure", "footer", "header"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "section"),
        *("table", "tbody", "tfoot", "thead", "tr", "ul"),
    ]
)
_BINARY = (b"PK\x03\x04", b"\xff\xd8\xff", b"\x89PNG", b"II*\x00", b"MM\x00*")  # zip (docx), JPEG, PNG, TIFF
_HIDDEN = frozenset(["head", "script", "style", "title", "template"])
_VOID = frozenset(["br", "hr"])


class Unreadable(Exception):  # noqa: N818 -- it is caught where it is raised for, and becomes a row
    """This form of a report is not read: reason code and message for the row. Never carries content."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)
        self.problem = (reason, message)


def to_text(content: bytes, media_type: str) -> str:
    """Bytes of a report, said to be of `media_type` (RFC 2045, with or without charset), as text.

    What the bytes start with decides before what they are called: systems label RTF as text and PDF as octets.
    Raises Unreadable for PDF, XML documents, images and what is no text.
    """
    kind, _, parameters = media_type.partition(";")
    kind = kind.strip().lower()
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"%PDF") or kind == "application/pdf":
        raise Unreadable(PDF, "the report is a PDF; have it exported as text, HTML or RTF")
    if start.startswith(b"{\\rtf"):
        return _rtf(content)
    if kind.startswith(("image/", "audio/", "video/")) or start.startswith(
        (b"PK\x03\x04", b"\xff\xd8\xff", b"\x89PNG")
    ):
        raise Unreadable("report_not_text", f"the report is {kind or 'no text'}; only text, HTML and RTF are read")
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters, re.I)
    text = decode(content, charset.group(1) if charset else None)
    head = text[:1024].lstrip("\ufeff \t\r\n").lower()
    if kind in ("text/html", "application/xhtml+xml") or head.startswith(("<!doctype html", "<html", "<div", "<body")):
        return html_to_text(text)
    if kind.endswith("xml") or head.startswith("<?xml"):
        raise Unreadable("report_is_xml", "the report is an XML document; only text, HTML and RTF are read")
    if "\x00" in text[:4096]:
        raise Unreadable("report_not_text", f"the report is {kind or 'binary'}; only text, HTML and RTF are read")
    return text


def decode(content: bytes, charset: str | None) -> str:
    """As stated; else, or where that fails, UTF-8 and then Windows-1252, which reads any Latin-1 too."""
    bom = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for name in (charset, "utf-16" if bom else None, "utf-8-sig"):
        if name:
            try:
                return content.decode(name)
            except (LookupError, ValueError):  # of UnicodeError's family, or a codec that gives no text
                continue
    return content.decode("cp1252", "replace")


def decode_base64(data: str) -> bytes:
    """Raises Unreadable when it is not base64. White space is let through, FHIR allows it."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("unreadable", "the embedded report is not valid base64") from None


def _rtf(content: bytes) -> str:
    from striprtf.striprtf import rtf_to_text

    source = content.decode("latin-1")  # RTF is 7-bit; other characters are escaped in it
    try:
        return str(rtf_to_text(source, errors="replace"))
    except Exception:  # whatever it chokes on, the message would quote the report
        raise Unreadable("unreadable", "the embedded RTF is damaged") from None


def html_to_text(source: str) -> str:
    """Visible text: a line per block element, table cells apart by a tab, white space as a browser shows it."""
    reader = _Html()
    try:
        reader.feed(source)
        reader.close()
    except (AssertionError, ValueError, RecursionError):  # what html.parser raises on malformed declarations
        raise Unreadable("unreadable", "the embedded HTML is damaged") from None
    return reader.text()


class _Html(HTMLParser):
    """Collects lines. Parsing is the standard library's; it mends broken markup as browsers do."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[list[str]] = [[]]
        self.hidden = 0
        self.verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self.hidden += 1
        self.verbatim += tag == "pre"
        if tag in _BLOCKS:
            self._break(always=tag in _VOID)
        elif tag in ("td", "th") and any(part.strip() for part in self.lines[-1]):
            self.lines[-1].append("\t")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._break(always=tag in _VOID)

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        if tag == "pre":
            self.verbatim = max(0, self.verbatim - 1)
        if tag in _BLOCKS and tag not in _VOID:
            self._break(always=False)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.verbatim:
            first, *rest = data.splitlines() or [""]
            self.lines[-1].append(first)
            self.lines.extend([line] for line in rest)
            if data.endswith("\n"):
                self.lines.append([])
        else:
            self.lines[-1].append(re.sub(r"[ \t\r\n\f\xa0]+", " ", data))

    def _break(self, *, always: bool) -> None:
        if always or any(part.strip() for part in self.lines[-1]):
            self.lines.append([])

    def text(self) -> str:
        lines = (re.sub(r" *\t[ \t]*", "\t", re.sub(r" {2,}", " ", "".join(line))).strip() for line in self.lines)
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

"""The review pages from a server of this machine: made when asked for, decisions taken in at once.

It is for one department's few reviewers, on the standard library's server. Who does not know the secret word in the
address gets nothing, not even from the same machine.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from petground.labeling.errors import ConfigError, PetgroundError
from petground.labeling.site import Site
from petground.pipeline.decided import decisions_of
from petground.pipeline.review.decisions import add_decisions, parse_decisions
from petground.pipeline.review.load import Work
from petground.pipeline.review.pack import exam_entry, exam_page, stamp_of
from petground.pipeline.review.page import file_name, render_index
from petground.pipeline.review.verdict import verdicts_of

__all__ = ["Desk", "desk_server"]

LONGEST = 8 << 20  # bytes of one saving: ten thousand decisions


class Desk:
    """What the server answers: the index, an exam's page, and what becomes of decisions."""

    def __init__(self, work: Work, site: Site):
        self.work, self.site, self.stamp = work, site, stamp_of(work)
        self._exams = {f"{file_name(str(e['exam_id']))}.html": e for e in work.exams}
        self._lock = threading.Lock()  # pages take memory, decisions one file: one at a time

    def page(self, name: str) -> str | None:
        """HTML of a page by its file name, None when there is none. Raises PetgroundError when it cannot be made."""
        verdicts = verdicts_of(decisions_of(self.work.folder))  # anew: another reader may have decided since
        if name in ("", "index.html"):
            rows = [exam_entry(self.work, exam, verdicts) for exam in self._exams.values()]
            for entry, file in zip(rows, self._exams, strict=True):
                entry["href"] = file if entry["findings"] or entry["excluded"] else None
            return render_index(rows, version=self.stamp.version, exported=self.stamp.exported, served=True)
        if name not in self._exams:
            return None
        exam = self._exams[name]
        with self._lock:
            return exam_page(self.work, exam, exam_entry(self.work, exam), self.site, self.stamp, verdicts)[0]

    def save(self, body: str) -> dict[str, int]:
        """Takes decisions (a JSON object a line) into WORK/decisions.csv. Raises SchemaError: then nothing is taken."""
        known = ((str(r["exam_id"]), str(r["finding_id"])) for r in self.work.findings)
        new = parse_decisions(body, Path("saved.jsonl"), known)
        with self._lock:
            added, merged = add_decisions(self.work.folder / "decisions.csv", new)
        return {"added": len(added), "total": len(merged)}


@contextmanager
def desk_server(desk: Desk, host: str, port: int) -> Iterator[tuple[ThreadingHTTPServer, str]]:
    """Yields the server, not serving yet, and the address to open. Raises ConfigError when it cannot listen there."""
    word = secrets.token_urlsafe(16)
    try:
        server = ThreadingHTTPServer((host, port), partial(_Handler, desk, word))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error})", fix="choose another --port, or 0") from error
    server.daemon_threads = True
    try:
        yield server, f"http://{host}:{server.server_address[1]}/{word}/index.html"
    finally:
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, desk: Desk, word: str, *args: object):
        self.desk, self.word = desk, word
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = self._name()
        if name is None:
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain", "not found")
        try:
            page = self.desk.page(name)
        except PetgroundError as error:
            return self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"no page: {error}")
        except Exception as error:  # a fault of ours with one exam: said, and the server goes on
            return self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"no page: {type(error).__name__}")
        if page is None:
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain", "not found")
        return self._answer(HTTPStatus.OK, "text/html", page)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self._name() != "decisions":
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain", "not found")
        if not length.isdecimal() or int(length) > LONGEST:
            return self._refuse("the decisions are too many for one saving")
        try:
            saved = self.desk.save(self.rfile.read(int(length)).decode("utf-8"))
        except (PetgroundError, UnicodeDecodeError) as error:
            return self._refuse(f"not saved: {error}")
        except OSError as error:
            return self._refuse(f"not saved: {error.strerror}")
        except Exception as error:  # whatever it is, the reviewer must be told that nothing was kept
            return self._refuse(f"not saved: {type(error).__name__}")
        return self._answer(HTTPStatus.OK, "application/json", json.dumps(saved))

    def _name(self) -> str | None:
        """What is asked for behind the secret word; None without it."""
        _, word, *rest = [*unquote(urlsplit(self.path).path).split("/"), "", ""]
        right = secrets.compare_digest(word.encode(), self.word.encode())
        return "/".join(rest).rstrip("/") if right else None

    def _refuse(self, why: str) -> None:
        self._answer(HTTPStatus.BAD_REQUEST, "application/json", json.dumps({"error": why}))

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")  # the address is the key
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the address holds the secret word and exam ids."""

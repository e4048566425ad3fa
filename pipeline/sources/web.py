"""A DICOMweb server: how it is reached, what is tried again, and what its errors mean to a user.

Requests and their parsing are `dicomweb_client`'s (DICOM PS3.18). Its errors quote URLs, which hold accession
numbers, and its log lines do too: neither gets out of here.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient

from petground.labeling.errors import ConfigError, InputError

__all__ = ["PASSWORD", "Server", "Stopped", "attempt", "check", "connect", "first", "server"]

T = TypeVar("T")
PASSWORD = "PETGROUND_DICOMWEB_PASSWORD"
LONGEST_WAIT_S = 60.0
CHUNK = 1 << 18  # bytes between two looks at the clock; what broke off within one is lost
_AGAIN = frozenset([408, 425, 429, 500, 502, 503, 504])
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Stopped(Exception):  # noqa: N818 -- the user pressed Ctrl-C; no error
    """The run is over: nothing more is to be tried."""


@dataclass(frozen=True)
class Server:
    """url: of the DICOMweb root. secret: bearer token, or (user, password). retries: after the first try."""

    url: str
    secret: str | tuple[str, str] | None = None
    ca: Path | None = None
    timeout_s: float = 60.0
    retries: int = 4

    @property
    def exposed(self) -> bool:
        """Whether the secret goes over the network readable to all."""
        parts = urlsplit(self.url)
        return self.secret is not None and parts.scheme == "http" and parts.hostname not in _LOCAL


class _Bearer(requests.auth.AuthBase):
    """As an auth object, not a header: `requests` would put the .netrc entry of the host in its place."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def server(
    url: str, *, user: str | None, token_env: str | None, ca: Path | None, timeout_s: float, retries: int
) -> Server:
    """A server from what the command line says; secrets come from the environment. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        named = False
    if not named:
        raise ConfigError("--url is no http(s) address", fix="e.g. https://pacs.example/dicom-web")
    if parts.username or parts.password:
        raise ConfigError("--url holds a password", fix=f"give --user and put the password into {PASSWORD}")
    if user and token_env:
        raise ConfigError("--user and --token-env are both given", fix="give one")
    if ca is not None and not ca.is_file():
        raise ConfigError(f"no certificate file at {ca}", fix="a PEM file with the hospital's certificate authority")
    if retries < 0 or timeout_s <= 0:
        raise ConfigError("--retries and --timeout-seconds must be positive")
    secret: str | tuple[str, str] | None = None
    if user:
        secret = (user, _environment(PASSWORD, f"the password of {user}"))
    elif token_env:
        secret = _environment(token_env, "the access token")
    return Server(url.rstrip("/"), secret, ca, timeout_s, retries)


def _environment(name: str, what: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"the environment variable {name} is empty", fix=f"put {what} into it")
    return value


def connect(where: Server) -> Any:
    """A client for one thread: its session is not safe to share. Without --user, ~/.netrc is asked."""
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
    session = requests.Session()
    if where.secret is not None:
        session.auth = _Bearer(where.secret) if isinstance(where.secret, str) else where.secret
    session.hooks["response"].append(_require_end)
    if where.ca is not None:
        session.verify = str(where.ca)
    timeout = (min(20.0, where.timeout_s), where.timeout_s)
    # Permissive: archives hold UIDs with leading zeros or too many characters, and these exams are wanted too.
    client = DICOMwebClient(where.url, session=session, timeout=timeout, chunk_size=CHUNK, permissive_uid=True)
    client.set_http_retry_params(retry=False)  # tried again here: it would not do so for a broken connection
    return client


def _require_end(response: Any, **_: Any) -> None:
    """Makes a multipart answer that lacks its closing delimiter (RFC 2046, 5.1.1) fail where it breaks off.

    Orthanc, for one, ends such an answer by closing the connection: a server that dies looks just the same, and its
    last image would be taken for whole.
    """
    kind = response.headers.get("Content-Type", "")
    boundary = re.search(r'boundary="?([^";]+)', kind)
    framed = "Content-Length" in response.headers or "chunked" in response.headers.get("Transfer-Encoding", "")
    if not kind.lower().startswith("multipart/") or boundary is None or framed:
        return  # of a framed answer urllib3 sees itself that it is cut
    end, read = f"--{boundary.group(1).strip()}--".encode(), response.iter_content

    def checked(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        tail = b""
        for chunk in read(*args, **kwargs):
            tail = (tail + chunk)[-len(end) - 64 :]
            yield chunk
        if end not in tail:
            raise requests.exceptions.ChunkedEncodingError("no closing delimiter")

    response.iter_content = checked


def attempt(
    where: Server, stop: threading.Event, call: Callable[[], T], progressed: Callable[[], Any] | None = None
) -> T:
    """`call()`, tried again with growing waits while the network or the server fails.

    progressed: a count that shows whether the failed try brought something; then trying starts over. Raises
    InputError with reason `unreachable`, `not_allowed` or `server_error`, Stopped once `stop` is set.
    """
    tries, before = 0, progressed() if progressed else None
    while True:
        if stop.is_set():
            raise Stopped
        try:
            return call()
        except InputError as error:
            if error.reason != "broken_off":
                raise
            failure = InputError(error.message, fix="run again: what is there is kept", reason="unreachable")
        except requests.RequestException as error:
            failure, again = _failure(error)
            if not again:
                raise failure from None
        if progressed is not None and progressed() != before:
            tries, before = 0, progressed()
        tries += 1
        if tries > where.retries:
            raise failure
        wait = min(LONGEST_WAIT_S, 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)
        if stop.wait(wait):
            raise Stopped


def _failure(error: requests.RequestException) -> tuple[InputError, bool]:
    """What an error of `requests` means, without the URL that its text quotes; and whether to try again."""
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        fix = f"--user with {PASSWORD}, --token-env, or ~/.netrc; {status} is the server's answer"
        return InputError("the server does not let us in", fix=fix, reason="not_allowed"), False
    if status is not None:
        fault = InputError(f"the server answers {status}", fix="see the server's log", reason="server_error")
        return fault, status in _AGAIN
    if isinstance(error, requests.exceptions.SSLError):
        message = "the server's certificate is not trusted"
        return InputError(message, fix="give the hospital's authority with --ca", reason="unreachable"), False
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return InputError(
            "the server's answer is no DICOM JSON", fix="is --url the DICOMweb root?", reason="server_error"
        ), False
    if isinstance(error, requests.Timeout):
        return InputError("the server does not answer in time", fix="--timeout-seconds", reason="unreachable"), True
    return InputError("the server cannot be reached", fix="check --url and the network", reason="unreachable"), True


def check(where: Server) -> None:
    """Asks for one study, to know before the work starts that address and secret are right. Raises InputError."""
    try:
        attempt(where, threading.Event(), lambda: connect(where).search_for_studies(limit=1))
    except (ValueError, KeyError):
        raise InputError("the server's answer is no DICOM JSON", fix="is --url the DICOMweb root?") from None


def first(item: Any, tag: str) -> str | None:
    """The first value of a tag ("0020000D") in a DICOM JSON object, as text; None when there is none."""
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    value = values[0] if isinstance(values, list) and values else None
    return str(value).strip() or None if isinstance(value, (str, int, float)) else None

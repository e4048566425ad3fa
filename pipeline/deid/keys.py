"""The secret key of a release, and what is derived from it: ids, UIDs, days by which a patient's dates are moved.

All is HMAC-SHA256 (RFC 2104) of the value under the key: the same value gives the same result all over the export and
in a later one under the same key; without the key it can be neither reversed nor tried out. There is no table to lose.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import uuid
from pathlib import Path

from petground.labeling.errors import ConfigError, InputError

__all__ = ["KEY_BYTES", "days_shift", "keyed_id", "keyed_uid", "new_key", "read_key"]

KEY_BYTES = 32
ID_BYTES = 10
"""80 bits, 16 characters of base32: among a million ids two are alike with a chance of 4e-13 (n^2 / 2^81)."""
REGISTERED = "1.2.840.10008."  # UIDs that the DICOM standard itself defines: classes, transfer syntaxes, CIDs
WEEKS = (52, 520)  # dates move back by one to ten years, in whole weeks: weekdays stay what they were


def new_key(path: Path) -> None:
    """Writes a new random key to `path`, readable by its owner alone. Raises InputError when something is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(
            f"{path} is there already", fix="a new key would give every patient another id; take another name"
        ) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(KEY_BYTES) + "\n")


def read_key(path: Path) -> bytes:
    """The key in `path`. Raises InputError when it is missing or no key, ConfigError when others may read it."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(4096)
    except OSError as error:
        raise InputError(
            f"the key {path} cannot be read: {error.strerror}",
            fix="make one: petground deidentify --new-key --key FILE",
        ) from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others may read the key {path}", fix=f"chmod 600 {path}, and think about who has read it")
    key = b""
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(content.decode("ascii", errors="replace").strip())
    if len(key) < KEY_BYTES:
        raise InputError(
            f"{path} holds no key: {2 * KEY_BYTES} hex digits are expected",
            fix="make one: petground deidentify --new-key --key FILE",
        )
    return key


def keyed_id(key: bytes, value: str, *, prefix: str = "") -> str:
    """Prefix and 16 characters a-z2-7 for `value`: the same under the same key and prefix, else unrelated."""
    return prefix + base64.b32encode(_digest(key, f"id/{prefix}", value)[:ID_BYTES]).decode("ascii").lower()


def keyed_uid(key: bytes, uid: str) -> str:
    """A UID for `uid`, 2.25 and a UUID of version 8 (PS3.5 B.2, RFC 9562): at most 44 characters, 122 keyed bits.

    UIDs of the DICOM standard itself stay; so does an empty one.
    """
    plain = uid.strip("\0 ")
    if not plain or plain.startswith(REGISTERED):
        return plain
    number = int.from_bytes(_digest(key, "uid", plain)[:16], "big")
    number = number & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62
    return f"2.25.{uuid.UUID(int=number).int}"


def days_shift(key: bytes, patient: str) -> int:
    """Days by which all dates of a patient move, negative: one to ten years back in whole weeks."""
    first, last = WEEKS
    number = int.from_bytes(_digest(key, "days", patient)[:8], "big")
    return -7 * (first + number % (last - first + 1))


def _digest(key: bytes, domain: str, value: str) -> bytes:
    """Each use has a domain of its own: a date shift tells nothing of an id made from the same value."""
    return hmac.new(key, f"petground/{domain}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

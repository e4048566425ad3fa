"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["write_bytes"]


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, folders made as needed; a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

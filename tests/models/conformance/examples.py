"""Small options for each registered block, so that the suite can build it: key -> options. A missing key means {}."""

from __future__ import annotations

from typing import Any

ATTENTION: dict[str, dict[str, Any]] = {}
TOKEN_REDUCTION: dict[str, dict[str, Any]] = {}
MIXER: dict[str, dict[str, Any]] = {}

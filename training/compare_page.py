"""The comparison as one HTML page: a table, and the intervals drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from petground.pipeline.files import write_bytes

__all__ = ["write_page"]

GROUPS = ("tracer", "size", "uptake", "laterality", "site")


def write_page(path: Path, table: Mapping[str, Any]) -> None:
    """Writes the page of `compare.json`'s table; it needs no network and no other file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure
    environment.filters["p"] = lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"
    groups = {name: list(dict.fromkeys(v for row in table["rows"] for v in row["by"].get(name, {}))) for name in GROUPS}
    page = environment.get_template("compare.html").render(table=table, groups={k: v for k, v in groups.items() if v})
    write_bytes(path, page.encode("utf-8"))


def _figure(estimate: Mapping[str, Any] | float | None, sign: bool = False) -> str:
    if estimate is None:
        return "–"
    if isinstance(estimate, float):
        return f"{estimate:.2f}"
    if estimate["value"] is None:
        return "–"
    form = "+.2f" if sign else ".2f"
    value = format(estimate["value"], form)
    return value if estimate["low"] is None else f"{value} ({estimate['low']:{form}} to {estimate['high']:{form}})"

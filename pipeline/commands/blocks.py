"""`petground blocks`: what a config can name."""

from __future__ import annotations

import importlib
import json as to_json
from typing import Any

from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError

__all__ = ["blocks"]


def blocks(slot: str | None = None, json: bool = False) -> int:
    """List every registered block: its name in YAML, its slot, the paper behind it, what it costs and serves.

    Args:
        slot: only this slot, e.g. fusion.
        json: print JSON instead of a table.
    """
    # By name: the command line is where the rooms meet, `pipeline` itself imports no networks.
    try:
        rows: list[dict[str, Any]] = importlib.import_module("petground.models.registry").list_blocks(slot)
    except ValueError as error:  # the registry's own kind; it names the slots there are
        raise ConfigError(str(error)) from error
    console = Console()
    if json:
        console.print(to_json.dumps(rows, indent=1), highlight=False, markup=False, soft_wrap=True)
        return 0
    table = Table()
    columns = ("slot", "key", "paper", "cost", "patterns", "summary")
    for column in columns:
        table.add_column(column)
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        table.add_row(*(" ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells))
    console.print(table)
    return 0

"""Tables written row by row: a few thousand rows in memory, all of the tables whole or none of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from petground.pipeline.schemas import TABLES, table_from_rows

__all__ = ["table_writers"]

ROW_GROUP = 4096  # rows; of findings a few megabytes

Add = Callable[[str, Mapping[str, Any]], None]


@contextmanager
def table_writers(paths: Mapping[str, Path]) -> Iterator[Add]:
    """Yields `add(table, row)`; the Parquet files of `paths` {table: file} appear together when the context ends well.

    Raises SchemaError for a column that the table does not have.
    """
    parts = {name: path.with_name(f".{path.name}.{uuid.uuid4().hex}.part") for name, path in paths.items()}
    held: dict[str, list[Mapping[str, Any]]] = {name: [] for name in paths}
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context(pq.ParquetWriter(part, TABLES[name])) for name, part in parts.items()}

            def flush(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
                if rows:
                    files[name].write_table(table_from_rows(name, rows))
                held[name] = []

            def add(name: str, row: Mapping[str, Any]) -> None:
                held[name].append(row)
                if len(held[name]) >= ROW_GROUP:
                    flush(name, held[name])

            yield add
            for name, rows in held.items():
                flush(name, rows)
        for name, part in parts.items():
            os.replace(part, paths[name])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)

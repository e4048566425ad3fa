"""Rows of a report export with every column that it has: the others than ours may hold names to look for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.report_files import report_rows
from petground.pipeline.reports import Export, Report

__all__ = ["rows_of"]


def rows_of(export: Export) -> Iterator[tuple[Report, Mapping[str, Any]]]:
    """Each report with its row as it stands in the file. Raises InputError where the file cannot be read."""
    yield from zip(export, _rows(export.path), strict=True)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix.lower() != ".parquet":
        yield from report_rows(path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError):
        raise InputError(f"{path.name} is not a readable Parquet file", fix="export it again") from None

"""What reports deny without a value, as rows of denials.parquet: one per place that a sentence names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from petground.pipeline.prompts import leaks
from petground.pipeline.schemas import read_table

__all__ = ["denial_rows", "read_denials"]


def denial_rows(parts: Mapping[str, Sequence[Path]]) -> Iterator[dict[str, Any]]:
    """Rows of an export's shards (`extraction.Extracted.parts`), in its order; by exam sentences are d001, d002, ...

    Left out are sentences that tell an SUV or a slice: here, not in the shards, which change with the reader alone.
    """
    for paths in parts.values():
        for path in paths:
            numbers: Counter[str] = Counter()
            for row in pq.read_table(path, columns=["exam_id", "denial"], partitioning=None).to_pylist():
                if row["denial"] is None:
                    continue
                told = json.loads(row["denial"])
                if leaks(told["prompt"]):
                    continue
                numbers[row["exam_id"]] += 1
                for site, side in told["places"]:
                    yield {
                        "exam_id": row["exam_id"],
                        "denial_id": f"d{numbers[row['exam_id']]:03d}",
                        **{name: told[name] for name in ("sentence", "section", "prompt")},
                        "site": site,
                        "laterality": side,
                    }


def read_denials(work: Path) -> list[dict[str, Any]]:
    """Rows of WORK/denials.parquet; none where an earlier release, which wrote no such table, labelled."""
    path = work / "denials.parquet"
    return read_table(path, "denials") if path.is_file() else []

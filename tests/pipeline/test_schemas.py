"""Tables: unknown columns, other versions and half-written files are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from petground.labeling.errors import InputError, SchemaError
from petground.pipeline.schemas import TABLES, read_table, write_table


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [{"exam_id": "e1", "finding_id": "f001", "suv": 5.25, "slice": 104, "uncertain": False}]
    write_table(tmp_path / "findings.parquet", "findings", rows)
    (back,) = read_table(tmp_path / "findings.parquet", "findings")
    assert {k: back[k] for k in rows[0]} == rows[0]
    assert back["reason"] is None
    assert list(back) == TABLES["findings"].names
    assert [p.name for p in tmp_path.iterdir()] == ["findings.parquet"]


def test_the_columns_that_users_hold_on_to_come_first() -> None:
    design = "exam_id finding_id sentence section suv slice laterality site status reason"
    assert TABLES["findings"].names[:10] == design.split()
    design = (
        "exam_id finding_id sentence suv_reported slice_reported suv_measured slice_measured voxel_i voxel_j voxel_k "
        "volume_ml confidence mask_path"
    )
    assert TABLES["labels"].names[:13] == design.split()


def test_unknown_columns_and_wrong_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="suvmax"):
        write_table(tmp_path / "t.parquet", "findings", [{"suvmax": 5.0}])
    with pytest.raises(SchemaError, match="findings"):
        write_table(tmp_path / "t.parquet", "findings", [{"slice": "one hundred"}])
    assert list(tmp_path.iterdir()) == []


def test_another_version_or_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, "labels", [])
    with pytest.raises(SchemaError, match=r"labels version 1, this release reads findings version 2"):
        read_table(path, "findings")
    old = TABLES["findings"].with_metadata({"petground.table": "findings", "petground.version": "1"})
    pq.write_table(pa.table({name: [] for name in old.names}, schema=old), path)
    with pytest.raises(SchemaError, match="run `petground label` again"):
        read_table(path, "findings")
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a readable"):
        read_table(path, "findings")
    with pytest.raises(InputError, match="no table"):
        read_table(tmp_path / "none.parquet", "findings")

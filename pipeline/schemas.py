"""The tables that go from room to room: one Arrow schema per table, with a version that is checked on read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from petground.labeling.errors import InputError, SchemaError
from petground.pipeline.files import write_bytes

__all__ = ["TABLES", "read_table", "table_from_rows", "write_table"]

VERSION = "1"  # of a table that names no other
_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


def _schema(name: str, columns: Mapping[str, pa.DataType], version: str = VERSION) -> pa.Schema:
    return pa.schema(list(columns.items()), metadata={"petground.table": name, "petground.version": version})


TABLES: dict[str, pa.Schema] = {
    # one row per exam of the export, also those that failed
    "exams": _schema(
        "exams",
        {
            "exam_id": _TEXT,
            "patient_id": _TEXT,  # the export's, else DICOM's PatientID, else the exam's own id
            "tracer": _TEXT,  # of the export, else of the DICOM header
            "study_date": _TEXT,
            "scanner": _TEXT,  # "maker / model / station" of the DICOM header, or as the report export says
            "status": _TEXT,  # ok | failed
            "reason": _TEXT,
            "detail": _TEXT,  # the error's message; never report text
            "source": _TEXT,  # dicom | nifti
            "pet_path": _TEXT,  # relative to WORK; SUVbw
            "ct_path": _TEXT,  # relative to WORK; HU on its own grid; null without CT
            "suv_rule": _TEXT,  # how SUVbw was reached, e.g. "BQML/START"
            "suv_factor": _REAL,  # SUVbw per stored unit, where it is one number
            "pet_series": _TEXT,  # which series was chosen and which were refused, with why
            "ct_series": _TEXT,
            "slices": _INT,
        },
    ),
    # one row per SUV mention of every report
    "findings": _schema(
        "findings",
        {
            "exam_id": _TEXT,
            "finding_id": _TEXT,
            "sentence": _TEXT,
            "section": _TEXT,
            "suv": _REAL,
            "slice": _INT,
            "laterality": _TEXT,
            "site": _TEXT,
            "status": _TEXT,  # positive: it has a label | excluded | failed
            "reason": _TEXT,  # null when positive
            "stage": _TEXT,  # which stage decided: extract, ingest, match, contour, check
            "detail": _TEXT,
            "prompt": _TEXT,  # the sentence with SUV and slice mentions cut out by span
            "suv_decimals": _INT,
            "suv_kind": _TEXT,
            "uncertain": _FLAG,
            "span_start": _INT,
            "span_end": _INT,
            "series": _INT,  # "series 3" of "series 3, image 104"; null where the report names none
        },
        version="2",
    ),
    # one row per place that a sentence without a value denies: "No avid axillary or hilar nodes." is two
    "denials": _schema(
        "denials",
        {
            "exam_id": _TEXT,
            "denial_id": _TEXT,  # of the sentence
            "sentence": _TEXT,
            "section": _TEXT,
            "prompt": _TEXT,  # the sentence, with its heading where only that tells the place
            "site": _TEXT,
            "laterality": _TEXT,
        },
    ),
    # one row per finding with a mask
    "labels": _schema(
        "labels",
        {
            "exam_id": _TEXT,
            "finding_id": _TEXT,
            "sentence": _TEXT,
            "suv_reported": _REAL,
            "slice_reported": _INT,
            "suv_measured": _REAL,
            "slice_measured": _INT,
            "voxel_i": _INT,
            "voxel_j": _INT,
            "voxel_k": _INT,
            "volume_ml": _REAL,
            "confidence": _REAL,
            "mask_path": _TEXT,  # relative to WORK
            "prompt": _TEXT,
            "laterality": _TEXT,
            "site": _TEXT,
            "tracer": _TEXT,
            "patient_id": _TEXT,
            "method": _TEXT,
            "why": _TEXT,  # the reason for the method
            "threshold": _REAL,
            "warnings": _TEXT,
            "provenance": _TEXT,  # JSON: versions, keys and rule that made it
        },
    ),
    # candidates of every positive mention, the chosen one first; review offers the others
    "candidates": _schema(
        "candidates",
        {
            "exam_id": _TEXT,
            "finding_id": _TEXT,
            "rank": _INT,
            "voxel_i": _INT,
            "voxel_j": _INT,
            "voxel_k": _INT,
            "suv": _REAL,
            "score": _REAL,
            "slice_distance": _INT,
            "evidence": _TEXT,  # JSON
        },
    ),
    # exams that look like one exam filed twice, found when a data set is exported; a row per pair
    "duplicates": _schema(
        "duplicates",
        {
            "exam_a": _TEXT,
            "exam_b": _TEXT,
            "patient_a": _TEXT,
            "patient_b": _TEXT,
            "across_patients": _FLAG,
            "evidence": _TEXT,  # same_series, same_voxels, similar_image, similar_report
            "similarity": _REAL,
            "kept": _TEXT,  # both, in one part of the split, or the exam that --drop-duplicates kept
        },
    ),
    # what a language model read, one row per pair; a sentence without pairs is one row without suv
    "second_reading": _schema(
        "second_reading",
        {
            "exam_id": _TEXT,
            "report_hash": _TEXT,
            "sentence_start": _INT,
            "sentence_end": _INT,
            "suv": _REAL,
            "slice": _INT,
            "answered": _FLAG,  # false: the answer was cut off
            "model": _TEXT,
            "revision": _TEXT,
        },
    ),
    # the phantom's own truth, one row per lesion
    "truth": _schema(
        "truth",
        {
            "exam_id": _TEXT,
            "lesion_id": _TEXT,
            "site": _TEXT,
            "laterality": _TEXT,
            "suv_max": _REAL,  # of the PET as written
            "slice": _INT,  # from the head, from 1, on the PET grid
            "voxel_i": _INT,
            "voxel_j": _INT,
            "voxel_k": _INT,
            "diameter_mm": _REAL,
            "volume_ml": _REAL,
            "reported": _FLAG,  # the report states its SUVmax and slice
            "sentence": _TEXT,
            "mask_path": _TEXT,  # relative to the phantom folder
            "touches": _TEXT,  # organ or lesion it touches
        },
    ),
}


def table_from_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of the named schema; absent keys are null. Raises SchemaError for unknown columns."""
    schema = TABLES[name]
    rows = list(rows)
    unknown = sorted({key for row in rows for key in row} - set(schema.names))
    if unknown:
        raise SchemaError(f"table '{name}' has no column {', '.join(unknown)}")
    columns = {field: [row.get(field) for row in rows] for field in schema.names}
    try:
        return pa.table(columns, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaError(f"table '{name}': {error}") from error


def write_table(path: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes Parquet under a temporary name, then renames: a reader sees the old table or the new one, never half."""
    content = pa.BufferOutputStream()
    pq.write_table(table_from_rows(name, rows), content)
    write_bytes(path, content.getvalue().to_pybytes())


def read_table(path: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a table written by `write_table`. Raises InputError when missing, SchemaError on another version."""
    if not path.is_file():
        raise InputError(f"no table at {path}", fix="run `petground label` first, or check the folder")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file", fix="delete it and run the stage again") from error
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    found = (metadata.get("petground.table"), metadata.get("petground.version"))
    version = TABLES[name].metadata[b"petground.version"].decode()
    if found != (name, version):
        raise SchemaError(
            f"{path} holds table {found[0]} version {found[1]}, this release reads {name} version {version}",
            fix="run `petground label` again with this release",
        )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows

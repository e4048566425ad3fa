"""A folder that Hugging Face `datasets` loads by `load_dataset(path)`: metadata.parquet and NIfTI files per part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from petground.pipeline.exports.layout import CaseFiles, Layout, Release, lesion_row
from petground.pipeline.files import write_bytes

__all__ = ["LAYOUT", "front_matter"]

PARTS = {"train": "train", "val": "validation", "test": "test"}
TEXT, REAL, WHOLE = pa.string(), pa.float64(), pa.int64()
COLUMNS: dict[str, pa.DataType] = {
    # `datasets` turns `x_file_name` into a column `x` of NIfTI images, found relative to the table
    "pet_file_name": TEXT,
    "ct_file_name": TEXT,
    "mask_file_name": TEXT,
    "sentence": TEXT,
    "case": TEXT,
    "finding": TEXT,
    "patient": TEXT,
    "tracer": TEXT,
    "site": TEXT,
    "laterality": TEXT,
    "suv_reported": REAL,
    "suv_measured": REAL,
    "slice_reported": WHOLE,
    "volume_ml": REAL,
    "confidence": REAL,
}


def _files(case: str, split: str, findings: Sequence[str], ct: bool) -> CaseFiles:
    folder = f"{PARTS[split]}/{case}"
    return CaseFiles(
        pet=f"{folder}/pet.nii.gz",
        ct=f"{folder}/ct.nii.gz" if ct else None,
        masks={f: f"{folder}/{f}.nii.gz" for f in findings},
    )


def _index(release: Release) -> list[str]:
    written = []
    for split, part in PARTS.items():
        rows: list[dict[str, Any]] = []
        for case in release.of(split):
            for number, lesion in enumerate(case.exam.lesions):
                paths = {
                    "pet_file_name": case.files.pet,
                    "ct_file_name": case.files.ct,
                    "mask_file_name": case.files.masks[lesion.finding_id],
                }
                inside = {k: str(PurePosixPath(p).relative_to(part)) if p else None for k, p in paths.items()}
                rows.append(inside | lesion_row(case, number))
        if rows:
            content = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(COLUMNS.items()))), content)
            write_bytes(release.root / part / "metadata.parquet", content.getvalue().to_pybytes())
            written.append(f"{part}/metadata.parquet")
    return written


def front_matter(release: Release, extra: Mapping[str, Any] | None = None) -> str:
    """The YAML head of README.md that tells `datasets` and the Hub where the parts are and what this is."""
    parts = [part for split, part in PARTS.items() if release.of(split)]
    head: dict[str, Any] = {
        "pretty_name": "petground PET/CT sentences and lesions",
        "license": "other",
        "license_name": release.options.licence,
        "language": ["en"],
        "task_categories": ["image-segmentation"],
        "tags": ["medical", "PET/CT", "nuclear medicine", "visual grounding", "weak labels", "nifti"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": part, "path": f"{part}/**"} for part in parts]}
        ],
        **(extra or {}),
    }
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---\n"


LAYOUT = Layout(
    words=True,
    upright=False,
    only_ct=False,
    files=_files,
    index=_index,
    indices=tuple(f"{part}/metadata.parquet" for part in PARTS.values()),
    about='load_dataset("DIR") gives a row per sentence with its PET, CT and mask as NIfTI images',
)

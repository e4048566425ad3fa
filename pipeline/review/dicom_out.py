"""SEG and SR of one exam's labels, beside its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petground.labeling.volume import Volume
from petground.pipeline.dicom.objects import Finding3D, read_source
from petground.pipeline.dicom.write import write_objects
from petground.pipeline.edited import DRAWN
from petground.pipeline.review.judge import title
from petground.pipeline.review.load import Case, Item
from petground.pipeline.sides import measure_side

__all__ = ["write_dicom_objects"]


def write_dicom_objects(case: Case, folder: Path, *, reviewer: str | None = None) -> None:
    """Writes FOLDER/seg.dcm, sr.dcm and, where one factor turns the PET into SUVbw, rwvm.dcm; all or none.

    reviewer: the person observer, where one accepted every label of the case. Raises InputError when the exam's DICOM
    folder is gone, holds another series, or the folder cannot be written, GeometryError when the grid there is not the
    labelled one.
    """
    source = read_source(
        Path(case.source.get("folder", "")),
        case.pet,
        case=case.exam_id,
        series_uid=case.source.get("pet_series_uid"),
    )
    findings = [
        _finding(case, item, item.mask, item.label)
        for item in case.items
        if item.mask is not None and item.label is not None
    ]
    factor = case.exam.get("suv_factor")
    write_objects(
        folder,
        source,
        findings,
        case=case.exam_id,
        suv_factor=None if factor is None else float(factor),
        reviewer=reviewer,
    )


def _finding(case: Case, item: Item, mask: Volume, label: Mapping[str, Any]) -> Finding3D:
    """A label as a segment; what the image contradicts of the reported side is not coded."""
    measured = measure_side(item.voxel_ijk, case.pet, case.ct, item.finding.get("laterality"))
    side, site, heading = measured.place(item.finding.get("site"))
    return Finding3D(
        finding_id=item.finding_id,
        label=f"{title(item.finding) if measured.contradiction is None else heading} ({item.finding_id})",
        mask=mask,
        suv_max=float(label["suv_measured"]),
        volume_ml=float(label["volume_ml"]),
        site=site,
        laterality=side,
        method=str(label.get("method") or ""),
        manual=label.get("method") == DRAWN,
    )

"""The side that a sentence says against the side on which the mask lies, on a body stored in any direction."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from review_work import make_work, volumes

from petground.labeling.site import Site
from petground.pipeline.review import dicom_out
from petground.pipeline.review.judge import title
from petground.pipeline.review.load import Case, load_case, open_work
from petground.pipeline.sides import MeasuredSide, measure_side


@pytest.mark.parametrize("flip", product((False, True), repeat=3))
def test_the_side_is_the_patients_however_the_array_is_stored(flip: tuple[bool, bool, bool]) -> None:
    pet, ct, _, hot = volumes(flip)  # the ball lies 30 mm right of the midline
    voxel = (hot[0], hot[1], hot[2])
    for said, agrees in (("right", True), ("left", False)):
        side = measure_side(voxel, pet, ct, said)  # type: ignore[arg-type]
        assert side.words == "right"
        assert side.right_mm == pytest.approx(30, abs=3)
        assert (side.contradiction is None) == agrees
    assert measure_side(None, pet, ct, "left") == MeasuredSide("left", None)


def test_what_is_contradicted_is_not_coded_and_what_cannot_be_told_stays() -> None:
    assert MeasuredSide("left", -40.0).place("axillary node") == ("left", "axillary node", "Left axillary node")
    assert MeasuredSide("left", None).place("rib") == ("left", "rib", "Left rib")
    assert MeasuredSide("left", 9.9).place("hilum") == ("left", "hilum", "Left hilum"), "too near to the midline"
    assert MeasuredSide("left", 10.0).place("rib") == (None, "rib", "Rib, not left as said")
    assert MeasuredSide("right", -40.0).place("middle lobe nodule") == (
        None,
        "lung nodule",
        "Lung nodule, not right as said",
    )
    assert MeasuredSide("left", 40.0).place("left upper lobe")[1:] == ("upper lobe", "Upper lobe, not left as said")
    assert MeasuredSide("left", 40.0).place(None) == (None, None, "Lesion, not left as said")
    assert MeasuredSide("bilateral", 40.0).place("axilla")[0] == "bilateral"
    assert MeasuredSide(None, 40.0).place("liver") == (None, "liver", "Liver")


@pytest.mark.parametrize(
    ("side", "site", "told"),
    [
        ("left", "left lower lobe mass", "Left lower lobe mass"),
        ("right", "right-sided pleura", "Right-sided pleura"),
        ("left", "leftover node", "Left leftover node"),
        ("right", "left lower lobe", "Right left lower lobe"),
        ("right", "liver segment ivb", "Right liver segment IVB"),
        (None, "segment ivb", "Segment IVB"),
        (None, "t 11 vertebral body", "T11 vertebral body"),
        ("left", None, "Left"),
    ],
)
def test_a_heading_tells_the_side_once_and_keeps_capitals(side: str | None, site: str | None, told: str) -> None:
    assert MeasuredSide(side, None).place(site) == (side, site, told)  # type: ignore[arg-type]
    assert title({"finding_id": "f001", "laterality": side, "site": site}) == told


@pytest.mark.parametrize("said", ["left", "right"])
def test_labels_that_leave_review_carry_no_contradicted_side(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outline that a person drew may lie anywhere: here it lies at the right."""
    make_work(tmp_path / "work")
    work = open_work(tmp_path / "work")
    case: Case = load_case(work, next(e for e in work.exams if e["exam_id"] == "e1"), Site())
    for item in case.items:
        item.finding["laterality"] = said
    written: list[object] = []
    monkeypatch.setattr(dicom_out, "read_source", lambda *_, **__: None)
    monkeypatch.setattr(dicom_out, "write_objects", lambda folder, source, findings, **_: written.extend(findings))
    dicom_out.write_dicom_objects(case, tmp_path)
    (found,) = written
    assert found.laterality == (said if said == "right" else None)  # type: ignore[attr-defined]
    assert ("not left as said" in found.label) == (said == "left")  # type: ignore[attr-defined]
    assert np.any(found.mask.array)  # type: ignore[attr-defined]

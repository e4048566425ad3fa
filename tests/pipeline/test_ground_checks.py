"""`petground ground`: answers held against what their sentences say, in side, SUVmax, slice and denial."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ground_exam import SideModule

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.commands import ground as command
from petground.pipeline.commands.ground import Asked, ground
from petground.pipeline.ground_by import reported_k
from petground.pipeline.nifti import read_nifti, write_nifti


@pytest.mark.parametrize("text", ["FDG avid {} axillary lymph node.", "{} adrenal nodule with SUVmax 5.2", "{} axilla"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_on_the_other_side_is_told_of_any_sentence_that_names_one(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, side: str
) -> None:
    """The model first obeys, then confuses the sides; the sentence states no slice, or no value at all."""
    out, sentence = tmp_path / "out", text.format(side)
    (one,) = command._asked(sentence, None, Site())
    assert one.laterality == side
    assert one.site is not None
    ground(exam, tmp_path / "x.ckpt", out, text=sentence)
    (row,) = json.loads((out / "findings.json").read_text())["findings"]
    assert (row["side_reported"], row["side_measured"], row["problem"]) == (side, side, None)
    obeyed, other = module.predict, {"left": "right", "right": "left"}[side]
    monkeypatch.setattr(module, "predict", lambda image, asked: obeyed(image, [s.replace(side, other) for s in asked]))
    ground(exam, tmp_path / "x.ckpt", out, text=sentence)
    (row,) = json.loads((out / "findings.json").read_text())["findings"]
    assert (row["side_reported"], row["side_measured"]) == (side, other)
    assert f"the sentence says {side}" in row["problem"]


def test_values_without_a_slice_are_told_as_they_are(
    exam: Path, module: SideModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    drawn = command.write_answer

    def write(*args: Any) -> Any:
        row, picture = drawn(*args)
        shown.append(picture.headline)
        return row, picture

    monkeypatch.setattr(command, "write_answer", write)
    for text in ("Adrenal nodule with SUVmax 5.2.", "Adrenal nodule on slice 12."):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text)
    assert [one.partition("; ")[2] for one in shown] == ["reported SUVmax 5.2", "reported slice 12"]


def test_an_answer_that_the_report_refutes_says_so_and_a_mask_given_twice_too(
    exam: Path, module: SideModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The left lesion has SUVmax 8.0 at slice 30: one sentence says another value, one a slice 60 mm away."""
    report = tmp_path / "report.txt"
    report.write_text(
        "FINDINGS: Avid left axillary node, SUVmax 8.0, slice 30. Avid left lower lobe mass, SUVmax 21.3, slice 30. "
        "Avid left adrenal nodule, SUVmax 7.9, slice 20. Avid right hilar node, SUVmax 6.0, slice 10.\n"
    )
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", report=report)
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    right, value, away, other = (row["not_as_reported"] for row in rows)
    assert (right, value, other) == (None, "SUVmax 8.00, reported 21.3", None)
    assert re.fullmatch(r"slices? 30.*, reported 20 \(60 mm away\)", away)
    assert [row["same_mask_as"] for row in rows] == [None, "f001", "f001", None]
    printed = " ".join(capsys.readouterr().out.split())
    assert "f002: NOT AS REPORTED: SUVmax 8.00, reported 21.3." in printed
    assert "f003: the same mask as f001." in printed
    with (tmp_path / "out" / "findings.csv").open() as file:
        assert [row["same_mask_as"] for row in csv.DictReader(file)] == ["", "f001", "f001", ""]


@pytest.mark.parametrize(
    ("site", "slices", "told"),
    [
        # 40 slices of 6 mm, the left lesion's hottest voxel on the 11th from the feet
        pytest.param({}, 30, None, id="from-the-head"),
        pytest.param({"slice_origin": "feet"}, 11, None, id="from-the-feet"),
        pytest.param({"slice_origin": "feet"}, 30, "slice 11, reported 30 (114 mm away)", id="the-other-way"),
        # the CT has twice the slices, of 3 mm
        pytest.param({"slice_grid": "ct", "slice_origin": "feet"}, 21, None, id="of-the-ct"),
        pytest.param(
            {"slice_grid": "ct", "slice_origin": "feet"}, 61, "slice 21, reported 61 (120 mm away)", id="of-the-ct-away"
        ),
    ],
)
def test_slices_are_held_against_the_sentence_as_the_site_counts(
    site: dict[str, Any], slices: int, told: str | None, exam: Path, module: SideModule, tmp_path: Path
) -> None:
    ct = read_nifti(exam / "ct.nii.gz", "HU")
    fine = ct.affine @ np.diag([1.0, 1.0, 0.5, 1.0])
    write_nifti(exam / "ct.nii.gz", Volume(np.repeat(ct.array, 2, axis=2), fine, "HU"))
    (tmp_path / "site.yaml").write_text(json.dumps(site))
    text = f"Avid left inguinal node, SUVmax 8.0, slice {slices}."
    ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text, site=tmp_path / "site.yaml")
    (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert row["not_as_reported"] == told


def test_a_named_series_decides_which_slices_are_counted() -> None:
    """40 PET slices of 6 mm are series 4, 80 CT slices of 3 mm series 2; counted from the head, stored feet first."""
    pet = Volume(np.ones((4, 4, 40), np.float32), np.diag([-4.0, -4.0, 6.0, 1.0]), "SUVbw", series_number=4)
    ct = Volume(np.zeros((4, 4, 80), np.int16), np.diag([-4.0, -4.0, 3.0, 1.0]), "HU", series_number=2)
    site = Site(slice_by_series_number=True)

    def at(series: int | None, number: int = 21) -> range | None:
        return reported_k(Asked("f001", "", "Avid node.", None, number, series=series), pet, ct, site)

    assert (at(None), at(4)) == (range(19, 20), range(19, 20))
    assert at(2) == range(30, 31), "CT slice 21 from the head has index 59 and lies 177 mm up"
    assert (at(7), at(4, 60), at(None, 60)) == (None, None, None)
    assert reported_k(Asked("f001", "", "Avid node.", None, None), pet, ct, site) is None
    assert reported_k(Asked("f001", "", "Avid node.", None, 21), pet, None, Site(slice_grid="ct")) is None


def test_what_is_found_to_a_denial_says_so(exam: Path, module: SideModule, tmp_path: Path) -> None:
    for text, told in (("No avid left axillary nodes.", True), ("Avid left axillary nodes.", False)):
        ground(exam, tmp_path / "x.ckpt", tmp_path / "out", text=text)
        (row,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
        assert (row["not_as_reported"] == "the sentence says that nothing is there") == told

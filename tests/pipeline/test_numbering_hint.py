"""Slices counted otherwise than the site says: no label, or all beside; the run's last words are about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_exams import exam, report, run, tables, write_rows

from petground.labeling.site import Site
from petground.pipeline import cli
from petground.pipeline.files import read_json


def export(folder: Path, *off: int) -> tuple[Path, Path]:
    """An exam per number of `off`: the report's slice number is so much higher than that of the lesion's maximum."""
    rows = []
    for number, beside in enumerate(off):
        suv, k = 4.1 + 0.3 * number, 8 + 7 * number
        exam(folder / "exams" / f"e{number}", (suv, (30, 20, k)))
        rows.append((f"e{number}", report(round(suv, 1), k - beside)))
    return write_rows(folder / "reports.csv", rows), folder / "exams"


def test_findings_that_are_not_at_their_slices_are_told(tmp_path: Path) -> None:
    made = export(tmp_path, 0, 0, 0, 0)  # the last is in the middle slice, which has one number from either end
    (note,) = run(made, tmp_path / "work", Site(slice_origin="feet"))["notes"]
    assert note.startswith("3 of 4 findings are not at the slice they state: ")
    assert "--infer-numbering" in note
    assert run(made, tmp_path / "work")["notes"] == []


@pytest.mark.parametrize(("beside", "where"), [(1, "1 lower"), (-1, "1 higher"), (2, "2 lower")])
def test_labels_that_all_lie_beside_their_slices_are_told(beside: int, where: str, tmp_path: Path) -> None:
    summary = run(export(tmp_path, *[beside] * 5), tmp_path / "work")
    assert {row["slice_measured"] - row["slice_reported"] for row in tables(tmp_path / "work")["labels"]} == {-beside}
    (note,) = summary["notes"]
    assert note.startswith(f"5 of 5 labels lie at a slice number {where} than reported: ")
    assert read_json(tmp_path / "work" / "summary.json")["notes"] == [note]


@pytest.mark.parametrize("off", [(0, 0, 0, 0, 0), (1, 1, 1, 1), (1, 1, 1, -1, 0), (1, -1, 1, -1, 1)])
def test_few_or_mixed_distances_say_nothing(off: tuple[int, ...], tmp_path: Path) -> None:
    assert run(export(tmp_path, *off), tmp_path / "work")["notes"] == []


def test_it_is_the_last_thing_that_label_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports, exams = export(tmp_path, *[1] * 5)
    words = ["label", "--reports", str(reports), "--exams", str(exams), "--out", str(tmp_path / "w"), "--workers", "1"]
    assert cli.main(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "note: 5 of 5 labels lie at a slice number 1 lower than reported" in told

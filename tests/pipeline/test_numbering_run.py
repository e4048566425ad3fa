"""`petground label --infer-numbering` on small exports whose slices are counted in every way, mixed, and at random."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from petground.labeling.numbering import slice_number
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline import cli
from petground.pipeline.dates import iso_date
from petground.pipeline.exam_cases import ingest_case
from petground.pipeline.executors import guarded
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table

NZ = 60
PET_AFFINE = np.array([[-4.0, 0, 0, 48], [0, -4.0, 0, 48], [0, 0, 4.0, -120], [0, 0, 0, 1]])
CT_AFFINE = np.array([[-4.0, 0, 0, 48], [0, -4.0, 0, 48], [0, 0, 3.0, -150], [0, 0, 0, 1]])  # another grid
HEAD, FEET = Site(), Site(slice_origin="feet", slice_first=0)
Row = tuple[str, Site, str | None, str | None]  # exam_id, how it counts, scanner, date


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command without worker processes: seconds of imports less in every test."""

    @contextmanager
    def executor(*_: object, **__: object) -> Iterator[Any]:
        yield lambda function, cases: (guarded(function, case, args) for case, args in cases)

    monkeypatch.setattr("petground.pipeline.commands.running.executor", executor)


def images(rng: np.random.Generator) -> tuple[Volume, Volume, list[tuple[int, int, int]]]:
    """A body of SUV 0.8 with four round spots, none of them in the middle slices; and a CT on a grid of its own."""
    array = np.zeros((24, 24, NZ), np.float32)
    array[3:21, 5:19] = 0.8
    grid = np.indices(array.shape)
    spots = [(int(rng.integers(6, 18)), int(rng.integers(8, 16)), k) for k in (7, 19, 38, 47)]
    spots = [(i, j, k + int(rng.integers(0, 5))) for i, j, k in spots]
    for spot in spots:
        peak = float(rng.uniform(3.0, 14.0))
        distance = sum((g - c) ** 2 for g, c in zip(grid, spot, strict=True))
        array = np.maximum(array, peak * np.exp(-distance / 6.0).astype(np.float32))
    return Volume(array, PET_AFFINE, "SUVbw"), Volume(np.zeros((4, 4, 90), np.int16), CT_AFFINE, "HU"), spots


def export(folder: Path, rows: Sequence[Row], *, random: bool = False, seed: int = 5) -> list[str]:
    """Writes images and reports; returns the command's words. random: slices have nothing to do with the images."""
    rng = np.random.default_rng(seed)
    reports = []
    for exam_id, site, scanner, date in rows:
        pet, ct, spots = images(rng)
        write_nifti(folder / "exams" / exam_id / "pet.nii.gz", pet)
        write_nifti(folder / "exams" / exam_id / "ct.nii.gz", ct)
        told = []
        for spot in spots:
            k = int(rng.integers(NZ)) if random else spot[2]
            number = slice_number(k, pet, site, ct)
            told.append(f"Hypermetabolic focus, SUVmax {pet.array[spot]:.1f}, axial slice {number}.")
        reports.append((exam_id, "FINDINGS: " + " ".join(told), date or "", scanner or ""))
    folder.mkdir(exist_ok=True)
    with (folder / "reports.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("exam_id", "report_text", "study_date", "scanner"), *reports])
    return ["--reports", str(folder / "reports.csv"), "--exams", str(folder / "exams")]


def label(words: list[str], out: Path, *more: str) -> int:
    return cli.main(["label", *words, "--out", str(out), *more])


def numbering(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "numbering.json").read_text())
    return found


def reasons(out: Path) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for row in read_table(out / "findings.parquet", "findings"):
        found.setdefault(row["exam_id"], set()).add(row["reason"])
    return found


def test_from_the_feet_is_found_said_and_written_as_a_site_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = export(tmp_path / "in", [(f"e{n}", FEET, None, None) for n in range(5)])
    out = tmp_path / "work"
    assert label(words, out, "--infer-numbering") == 0
    told = capsys.readouterr().out
    assert "counted from the feet, from 0, PET slices" in told
    assert "from the feet, from 1, PET slices" in told, "what else was tried is shown"
    site = yaml.safe_load((out / "site_inferred.yaml").read_text())
    assert (site["slice_origin"], site["slice_first"], site["slice_grid"]) == ("feet", 0, "pet")
    assert "groups" not in site
    labels = read_table(out / "labels.parquet", "labels")
    assert len(labels) == 20
    assert all(row["slice_measured"] == row["slice_reported"] == row["voxel_k"] for row in labels)

    made = {p: p.stat().st_mtime_ns for p in out.rglob("stage.json")}
    assert label(words, out, "--site", str(out / "site_inferred.yaml")) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("stage.json")} == made, "the same conventions: nothing to redo"


def test_by_scanner_and_by_year_each_exam_is_counted_its_own_way(tmp_path: Path) -> None:
    ge, siemens = "GE / Discovery 690 / PET1", "SIEMENS / Biograph40 / P2"
    rows: list[Row] = [(f"g{n}", HEAD, ge, f"201{n}-03-01") for n in range(5)]
    rows += [(f"s{n}", HEAD if n < 5 else FEET, siemens, f"{2010 + n}-03-01") for n in range(10)]
    words = export(tmp_path / "in", rows)
    out = tmp_path / "work"
    assert label(words, out, "--infer-numbering") == 0
    labels = read_table(out / "labels.parquet", "labels")
    assert len(labels) == 60
    for row in labels:
        from_feet = row["exam_id"] in {"s5", "s6", "s7", "s8", "s9"}
        assert row["slice_reported"] == (row["voxel_k"] if from_feet else NZ - row["voxel_k"])
    site = json.loads((out / "site.json").read_text())
    exams = {row["exam_id"]: row for row in read_table(out / "exams.parquet", "exams")}
    assert exams["g1"]["scanner"] == ge
    assert len(site["groups"]) >= 1
    other = tmp_path / "again"
    assert label(words, other, "--site", str(out / "site_inferred.yaml")) == 0
    assert [r["voxel_k"] for r in read_table(other / "labels.parquet", "labels")] == [r["voxel_k"] for r in labels]


def test_a_scanner_with_too_few_findings_is_left_out_with_a_reason(tmp_path: Path) -> None:
    rows: list[Row] = [(f"g{n}", HEAD, "GE / 690 / A", None) for n in range(6)]
    rows.append(("odd", FEET, "SIEMENS / mCT / B", None))
    rows.append(("like", HEAD, "PHILIPS / Gemini / C", None))
    out = tmp_path / "work"
    assert label(export(tmp_path / "in", rows), out, "--infer-numbering") == 0
    found = reasons(out)
    assert found["odd"] == {"numbering_unclear"}
    assert found["like"] == {None}, "it fits the others"
    assert found["g0"] == {None}


@pytest.mark.parametrize(
    ("exams", "random", "why"),
    [(2, False, "2 exams are too few"), (8, True, "no convention does clearly better than chance")],
)
def test_what_is_not_clear_is_refused_with_the_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exams: int, random: bool, why: str
) -> None:
    words = export(tmp_path / "in", [(f"e{n}", HEAD, None, None) for n in range(exams)], random=random)
    out = tmp_path / "work"
    assert label(words, out, "--infer-numbering") == 1
    said = capsys.readouterr()
    assert why in " ".join(said.err.split())
    assert "--site" in said.err
    assert "by chance" in said.out, "the table is shown"
    assert not (out / "site_inferred.yaml").exists()
    assert not (out / "labels.parquet").exists()
    assert why in numbering(out)["refused"]
    assert label(words, out) == 0, "with a convention that is stated it goes on from there"


def test_a_second_run_reads_no_image_again(tmp_path: Path) -> None:
    words = export(tmp_path / "in", [(f"e{n}", FEET, None, None) for n in range(4)])
    out = tmp_path / "work"
    assert label(words, out, "--infer-numbering") == 0
    first, made = numbering(out), {p: p.stat().st_mtime_ns for p in out.rglob("stage.json")}
    assert label(words, out, "--infer-numbering") == 0
    assert numbering(out) == first
    assert {p: p.stat().st_mtime_ns for p in out.rglob("stage.json")} == made


def test_a_site_file_with_groups_cannot_be_inferred_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = export(tmp_path / "in", [("e1", FEET, None, None)])
    (tmp_path / "site.yaml").write_text("groups:\n- {scanner: 'GE / *', slice_origin: feet}\n")
    assert label(words, tmp_path / "w", "--infer-numbering", "--site", str(tmp_path / "site.yaml")) == 2
    assert "groups of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2015-07-01", "2015-07-01"),
        ("20150701", "2015-07-01"),
        ("2015/7/1 10:20", "2015-07-01"),
        ("2015-07-01T10:20:00Z", "2015-07-01"),
        ("20150701123000.0", None),
        ("07/01/2015", None),
        ("20151301", None),
        ("", None),
        (None, None),
    ],
)
def test_dates(text: str | None, iso: str | None) -> None:
    assert iso_date(text) == iso


def test_images_that_cannot_be_read_are_said_to_be_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = export(tmp_path / "in", [("e1", FEET, None, None)])
    (tmp_path / "in" / "exams" / "e1" / "pet.nii.gz").write_bytes(b"\x1f\x8b cut off")
    assert label(words, tmp_path / "w", "--infer-numbering") == 1
    assert "1 failed (" in " ".join(capsys.readouterr().err.split())


def test_scanner_and_date_come_from_the_dicom_header(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    found = ingest_case(shared_data("acrin_042"), tmp_path / "e", "e", "code")
    assert found["scanner"] == "GE MEDICAL SYSTEMS / Discovery ST / ?"
    assert found["study_date"] == "1960-01-16"

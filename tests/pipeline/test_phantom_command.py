"""`petground phantom`: what it writes, that it goes on after an interruption, what it refuses."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import numpy as np
import pytest

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.volume import require_same_grid
from petground.pipeline.commands import phantom as command
from petground.pipeline.commands.phantom import phantom
from petground.pipeline.executors import Outcome
from petground.pipeline.nifti import read_nifti
from petground.pipeline.phantom import physics, write
from petground.pipeline.schemas import read_table


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse grids, and every case in this process: quick, and the grids reach the worker."""
    monkeypatch.setattr(physics, "PET_SPACINGS_MM", ((5.0, 5.0, 6.0),) * len(physics.PET_SPACINGS_MM))
    monkeypatch.setattr(physics, "CT_SPACINGS_MM", ((8.0, 8.0, 9.0),) * len(physics.CT_SPACINGS_MM))

    def here(function, cases):  # type: ignore[no-untyped-def]
        for case, args in cases:
            try:
                yield Outcome(case, function(*args))
            except OSError:
                yield Outcome(case, reason="disk_full", detail="no space")

    monkeypatch.setattr(command, "executor", lambda **_: contextlib.nullcontext(here))


def test_writes_images_reports_and_truth(tmp_path: Path) -> None:
    assert phantom(tmp_path, exams=2, seed=4) == 0
    with (tmp_path / "reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["exam_id"] for row in rows] == ["phantom-4-0000", "phantom-4-0001"]
    assert all(row["report_text"] and row["patient_id"] and row["tracer"] and row["study_date"] for row in rows)
    truth = read_table(tmp_path / "truth.parquet", "truth")
    assert {row["exam_id"] for row in truth} == {row["exam_id"] for row in rows}
    text = {row["exam_id"]: " ".join(row["report_text"].split()) for row in rows}  # lines may be wrapped
    for row in truth:
        pet = read_nifti(tmp_path / "exams" / row["exam_id"] / "pet.nii.gz", "SUVbw")
        mask = read_nifti(tmp_path / row["mask_path"], "label")
        require_same_grid(pet, mask)
        at = row["voxel_i"], row["voxel_j"], row["voxel_k"]
        assert mask.array[at]
        assert pet.array[at] == np.float32(row["suv_max"]) == pet.array[mask.array > 0].max()
        assert row["slice"] == pet.shape[2] - row["voxel_k"]
        if row["reported"]:
            assert str(row["slice"]) in text[row["exam_id"]]
            assert " ".join(row["sentence"].split()) in text[row["exam_id"]]
    assert sum(row["reported"] for row in truth) >= 1
    assert not [p for p in tmp_path.rglob("*") if ".part" in p.name or p.name.endswith(".tmp")]


def test_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert phantom(tmp_path, exams=1, seed=4) == 0
    first = tmp_path / "exams" / "phantom-4-0000" / "pet.nii.gz"
    before, made = first.stat().st_mtime_ns, []
    original = write.make_exam
    monkeypatch.setattr(
        write, "make_exam", lambda seed, index, **kind: made.append(index) or original(seed, index, **kind)
    )
    assert phantom(tmp_path, exams=2, seed=4) == 0
    assert made == [1]
    assert first.stat().st_mtime_ns == before
    (tmp_path / "truth" / "phantom-4-0000" / "exam.json").write_text("{", encoding="utf-8")  # killed half-way
    (tmp_path / ".phantom-4-0000.1.part" / "images").mkdir(parents=True)
    assert phantom(tmp_path, exams=2, seed=4) == 0
    assert made == [1, 0]
    assert not (tmp_path / ".phantom-4-0000.1.part").exists()
    assert len({row["exam_id"] for row in read_table(tmp_path / "truth.parquet", "truth")}) == 2


def test_an_exam_that_cannot_be_written_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, volume: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "write_nifti", full)
    assert phantom(tmp_path, exams=1, seed=4) == 3
    assert not (tmp_path / "exams").exists()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "word"), [({"exams": 0}, "exams"), ({"seed": -1}, "seed"), ({"format": "x"}, "format")]
)
def test_refuses_bad_arguments(tmp_path: Path, arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        phantom(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_refuses_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        phantom(tmp_path / "file", exams=1)

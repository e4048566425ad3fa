"""Organ maps of exams: found beside them, read by the names they carry, made by TotalSegmentator where it is there."""

from __future__ import annotations

import csv
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from petground.labeling.errors import ConfigError, GeometryError, InputError
from petground.labeling.organs import class_ids
from petground.labeling.volume import Volume
from petground.pipeline import cli, organ_maps
from petground.pipeline.executors import guarded
from petground.pipeline.nifti import write_nifti
from petground.pipeline.organ_maps import label_names, organ_source, read_organs
from petground.pipeline.schemas import read_table

AFFINE = np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 80], [0, 0, 4.0, -120], [0, 0, 0, 1]])
SHAPE = (40, 40, 60)
OLD = {name: number for number, name in class_ids(1).items()}
NEW = {name: number for number, name in class_ids().items()}


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command without worker processes: seconds of imports less in every test."""

    @contextmanager
    def executor(*_: object, **__: object) -> Iterator[Any]:
        yield lambda function, cases: (guarded(function, case, args) for case, args in cases)

    monkeypatch.setattr("petground.pipeline.commands.running.executor", executor)


def with_names(path: Path, array: np.ndarray, names: dict[int, str], affine: np.ndarray = AFFINE) -> None:
    """A label map with the XML table in its header, as TotalSegmentator writes it."""
    image = nib.Nifti1Image(array, affine)
    table = "".join(
        f'<Label Key="{n}" Red="1" Green="0" Blue="0"><![CDATA[{name}]]></Label>\n' for n, name in names.items()
    )
    xml = f'<?xml version="1.0"?><CaretExtension><LabelTable>\n{table}</LabelTable></CaretExtension>'
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, xml.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def bladder(number: int) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[16:26, 14:26, 6:16] = number
    return array


def kidneys(ids: dict[str, int], *, swapped: bool = False) -> np.ndarray:
    """Patient's right is at low i."""
    array = np.zeros(SHAPE, np.uint8)
    sides = ("kidney_left", "kidney_right") if swapped else ("kidney_right", "kidney_left")
    array[6:12, 14:22, 28:38], array[28:34, 14:22, 28:38] = ids[sides[0]], ids[sides[1]]
    return array


def test_names_in_the_header_decide_over_numbers(tmp_path: Path) -> None:
    with_names(tmp_path / "o.nii.gz", bladder(7), {7: "urinary_bladder", 8: "something_else"})
    assert label_names(tmp_path / "o.nii.gz") == {7: "urinary_bladder", 8: "something_else"}
    assert set(np.unique(read_organs(tmp_path / "o.nii.gz").array)) == {0, NEW["urinary_bladder"]}


def test_without_names_the_version_decides(tmp_path: Path) -> None:
    path = tmp_path / "o.nii.gz"
    write_nifti(path, Volume(bladder(104), AFFINE, "label"))
    assert class_ids()[104] == "rib_right_1"
    assert np.unique(read_organs(path).array).tolist() == [0, 104]
    assert np.unique(read_organs(path, 1).array).tolist() == [0, NEW["urinary_bladder"]]


def test_a_map_that_lies_the_wrong_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.nii.gz"
    write_nifti(path, Volume(kidneys(NEW), AFFINE, "label"))
    assert read_organs(path).array.any()
    write_nifti(path, Volume(kidneys(NEW, swapped=True), AFFINE, "label"))
    with pytest.raises(GeometryError, match="right kidney lies left"):
        read_organs(path)


def test_a_map_of_version_1_read_as_2_is_noticed_where_it_shows(tmp_path: Path) -> None:
    """Version 1 counts the myocardium 44 and the brain 50; in version 2 those are vertebrae, and 90 is a hip."""
    array = kidneys(OLD)
    array[16:24, 14:22, 2:6] = OLD["hip_left"]  # 90: the brain in version 2
    array[12:28, 12:28, 44:50] = OLD["iliac_artery_left"]  # 51: the heart in version 2
    path = tmp_path / "o.nii.gz"
    write_nifti(path, Volume(array, AFFINE, "label"))
    with pytest.raises(GeometryError, match="brain lies below the heart") as told:
        read_organs(path)
    assert "--organs-version" in str(told.value)
    read_organs(path, 1)


def test_where_maps_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no folder of organ maps"):
        organ_source(str(tmp_path / "none"), None)
    with pytest.raises(InputError, match="no organ maps in"):
        organ_source(str(tmp_path), None)
    with pytest.raises(ConfigError, match="1 or 2"):
        organ_source(None, 3)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="pip install TotalSegmentator"):
        organ_source("totalsegmentator", None)


@pytest.fixture
def export(tmp_path: Path) -> list[str]:
    """One exam: a node and, on the same slice and of the same value, the bladder."""
    array = np.zeros(SHAPE, np.float32)
    array[4:36, 8:32] = 0.8
    grid = np.indices(SHAPE)
    for centre in ((20, 20, 11), (9, 20, 11)):
        distance = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
        array = np.maximum(array, 8.0 * np.exp(-distance / 8.0).astype(np.float32))
    write_nifti(tmp_path / "exams" / "e1" / "pet.nii.gz", Volume(array, AFFINE, "SUVbw"))
    write_nifti(tmp_path / "exams" / "e1" / "ct.nii.gz", Volume(np.zeros(SHAPE, np.int16), AFFINE, "HU"))
    text = "FINDINGS: Hypermetabolic inguinal node, SUVmax 8.0, axial slice 49."
    with (tmp_path / "reports.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("exam_id", "report_text", "tracer"), ("e1", text, "FDG")])
    words = ["label", "--reports", str(tmp_path / "reports.csv"), "--exams", str(tmp_path / "exams")]
    return [*words, "--out", str(tmp_path / "work")]


def fate(work: Path) -> tuple[str | None, int | None]:
    """Reason of the one finding, and voxel i of its label."""
    (finding,) = read_table(work / "findings.parquet", "findings")
    labels = read_table(work / "labels.parquet", "labels")
    return finding["reason"], labels[0]["voxel_i"] if labels else None


def test_labels_follow_the_organ_map_and_its_changes(export: list[str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert cli.main(export) == 0
    assert fate(work) == ("ambiguous_match", None)
    with_names(tmp_path / "maps" / "e1.nii.gz", bladder(3), {3: "urinary_bladder"})
    read = (work / "exams" / "e1" / "stage.json").stat().st_mtime_ns
    assert cli.main([*export, "--organs", str(tmp_path / "maps")]) == 0
    assert fate(work) == (None, 9)
    assert (work / "exams" / "e1" / "stage.json").stat().st_mtime_ns == read, "images are not read again"
    (label,) = read_table(work / "labels.parquet", "labels")
    assert json.loads(label["provenance"])["organs"]
    with_names(tmp_path / "maps" / "e1.nii.gz", bladder(3), {3: "colon"})
    assert cli.main([*export, "--organs", str(tmp_path / "maps")]) == 0
    assert fate(work) == ("ambiguous_match", None), "another map is another labelling"
    with_names(tmp_path / "exams" / "e1" / "organs.nii.gz", bladder(3), {3: "urinary_bladder"})
    assert cli.main(export) == 0
    assert fate(work) == (None, 9), "a map among the exam's images is taken by itself"


def test_a_map_of_another_place_fails_that_exam(export: list[str], tmp_path: Path) -> None:
    away = AFFINE.copy()
    away[0, 3] += 900
    with_names(tmp_path / "maps" / "e1.nii.gz", bladder(3), {3: "urinary_bladder"}, away)
    assert cli.main([*export, "--organs", str(tmp_path / "maps")]) == 3
    (exam,) = read_table(tmp_path / "work" / "exams.parquet", "exams")
    assert (exam["status"], exam["reason"]) == ("failed", "organ_map")
    assert "the organ map lies outside of the PET's field of view" in exam["detail"]
    assert "this exam's CT" in exam["detail"]


def test_totalsegmentator_is_run_once_per_exam(
    export: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in that writes the map a real run would, and a line per run."""
    with_names(tmp_path / "made.nii.gz", bladder(21), {21: "urinary_bladder"})
    program = tmp_path / "bin" / "TotalSegmentator"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "if '--version' in sys.argv:\n    print('TotalSegmentator v2.9.0'); sys.exit()\n"
        f"open({str(tmp_path / 'runs')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"shutil.copy({str(tmp_path / 'made.nii.gz')!r}, sys.argv[sys.argv.index('-o') + 1])\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    organ_maps._version.cache_clear()
    words = [*export, "--organs", "totalsegmentator"]
    assert cli.main(words) == 0
    assert fate(tmp_path / "work") == (None, 9)
    assert cli.main(words) == 0
    runs = (tmp_path / "runs").read_text().splitlines()
    assert len(runs) == 1
    assert "--ml --task total" in runs[0]
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('out of memory' if len(sys.argv) > 2 else 0)\n")
    organ_maps._version.cache_clear()  # another version makes maps anew
    assert cli.main(words) == 3, "what fails is told, for that exam"
    (exam,) = read_table(tmp_path / "work" / "exams.parquet", "exams")
    assert exam["reason"] == "organ_map"
    assert "out of memory" in exam["detail"]


def test_a_map_that_totalsegmentator_made(shared_data: Callable[[str], Path]) -> None:
    organs = read_organs(shared_data("totalseg_ct") / "example_seg_fast_force_split.nii.gz")
    names = {class_ids()[n] for n in np.unique(organs.array) if n}
    assert {"liver", "spleen", "kidney_right", "kidney_left", "urinary_bladder"} <= names
    centre = {
        name: organs.to_world_mm(np.argwhere(organs.array == NEW[name]).mean(axis=0))
        for name in ("liver", "spleen", "kidney_right", "kidney_left")
    }
    assert centre["liver"][0] > centre["spleen"][0]
    assert centre["kidney_right"][0] > centre["kidney_left"][0]

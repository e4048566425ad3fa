"""A training starts again without reading its images, and what has changed is read."""

from __future__ import annotations

import builtins
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patch_work import SPEC

from petground.labeling.errors import PetgroundError
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.training.data import GroundingData
from petground.training.digests import Digests


def _data(work: Path, **options: Any) -> GroundingData:
    data = GroundingData(work, **options)
    data.grid = SPEC
    data.prepare_data()
    data.setup("validate")
    return data


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images and masks that are opened."""
    names: list[str] = []
    real = io.open

    def told(file: Any, *more: Any, **other: Any) -> Any:
        if str(file).endswith(".nii.gz"):
            names.append(Path(file).name)
        return real(file, *more, **other)

    monkeypatch.setattr(io, "open", told)
    monkeypatch.setattr(builtins, "open", told)
    return names


def test_a_second_start_opens_no_image(patch_work: Path, opened: list[str]) -> None:
    first = _data(patch_work)
    assert opened.count("pet.nii.gz") >= 4
    opened.clear()
    second = _data(patch_work)
    assert opened == []
    assert second.keys == first.keys


def test_a_changed_image_of_the_same_size_is_read_again(patch_work: Path, opened: list[str]) -> None:
    before = _data(patch_work).keys
    image = sorted(patch_work.glob("exams/*/pet.nii.gz"))[1]
    content, stat = bytearray(image.read_bytes()), image.stat()
    content[4] ^= 1  # the time in gzip's header: the same size and voxels, other bytes
    image.write_bytes(content)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    opened.clear()
    after = _data(patch_work).keys
    assert image.stat().st_size == stat.st_size
    assert [exam for exam in after if after[exam] != before[exam]] == [image.parent.name]
    assert set(opened) >= {"pet.nii.gz"}


@pytest.mark.parametrize("torn", ["", '{"/a":[1,2', "[1, 2]", '{"/a": 3}'])
def test_a_torn_list_of_digests_counts_for_none(patch_work: Path, torn: str) -> None:
    before = _data(patch_work).keys
    file = patch_work / "cache" / "digests.json"
    file.write_text(torn)
    assert _data(patch_work).keys == before
    assert Digests(file).knows(next(patch_work.glob("exams/*/pet.nii.gz")))


def test_what_another_process_wrote_meanwhile_stays(tmp_path: Path) -> None:
    one, other = Digests(tmp_path / "digests.json"), Digests(tmp_path / "digests.json")
    for digests, name in ((one, "a"), (other, "b")):
        (tmp_path / name).write_text(name)
        digests.of(tmp_path / name)
        digests.save()
    both = Digests(tmp_path / "digests.json")
    assert both.knows(tmp_path / "a")
    assert both.knows(tmp_path / "b")
    assert list(tmp_path.glob(".*")) == []


def test_several_processes_make_what_one_makes(patch_work: Path, tmp_path: Path, capfd: Any) -> None:
    alone = _data(patch_work, cache=tmp_path / "alone")
    shared = _data(patch_work, cache=tmp_path / "shared", workers=2)
    assert "4/4" in capfd.readouterr().err.replace(" of ", "/"), "nothing tells how far it is"
    assert shared.keys == alone.keys
    names = [sorted(path.name for path in (tmp_path / which / "grids").iterdir()) for which in ("alone", "shared")]
    assert names[0] == names[1] != []
    _data(patch_work, cache=tmp_path / "shared", workers=2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exam_that_cannot_be_put_on_the_grid_is_named(patch_work: Path, workers: int) -> None:
    exam = sorted(patch_work.glob("labels/*"))[2]
    for mask in exam.glob("*.nii.gz"):
        volume = read_nifti(mask, "label")
        write_nifti(mask, type(volume)(np.array(volume.array)[:-1], volume.affine, "label"))
    with pytest.raises(PetgroundError, match=rf"^{exam.name}: "):
        _data(patch_work, workers=workers)


def test_a_step_of_fewer_exams_than_asked_is_told(patch_work: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = _data(patch_work, exams_per_step=8, validation_fraction=0.25)
    with caplog.at_level(logging.WARNING):
        assert data.train_dataloader().batch_size == 3
    assert "exams_per_step is 3 here, not 8" in caplog.text
    caplog.clear()
    _data(patch_work, exams_per_step=3, validation_fraction=0.25).train_dataloader()
    assert "exams_per_step" not in caplog.text

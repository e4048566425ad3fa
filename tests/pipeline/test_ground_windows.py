"""`petground ground` with a model that slides over the exam: where it is told to look, and what it is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.errors import ConfigError
from petground.labeling.volume import Volume
from petground.pipeline.commands.ground import ground
from petground.pipeline.nifti import write_nifti
from petground.training.grid import GridSpec, model_template
from petground.training.inference import Prediction

REPORT = """FINDINGS:
There is an enlarged left inguinal node with SUVmax of 8.0 on axial slice 48.
A right axillary node shows SUV max 6.0 (slice 9).

IMPRESSION: As above.
"""


class Sliding:
    """Finds nothing, and keeps what it was asked and where."""

    threshold = 0.5
    grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), patch_zyx=(16, 16, 16))

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.sentences: list[str] = []
        self.near: Sequence[Any] = ()

    def predict(self, image: np.ndarray, sentences: list[str], *, near: Sequence[Any], tick: Any) -> Prediction:
        self.sentences, self.near = sentences, near
        for done in range(3):
            tick(done + 1, 3)
        return Prediction(np.zeros((len(sentences), *image.shape[1:]), dtype=np.float32), None)


@pytest.fixture(params=[1, -1])
def pet(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    """60 slices of 6 mm, from z 300 to 654, stored from the feet to the head or the other way round."""
    affine = np.diag([-4.0, -4.0, 6.0 * request.param, 1.0])
    affine[:3, 3] = (80.0, 72.0, 300.0 if request.param > 0 else 654.0)
    volume = Volume(np.zeros((40, 36, 60), dtype=np.float32), affine, "SUVbw")
    volume.array[4:36, 6:30] = 1.0
    write_nifti(tmp_path / "exam" / "pet.nii.gz", volume)
    return volume


def _asked(prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Sliding:
    module = Sliding(prompt)
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: module)
    (tmp_path / "report.txt").write_text(REPORT)
    ground(tmp_path / "exam", tmp_path / "x.ckpt", tmp_path / "out", report=tmp_path / "report.txt", **more)
    return module


def _heights(module: Sliding, pet: Volume) -> list[tuple[float, float]]:
    """What was asked near, back in RAS mm."""
    template = model_template(pet, module.grid)
    return [tuple(float(template.to_world_mm([0, 0, z])[2]) for z in one) for one in module.near]  # type: ignore[misc]


def test_a_model_that_reads_no_slices_looks_everywhere(
    pet: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = _asked("words", tmp_path, monkeypatch)
    assert module.near == [None, None]
    assert not any(character.isdigit() for sentence in module.sentences for character in sentence)
    assert "windows: 3 of 3" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert [row["slice_reported"] for row in rows] == [48, 9], "kept apart from what the model reads"


def test_a_model_that_reads_slices_is_told_them_and_looks_around_them(
    pet: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _asked("all", tmp_path, monkeypatch)
    assert [sentence[sentence.index(", SUV") :] for sentence in module.sentences] == [
        ", SUVmax 8.0, slice 48.",
        ", SUVmax 6.0, slice 9.",
    ]
    # slices count from the head, from 1: slice 48 of 60 lies at 654 - 47 * 6 mm, slice 9 at 654 - 8 * 6 mm
    for (low, high), at in zip(_heights(module, pet), (372.0, 606.0), strict=True):
        assert (low, high) == pytest.approx((at - 50, at + 50), abs=1e-6)
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert rows[0]["prompt"] == module.sentences[0], "the table shows what was read"


def test_the_margin_is_the_users(pet: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _asked("words", tmp_path, monkeypatch, slice_margin_mm=12.0)
    assert module.sentences[0].endswith(("node", "node.")), "where it looks is no word that it reads"
    for (low, high), at in zip(_heights(module, pet), (372.0, 606.0), strict=True):
        assert (low, high) == pytest.approx((at - 12, at + 12), abs=1e-6)
    with pytest.raises(ConfigError, match="slice-margin-mm"):
        _asked("words", tmp_path, monkeypatch, slice_margin_mm=-1.0)

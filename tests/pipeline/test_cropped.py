"""Masks as boxes: the same voxels come back, and a long report's answers take the memory of their lesions."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline import ground_out
from petground.pipeline.cropped import CroppedMask
from petground.pipeline.ground_by import Answer, Asked
from petground.pipeline.ground_pictures import _projections

SHAPE = (40, 36, 50)
VOXELS = 40 * 36 * 50


def _mask(n: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2 + n % 20 : 5 + n % 20, 7, 11:13] = True
    mask[4 + n % 20, 30, 49] = True  # in the last slice
    return mask


@pytest.mark.parametrize("mask", [_mask(0), _mask(3).astype(np.uint8), np.zeros(SHAPE, dtype=bool), np.ones(SHAPE)])
def test_what_was_cropped_comes_back_where_it_lay(mask: np.ndarray) -> None:
    cropped = CroppedMask.of(mask, np.eye(4))
    np.testing.assert_array_equal(cropped.array, mask > 0)
    assert cropped.shape == cropped.array.shape
    assert cropped.empty == (not mask.any())
    assert cropped.inside.base is None, "the whole mask is kept"


def test_a_long_reports_answers_are_not_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write_nifti", "write_png", "finding_picture"):
        monkeypatch.setattr(ground_out, name, lambda *given, **more: None)
    pet = Volume(np.random.default_rng(0).random(SHAPE, dtype=np.float32), np.diag([-4.0, -4.0, 4.0, 1.0]), "SUVbw")
    images: Any = SimpleNamespace(pet=pet, ct=None, source="dicom")

    def kept(sentences: int) -> tuple[list[Any], int]:
        """What a run keeps, and its bytes."""
        tracemalloc.start()
        held = []
        for n in range(sentences):
            one = Asked(f"f{n:03d}", "Avid node.", "Avid node.", None, None)
            answer = Answer(_mask(n), 0.9, (4 + n % 20, 30, 49), 1.0, 1.0)
            _, shown = ground_out.write_answer(tmp_path, one, answer, images, Site())
            held.append((shown, ground_out.as_finding(one, answer, images, "a model", refuted=False)))
        del answer
        return held, tracemalloc.get_traced_memory()[0]

    def drawn(held: list[Any]) -> int:
        """The most bytes that drawing them takes."""
        tracemalloc.reset_peak()
        _projections(pet, [shown for shown, _ in held], None)
        return tracemalloc.get_traced_memory()[1]

    try:
        few, _ = kept(2)
        least = drawn(few)
        many, size = kept(40)
        assert size < 10 * VOXELS, "of 40 sentences, whole masks would take 80 times the voxels"
        assert drawn(many) < least + 10 * VOXELS, "the overview holds the masks of all sentences at once"
    finally:
        tracemalloc.stop()
    for n, (shown, finding) in enumerate(many):
        np.testing.assert_array_equal(shown.mask.array, _mask(n))
        np.testing.assert_array_equal(finding.mask.array, _mask(n))

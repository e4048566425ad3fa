"""Exams filed twice are found, turned, resampled or retyped; different exams are not taken for one."""

from __future__ import annotations

import base64
import time

import numpy as np
import pytest
from export_work import images

from petground.labeling.volume import Volume
from petground.pipeline.exports.duplicates import MOST_ALIKE, find_duplicates, groups_of, similar_images, similar_texts
from petground.pipeline.exports.fingerprint import low_resolution, peak_from_centre, voxel_hash
from petground.pipeline.exports.grids import ras
from petground.pipeline.geometry import grid_around, resample

REPORT = (
    "Intensely hypermetabolic right hilar node measures 2.1 cm, SUVmax {a}, axial slice {b}. A second focus in the "
    "left adrenal gland shows uptake with SUVmax {c} on slice {d}, new since the prior exam of last spring."
)


def test_a_copy_on_another_grid_elsewhere_and_in_another_order_looks_the_same() -> None:
    pets = [images(seed)[0] for seed in range(6)]
    low = {f"e{n}": low_resolution(pet) for n, pet in enumerate(pets)}
    finer = resample(pets[2], grid_around(pets[2], spacing_xyz_mm=(7.0, 8.0, 9.5)))
    moved = finer.affine.copy()
    moved[:3, 3] += (300.0, -120.0, 40.0)
    low["resampled"] = low_resolution(Volume(finer.array, moved, "SUVbw"))
    low["turned"] = low_resolution(ras(pets[3]))
    pairs = dict(similar_images(low))
    assert set(pairs) == {("e2", "resampled"), ("e3", "turned")}
    assert pairs["e2", "resampled"] > 0.97
    mirrored = Volume(pets[4].array[::-1], pets[4].affine, "SUVbw")
    assert not dict(similar_images({"a": low["e4"], "b": low_resolution(mirrored)})), "a mirrored patient is another"


def test_the_voxel_hash_knows_a_turned_copy_and_a_single_other_voxel() -> None:
    pet = images(1)[0]
    assert voxel_hash(ras(pet)) == voxel_hash(pet)
    other = pet.array.copy()
    other[11, 8, 15] += 0.01
    assert voxel_hash(pet.like(other, "SUVbw")) != voxel_hash(pet)
    assert voxel_hash(Volume(pet.array[::-1], pet.affine, "SUVbw")) != voxel_hash(pet)


def test_a_report_with_small_edits_is_found_and_a_template_with_other_numbers_is_not() -> None:
    told = REPORT.format(a=8.4, b=121, c=5.1, d=170)
    texts = {
        "a": told,
        "edited": told.replace("2.1 cm", "2,1 cm").replace("new since", "New, since"),
        "template": REPORT.format(a=9.7, b=88, c=3.3, d=152),
        "short": "SUVmax 5.4, slice 104.",
        "short too": "SUVmax 5.4, slice 104.",
        "empty": "",
    }
    assert {pair for pair, _ in similar_texts(texts)} == {("a", "edited")}


def test_evidence_is_put_together_and_n_copies_hang_together() -> None:
    low = low_resolution(images(3)[0]).astype("<f2").tobytes()
    other = low_resolution(images(4)[0]).astype("<f2").tobytes()

    def one(voxels: str, values: bytes, series: str | None = None) -> dict[str, str | None]:
        return {"voxels": voxels, "low": base64.b64encode(values).decode(), "series": series}

    prints = {
        "a": one("1", low, "uid"),
        "b": one("1", low, "uid"),
        "c": one("2", low),
        "d": one("3", other, "uid2"),
        "e": one("4", other * 1, "uid3"),
    }
    found = {(d.exam_a, d.exam_b): d.evidence for d in find_duplicates(prints, {})}
    assert found["a", "b"] == ("same_series", "same_voxels")
    assert found["a", "c"] == ("similar_image",)
    assert found["d", "e"] == ("similar_image",)
    assert groups_of(found) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d"}


def test_ten_thousand_exams_are_compared_without_comparing_all_with_all() -> None:
    rng = np.random.default_rng(0)
    shared = rng.gamma(2.0, 1.0, 1152).astype(np.float32)  # bodies are alike: all exams look alike at first
    low = {f"e{n:05d}": shared * rng.uniform(0.6, 1.4, 1152).astype(np.float32) for n in range(10_000)}
    low["copy"] = low["e00042"] * rng.uniform(0.99, 1.01, 1152).astype(np.float32)
    words = [f"w{n}" for n in range(300)]
    texts = {f"e{n:05d}": " ".join(rng.choice(words, 40)) for n in range(10_000)}
    texts["copy"] = texts["e00042"] + " and one word more"
    began = time.process_time()
    assert [pair for pair, _ in similar_images(low)] == [("copy", "e00042")]
    assert [pair for pair, _ in similar_texts(texts)] == [("copy", "e00042")]
    assert time.process_time() - began < 30


def test_a_blank_image_is_like_none() -> None:
    pet = images(1)[0]
    blank = low_resolution(pet.like(np.zeros(pet.shape, dtype=np.float32), "SUVbw"))
    assert not blank.any()
    assert list(similar_images({"a": blank, "b": blank})) == []


def test_bland_images_that_look_alike_are_no_copies_and_a_copy_among_them_is_one() -> None:
    """Ten bodies of even uptake and noise: their prints are alike, their hottest voxels are anywhere."""
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    rng = np.random.default_rng(2)
    body = np.zeros((40, 30, 80), dtype=np.float32)
    body[8:32, 6:24, 4:76] = 1.0
    pets = {
        f"e{n}": Volume((body * rng.uniform(0.8, 1.2, body.shape)).astype(np.float32), affine, "SUVbw")
        for n in range(10)
    }
    grid = grid_around(pets["e4"], spacing_xyz_mm=(8.0, 8.0, 8.0))
    moved = grid.affine.copy()
    moved[:3, 3] += 64.0
    again = pets["e4"].array.copy()
    again[20, 15, 40] += 0.01
    pets["copy"] = Volume(again, moved, "SUVbw")
    low = {exam: low_resolution(pet) for exam, pet in pets.items()}
    assert len(dict(similar_images(low))) > 10 * MOST_ALIKE, "by the print alone all are one"
    prints = {
        exam: {
            "voxels": voxel_hash(pet),
            "series": None,
            "low": base64.b64encode(low[exam].astype("<f2").tobytes()).decode(),
            "peak_mm": peak_from_centre(pet),
        }
        for exam, pet in pets.items()
    }
    assert [(d.exam_a, d.exam_b, d.evidence) for d in find_duplicates(prints, {})] == [
        ("copy", "e4", ("similar_image",))
    ]
    pairs = {exam: {**one, "peak_mm": []} for exam, one in prints.items() if exam in ("e1", "e2")}
    assert len(find_duplicates(pairs, {})) == 1, "of two alike the print is enough"


def test_the_peak_is_told_from_the_centre_whatever_the_order_of_voxels() -> None:
    pet = images(3)[0]
    assert np.allclose(peak_from_centre(ras(pet)), peak_from_centre(pet), atol=0.2)
    mirrored = Volume(pet.array[::-1], pet.affine, "SUVbw")
    assert peak_from_centre(mirrored)[0] == pytest.approx(-peak_from_centre(pet)[0], abs=0.2)
    assert peak_from_centre(pet.like(np.zeros(pet.shape, dtype=np.float32), "SUVbw")) == []


@pytest.mark.parametrize("copies", [2, 60])
def test_many_copies_of_one_text_give_one_group(copies: int) -> None:
    told = REPORT.format(a=8.4, b=121, c=5.1, d=170)
    pairs = [pair for pair, _ in similar_texts({f"e{n}": told for n in range(copies)})]
    assert len(set(groups_of(pairs).values())) == 1
    assert len(groups_of(pairs)) == copies

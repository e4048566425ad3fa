"""Fits what outlining takes from data: labeling/whole.json (even or uneven) and labeling/small.json (small volumes).

    python benchmarks/fit_outlines.py [crops [whole-body exams]]

Simulated lesions only, of seeds that no benchmark uses. MASSES was chosen with six real sarcomas in view.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.contour import FIRST_BOX_MM, LARGEST_BOX_MM
from petground.labeling.logistic import fit_logistic
from petground.labeling.neighbourhood import Neighbourhood, neighbourhood
from petground.labeling.small import LARGEST_ML, TERMS, fine_levels
from petground.labeling.threshold import settle_even, settle_uneven
from petground.labeling.valleys import hotter_foreign, keep_to_basin, noise_of
from petground.labeling.volume import Volume
from petground.labeling.whole import SIGNS, signs
from petground.pipeline.phantom.crop import make_crop
from petground.pipeline.phantom.exam import make_exam

CROPS, CROP_SEED, EXAMS, EXAM_SEED = 400, 11, 14, 501
MASSES = 3.0  # simulated large lesions are even more often than real ones: what an uneven mass weighs
FOLDER = Path(__file__).resolve().parents[1] / "labeling"
Lesion = tuple[str, Volume, tuple[int, int, int], NDArray[np.bool_], list[tuple[int, int, int]], float]


def main(crops: int = CROPS, exams: int = EXAMS) -> None:
    choices: list[dict[str, Any]] = []
    volumes: list[dict[str, float]] = []
    for scene, pet, seed, truth, others, true_ml in _lesions(crops, exams):
        for half_mm in (FIRST_BOX_MM, 2 * FIRST_BOX_MM, LARGEST_BOX_MM):  # as the outline widens its box
            near = _near(pet, seed, others, half_mm)
            even = settle_even(near.image, near.level, near.domain, near.spacing_mm)
            uneven = settle_uneven(near.image, near.level, near.domain, near.spacing_mm)
            if half_mm == FIRST_BOX_MM and even.volume_ml < LARGEST_ML and true_ml < 2 * LARGEST_ML:
                terms = fine_levels(near).terms(even.background, near.voxel_ml)
                volumes.append(terms | {"true": float(np.log(true_ml))})
            told = signs(near.wide, near.level, even, uneven, near.spacing_mm)
            if told is None or scene in ("touching", "unreported"):
                break
            large, small = (near.component(found.threshold) for found in (uneven, even))
            gain = _dice(large, truth, near) - _dice(small, truth, near)
            choices.append({"scene": scene, "gain_dice": gain} | {f"sign_{k}": v for k, v in told.items()})
            if not any(np.moveaxis(large, axis, 0)[end].any() for axis in range(3) for end in (0, -1)):
                break
    command = f"python benchmarks/fit_outlines.py {crops} {exams}"
    _whole(choices, command)
    _small(volumes, command)


def _whole(rows: list[dict[str, Any]], command: str) -> None:
    gains = np.array([row["gain_dice"] for row in rows])
    told = [{name: row[f"sign_{name}"] for name in SIGNS} for row in rows]
    shares = np.array([MASSES if row["scene"] == "heterogeneous" else 1.0 for row in rows])
    model = fit_logistic(told, list(gains > 0), SIGNS, list(np.abs(gains) * shares))
    (FOLDER / "whole.json").write_text(model.as_json(made_by=command, lesions=len(rows)), encoding="utf-8")
    uneven = np.array([model.probability(row) for row in told]) > 0.5
    lost = np.where(uneven, np.maximum(-gains, 0), np.maximum(gains, 0))
    sys.stdout.write(
        f"whole: {len(rows)} lesions, {uneven.mean():.2f} uneven, Dice lost to the choice {lost.mean():.4f}\n"
    )
    for scene in sorted({row["scene"] for row in rows}):
        here = [n for n, row in enumerate(rows) if row["scene"] == scene]
        sys.stdout.write(f"  {scene}: {len(here)}, uneven {uneven[here].mean():.2f}, lost {lost[here].mean():.4f}\n")


def _small(rows: list[dict[str, float]], command: str) -> None:
    terms = np.array([[row[name] for name in TERMS] for row in rows])
    true = np.array([row["true"] for row in rows])
    found, *_ = np.linalg.lstsq(terms, true, rcond=None)
    rest = float(np.std(true - terms @ found))
    told = {"made_by": command, "lesions": len(rows), "log_sd": round(rest, 3)}
    told["coefficients"] = {name: round(float(c), 4) for name, c in zip(TERMS, found, strict=True)}
    (FOLDER / "small.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"small: {len(rows)} lesions, standard deviation of the logarithm {rest:.2f}\n")


def _lesions(crops: int, exams: int) -> Iterator[Lesion]:
    for index in range(crops):
        crop = make_crop(CROP_SEED, index)
        seeds = [lesion.voxel_ijk for lesion in crop.reported]
        for lesion in crop.reported:
            others = [seed for seed in seeds if seed != lesion.voxel_ijk]
            true_ml = np.pi / 6 * lesion.diameter_mm**3 / 1000
            yield crop.scene, crop.pet, lesion.voxel_ijk, lesion.mask, others, true_ml
    for index in range(exams):
        exam = make_exam(EXAM_SEED, index)
        lesions = [lesion for lesion in exam.lesions if lesion.suv_max >= 2.5]
        for lesion in lesions:
            others = [other.voxel_ijk for other in lesions if other is not lesion]
            true_ml = np.pi / 6 * lesion.diameter_mm**3 / 1000
            yield "whole body", exam.pet, lesion.voxel_ijk, lesion.mask, others, true_ml


def _near(pet: Volume, seed: tuple[int, int, int], others: list[tuple[int, int, int]], half_mm: float) -> Neighbourhood:
    near = neighbourhood(pet, seed, half_mm)
    foreign = hotter_foreign(near.image, near.wide, near.seed, noise_of(near.image))
    for other in (near.box.local(o) for o in others):
        if all(0 <= o < n for o, n in zip(other, near.image.shape, strict=True)):
            foreign[other] = True
    return near.within(keep_to_basin(near.image, near.smooth, near.seed, foreign)) if foreign.any() else near


def _dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_], near: Neighbourhood) -> float:
    return float(2 * (mask & truth[near.box.slices]).sum() / max(1, mask.sum() + truth.sum()))


if __name__ == "__main__":
    main(*(int(v) for v in sys.argv[1:3]))

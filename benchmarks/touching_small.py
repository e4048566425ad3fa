"""Touching, small, uneven and faint lesions, and lesions beside hot organs: located rate and Dice by kind.

Run by `python benchmarks/run.py touching_small`; `python benchmarks/touching_small.py 140` takes 140 crops instead.
The crops (`petground.pipeline.phantom.crop`) share nothing with the whole-body phantom. Findings are true: SUVmax to
one or two decimals, in turns, and the slice of the hottest voxel. A lesion without a label counts as not located and
as Dice 0. Located: the label's hottest voxel lies in the lesion meant.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from petground.labeling.finding import Label
from petground.labeling.label import label_exam
from petground.pipeline.phantom.crop import SCENES, make_crop, told

CROPS, SEED = 420, 2026  # a seed that nothing was fitted or tuned on
SIZES_MM = ((0, 6), (6, 8), (8, 10), (10, 15), (15, 25), (25, 40), (40, 120))
CONTRASTS = ((2, 4), (4, 10), (10, 100))
Row = dict[str, Any]


def measure(crops: int = CROPS) -> dict[str, Any]:
    rows: list[Row] = []
    seconds = 0.0
    for index in range(crops):
        crop = make_crop(SEED, index)
        findings = [told(crop, lesion, 1 + (index // len(SCENES)) % 2) for lesion in crop.reported]
        start = time.perf_counter()
        fates = label_exam(crop.pet, findings)
        seconds += time.perf_counter() - start
        for lesion, fate in zip(crop.reported, fates, strict=True):
            row: Row = {
                "scene": crop.scene,
                "shape": lesion.shape,
                "diameter": lesion.diameter_mm,
                "contrast": lesion.contrast,
                "voxel_mm": float(np.prod(crop.scanner.spacing_xyz_mm)) ** (1 / 3),
                "noise": crop.scanner.noise,
                "suv": lesion.suv_max,
                "dice": 0.0,
                "located": False,
                "volume": 0.0,
                "again": crop.drawn_again,
            }
            if isinstance(fate, Label):
                shared, total = (fate.mask & lesion.mask).sum(), fate.mask.sum() + lesion.mask.sum()
                row |= {"dice": float(2 * shared / total), "located": bool(lesion.mask[fate.voxel_ijk])}
                row |= {"volume": float(fate.mask.sum() / lesion.mask.sum()), "method": fate.method}
            rows.append(row)
    return {
        "crops": crops,
        "seed": SEED,
        "drawn_again": sum(row["again"] for row in rows),
        "seconds_per_lesion": round(seconds / len(rows), 4),
        "all": _summary(rows),
        "by_scene": {scene: _summary(rows, lambda row, s=scene: row["scene"] == s) for scene in SCENES},
        "by_diameter_mm": _ranges(rows, "diameter", SIZES_MM),
        "by_contrast": _ranges(rows, "contrast", CONTRASTS),
        "by_voxel_mm": _ranges(rows, "voxel_mm", ((2, 3.2), (3.2, 4.2), (4.2, 5.5))),
        "by_noise": _ranges(rows, "noise", ((0.03, 0.06), (0.06, 0.1), (0.1, 0.15))),
        "by_suv": _ranges(rows, "suv", ((2.5, 3.5), (3.5, 6), (6, 15), (15, 200))),
        "by_shape": {
            shape: _summary(rows, lambda row, s=shape: row["shape"] == s)
            for shape in sorted({r["shape"] for r in rows})
        },
    }


def _ranges(rows: list[Row], name: str, ranges: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    return {f"{a:g}-{b:g}": _summary(rows, lambda row, a=a, b=b: a <= row[name] < b) for a, b in ranges}


def _summary(rows: list[Row], chosen: Callable[[Row], bool] = lambda row: True) -> dict[str, float]:
    rows = [row for row in rows if chosen(row)]
    if not rows:
        return {"lesions": 0}
    dice = np.array([row["dice"] for row in rows])
    return {
        "lesions": len(rows),
        "located": round(float(np.mean([row["located"] for row in rows])), 4),
        "median_dice": round(float(np.median(dice)), 3),
        "mean_dice": round(float(dice.mean()), 3),
        "tenth_percentile_dice": round(float(np.percentile(dice, 10)), 3),
        "dice_below_0.5": round(float((dice < 0.5).mean()), 3),
        "median_volume_ratio": round(float(np.median([row["volume"] for row in rows])), 2),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else CROPS), indent=1) + "\n")

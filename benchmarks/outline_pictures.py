"""docs/images/outlines.png: what outlines look like beside the truth, one crop of each kind.

python benchmarks/outline_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from petground.labeling.finding import Label
from petground.labeling.label import label_exam
from petground.pipeline.phantom.crop import SCENES, Crop, make_crop, told

SEED = 2027
PATH = Path(__file__).resolve().parents[1] / "docs" / "images" / "outlines.png"
SHOWN_MM = 42.0


def main() -> None:
    figure = Figure(figsize=(12.0, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(2, 4).ravel())
    scenes = [(scene, 0) for scene in SCENES] + [("alone", 1)]
    for axes, (scene, turn) in zip(panels, scenes, strict=True):
        _panel(axes, _fitting_crop(scene, small=turn == 1), scene if turn == 0 else "under 10 mm")
    figure.suptitle(
        "white: true extent (grey: of other lesions); red: the label; cyan: another reported lesion's label; 8 cm wide",
        fontsize=9,
    )
    figure.savefig(PATH, dpi=110)


def _fitting_crop(scene: str, small: bool) -> Crop:
    """The first crop of the scene with a lesion of a size that can be seen (or under 10 mm)."""
    for index in range(500):
        crop = make_crop(SEED, index, scene)
        lesion = crop.reported[0]
        k = lesion.voxel_ijk[2]
        seen = scene not in ("touching", "unreported") or sum(bool(o.mask[:, :, k].any()) for o in crop.lesions) > 1
        if seen and (7 < lesion.diameter_mm < 9.5 if small else 16 < lesion.diameter_mm < 60):
            return crop
    raise RuntimeError(f"no such crop of {scene}")


def _panel(axes: object, crop: Crop, title: str) -> None:
    fates = label_exam(crop.pet, [told(crop, lesion) for lesion in crop.reported])
    lesion, fate = crop.reported[0], fates[0]
    i, j, k = lesion.voxel_ijk
    x, y, _ = crop.pet.spacing_ijk_mm
    extent = [-(i + 0.5) * x, (crop.pet.shape[0] - i - 0.5) * x, -(j + 0.5) * y, (crop.pet.shape[1] - j - 0.5) * y]
    axes.imshow(  # type: ignore[attr-defined]
        crop.pet.array[:, :, k].T, cmap="gray_r", origin="lower", extent=extent, vmin=0, vmax=1.1 * lesion.suv_max
    )
    h = (np.arange(crop.pet.shape[0]) - i) * x
    v = (np.arange(crop.pet.shape[1]) - j) * y
    for other in crop.lesions:
        _ring(axes, h, v, other.mask[:, :, k], "white" if other is lesion else "0.75", 2.2)
    for n, other_fate in enumerate(fates):
        if isinstance(other_fate, Label):
            _ring(axes, h, v, other_fate.mask[:, :, k], "red" if n == 0 else "cyan", 1.2)
    axes.set(xlim=(-SHOWN_MM, SHOWN_MM), ylim=(-SHOWN_MM, SHOWN_MM), xticks=[], yticks=[])  # type: ignore[attr-defined]
    said = "no label"
    if isinstance(fate, Label):
        dice = 2 * (fate.mask & lesion.mask).sum() / (fate.mask.sum() + lesion.mask.sum())
        said = f"Dice {dice:.2f}, {fate.method}, confidence {fate.confidence:.2f}"
    told_as = f"{title.replace('_', ' ')}: {lesion.diameter_mm:.0f} mm, SUVmax {lesion.suv_max:.1f}"
    axes.set_title(f"{told_as}\n{said}", fontsize=8)  # type: ignore[attr-defined]


def _ring(axes: object, h: np.ndarray, v: np.ndarray, inside: np.ndarray, colour: str, width: float) -> None:
    """The outline along the voxels' borders."""
    if not inside.any():
        return
    fine = np.kron(inside.T.astype(float), np.ones((8, 8)))
    step_h, step_v = h[1] - h[0], v[1] - v[0]
    fine_h = h[0] - step_h / 2 + (np.arange(fine.shape[1]) + 0.5) * step_h / 8
    fine_v = v[0] - step_v / 2 + (np.arange(fine.shape[0]) + 0.5) * step_v / 8
    axes.contour(fine_h, fine_v, fine, levels=[0.5], colors=[colour], linewidths=width)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

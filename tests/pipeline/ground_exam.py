"""An exam to ground on, and a stand-in for the network that reads sides and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.training.grid import GridSpec
from petground.training.inference import Prediction

LEFT_MM, RIGHT_MM = np.array([-40.0, 2.0, 360.0]), np.array([36.0, 10.0, 480.0])


class SideModule:
    """Marks voxels with SUV above 4 on the side that the sentence names; grid axis x counts towards the right."""

    threshold = 0.5

    grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24))

    def __init__(self) -> None:
        self.read: list[str] = []

    def predict(self, image: np.ndarray[Any, Any], sentences: list[str]) -> Prediction:
        self.read += sentences
        hot = (np.asarray(image)[0] > 0.25).astype(np.float32)
        right = np.arange(hot.shape[2]) >= hot.shape[2] // 2
        side = {"left": ~right, "right": right}
        words = [next((w for w in ("left", "right") if w in s), None) for s in sentences]
        maps = [0.9 * hot * side[w][None, None, :] if w is not None else 0.1 * hot for w in words]
        return Prediction(np.stack(maps), None)


def make_exam(folder: Path) -> Path:
    """A body with a lesion low at the left (SUV 8) and one high at the right (SUV 6), stored as L-P-S."""
    affine = np.diag([-4.0, -4.0, 6.0, 1.0])
    affine[:3, 3] = (80.0, 72.0, 300.0)
    pet = Volume(np.zeros((40, 36, 40), dtype=np.float32), affine, "SUVbw")
    world = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
    pet.array[(np.abs(world[..., 0]) < 64) & (np.abs(world[..., 1]) < 50)] = 1.0
    for centre, suv in ((LEFT_MM, 8.0), (RIGHT_MM, 6.0)):
        pet.array[np.linalg.norm(world - centre, axis=-1) < 18] = 5.0
        pet.array[tuple(np.rint(pet.to_index(centre)).astype(int))] = suv
    write_nifti(folder / "pet.nii.gz", pet)
    hu = np.where(pet.array > 0, 40, -1000).astype(np.int16)
    write_nifti(folder / "ct.nii.gz", Volume(hu, affine, "HU"))
    return folder


def stand_in(monkeypatch: pytest.MonkeyPatch) -> SideModule:
    """What every checkpoint loads as from here on."""
    module = SideModule()
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: module)
    return module

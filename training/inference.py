"""A whole report on one exam: the image, or each window of it, encoded once, all sentences decoded from that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import ConfigError, InputError, SuvError
from petground.labeling.volume import Volume
from petground.training.grid import to_model_grid, to_pet_grid
from petground.training.metrics import Component, best_component

__all__ = ["Grounding", "Prediction", "ground_volumes", "load_module"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """probabilities [S, Z, Y, X] in 0..1, maybe read from a temporary file; presence [S] in 0..1, or None.

    presence is None when the network has no presence head.
    """

    probabilities: NDArray[np.float32]
    presence: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Grounding:
    """What the model says to one sentence.

    probability: on the PET grid. mask: [I, J, K] bool there, one connected component, empty when the model says no.
    presence: what the network's presence head says; without one the mean probability inside the mask, or the highest
    anywhere when it is empty. voxel_ijk, suv_max [g/ml]:
    the PET's hottest voxel inside the mask; None when it is empty. marked: what the network marked where the mask was
    drawn anew on the PET (`pipeline.redraw`), else None.
    """

    sentence: str
    probability: Volume
    mask: NDArray[np.bool_]
    presence: float
    voxel_ijk: tuple[int, int, int] | None
    suv_max: float | None
    volume_ml: float
    marked: NDArray[np.bool_] | None = None

    @property
    def found(self) -> bool:
        return self.voxel_ijk is not None


def load_module(checkpoint: Path, *, device: str = "auto") -> Any:
    """The trained GroundingModule of a checkpoint, in evaluation mode on its device.

    device: "auto" (a GPU when there is one), "cpu", "cuda", "mps". Raises InputError when the file is missing or no
    checkpoint of this project, ConfigError for a device that is not there.
    """
    import torch

    from petground.models.registry import BlockError
    from petground.models.text.encoder import TextEncoderError
    from petground.training.checkpoints import read_checkpoint
    from petground.training.module import GroundingModule
    from petground.training.runtime import channels_last_on_cpu

    content = read_checkpoint(checkpoint)
    try:
        module = GroundingModule(**content["hyper_parameters"])
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
    except (BlockError, TextEncoderError) as error:
        raise ConfigError(str(error), case=checkpoint.name) from error
    except (RuntimeError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{checkpoint.name} is not a whole checkpoint of this release ({type(error).__name__})",
            fix="use the run's last.ckpt, or train anew with this release",
        ) from error
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        module = module.to(torch.device(place)).eval()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{device}' cannot be used here", fix="try --device cpu") from error
    channels_last_on_cpu(module.net)
    return module


def ground_volumes(
    module: Any,
    pet: Volume,
    ct: Volume | None,
    sentences: Sequence[str],
    *,
    threshold: float | None = None,
    near_mm: Sequence[tuple[float, float] | None] | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> Iterator[Grounding]:
    """Answers to `sentences`, in order, one at a time: of full resolution one map is held at once. Those on the
    model's grid lie in memory, or in a temporary file where they are more than `sliding.IN_MEMORY`.

    module: from `load_module`. pet in SUVbw, ct in HU on its own grid, or None. The image is encoded once; equal
    sentences are decoded once. `threshold` is the probability above which a voxel is marked, None for the module's own,
    chosen on its validating exams. Raises SuvError when the PET is not SUVbw.

    Where the module slides over the exam: near_mm tells for each sentence between which heights (RAS z) its answer must
    have a voxel, None: anywhere, and windows that do not reach there are left out; tick(done, total) counts windows.
    """
    if pet.unit != "SUVbw":
        raise SuvError(f"the PET counts in {pet.unit}, the model reads SUVbw", fix="convert it to SUVbw first")
    if not sentences:
        return
    limit = module.threshold if threshold is None else threshold
    image, template = to_model_grid(pet, ct, module.grid)
    if module.grid.patch_zyx is None:
        asked = [(sentence, None) for sentence in sentences]
        distinct = list(dict.fromkeys(asked))
        predicted = module.predict(image, [words for words, _ in distinct])
    else:
        asked = list(zip(sentences, near_mm or [None] * len(sentences), strict=True))
        distinct = list(dict.fromkeys(asked))
        near = [_slices(template, between) for _, between in distinct]
        predicted = module.predict(image, [words for words, _ in distinct], near=near, tick=tick)
    for sentence, key in zip(sentences, asked, strict=True):
        which = distinct.index(key)
        probability = to_pet_grid(predicted.probabilities[which], template, pet)
        component = best_component(probability.array, threshold=limit, where=_between(pet, key[1]))
        if predicted.presence is not None:
            presence = float(predicted.presence[which])
            mask = component.mask if presence >= module.presence_threshold else np.zeros_like(component.mask)
            component = Component(mask, presence)
        yield _answer(sentence, probability, component, pet)


def _between(pet: Volume, heights_mm: tuple[float, float] | None) -> NDArray[np.bool_] | None:
    """[I, J, K] bool: voxels whose centre lies between two heights (RAS z), half a voxel more to either side."""
    if heights_mm is None:
        return None
    i, j, k = np.ogrid[tuple(slice(n) for n in pet.shape)]
    steps = pet.affine[2, :3]
    z_mm = steps[0] * i + steps[1] * j + steps[2] * k + pet.affine[2, 3]
    half = 0.5 * float(np.abs(steps).max())
    inside: NDArray[np.bool_] = (z_mm >= min(heights_mm) - half) & (z_mm <= max(heights_mm) + half)
    return inside


def _slices(template: Volume, between_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    """Heights in RAS mm as z of the tensor; the template's axes run along RAS."""
    if between_mm is None:
        return None
    low, high = (float(template.to_index([*template.to_world_mm([0, 0, 0])[:2], z])[2]) for z in sorted(between_mm))
    return low, high


def _answer(sentence: str, probability: Volume, component: Component, pet: Volume) -> Grounding:
    voxel, suv = None, None
    if not component.empty:
        inside = np.where(component.mask, pet.array, -np.inf)
        i, j, k = (int(v) for v in np.unravel_index(int(inside.argmax()), pet.shape))
        voxel, suv = (i, j, k), float(pet.array[i, j, k])
    volume_ml = float(np.count_nonzero(component.mask)) * pet.voxel_ml
    return Grounding(sentence, probability, component.mask, component.presence, voxel, suv, volume_ml)

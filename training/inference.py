"""A whole report on one exam: the image encoded once, every sentence decoded from the same features."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
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
    """probabilities [S, Z, Y, X] in 0..1; presence [S] in 0..1, None when the network has no presence head."""

    probabilities: NDArray[np.float32]
    presence: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Grounding:
    """What the model says to one sentence.

    probability: on the PET grid. mask: [I, J, K] bool there, one connected component, empty when the model says no.
    presence: what the network's presence head says; without one the mean probability inside the mask, or the highest
    anywhere when it is empty. voxel_ijk, suv_max [g/ml]:
    the PET's hottest voxel inside the mask; None when it is empty.
    """

    sentence: str
    probability: Volume
    mask: NDArray[np.bool_]
    presence: float
    voxel_ijk: tuple[int, int, int] | None
    suv_max: float | None
    volume_ml: float

    @property
    def found(self) -> bool:
        return self.voxel_ijk is not None


def load_module(checkpoint: Path, *, device: str = "auto") -> Any:
    """The trained GroundingModule of a checkpoint, in evaluation mode on its device.

    device: "auto" (a GPU when there is one), "cpu", "cuda", "mps". Raises InputError when the file is missing or no
    checkpoint of this project, ConfigError for a device that is not there.
    """
    if not checkpoint.is_file():
        raise InputError(f"no checkpoint at {checkpoint}", fix="train first, or name a .ckpt file of the run")
    import torch

    from petground.models.registry import BlockError
    from petground.models.text.encoder import TextEncoderError
    from petground.training.module import GroundingModule

    try:
        # weights_only: a checkpoint comes from elsewhere, and a pickle may run anything
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        module = GroundingModule(**content["hyper_parameters"])
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
    except (BlockError, TextEncoderError) as error:
        raise ConfigError(str(error), case=checkpoint.name) from error
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{checkpoint.name} is not a whole checkpoint of this release ({type(error).__name__})",
            fix="use the run's last.ckpt, or train anew with this release",
        ) from error
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return module.to(torch.device(place)).eval()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{device}' cannot be used here", fix="try --device cpu") from error


def ground_volumes(
    module: Any, pet: Volume, ct: Volume | None, sentences: Sequence[str], *, threshold: float | None = None
) -> Iterator[Grounding]:
    """Answers to `sentences`, in order, one at a time: only one full-resolution map is held at once.

    module: from `load_module`. pet in SUVbw, ct in HU on its own grid, or None. The image is encoded once; equal
    sentences are decoded once. `threshold` is the probability above which a voxel is marked, None for the module's own,
    chosen on its validating exams. Raises SuvError when the PET is not SUVbw.
    """
    if pet.unit != "SUVbw":
        raise SuvError(f"the PET counts in {pet.unit}, the model reads SUVbw", fix="convert it to SUVbw first")
    if not sentences:
        return
    limit = module.threshold if threshold is None else threshold
    distinct = list(dict.fromkeys(sentences))
    image, template = to_model_grid(pet, ct, module.grid)
    predicted = module.predict(image, distinct)
    for sentence in sentences:
        which = distinct.index(sentence)
        probability = to_pet_grid(predicted.probabilities[which], template, pet)
        component = best_component(probability.array, threshold=limit)
        if predicted.presence is not None:
            presence = float(predicted.presence[which])
            mask = component.mask if presence >= module.presence_threshold else np.zeros_like(component.mask)
            component = Component(mask, presence)
        yield _answer(sentence, probability, component, pet)


def _answer(sentence: str, probability: Volume, component: Component, pet: Volume) -> Grounding:
    voxel, suv = None, None
    if not component.empty:
        inside = np.where(component.mask, pet.array, -np.inf)
        i, j, k = (int(v) for v in np.unravel_index(int(inside.argmax()), pet.shape))
        voxel, suv = (i, j, k), float(pet.array[i, j, k])
    volume_ml = float(np.count_nonzero(component.mask)) * pet.voxel_ml
    return Grounding(sentence, probability, component.mask, component.presence, voxel, suv, volume_ml)

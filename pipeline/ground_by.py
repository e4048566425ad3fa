"""Who is asked: a trained checkpoint, or a peer in its own environment. Both answer in masks on the PET grid."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import ConfigError
from petground.labeling.numbering import slice_number, slice_to_k
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.files import sha256_of
from petground.pipeline.peers.voxtell import VoxTell, ask, require
from petground.pipeline.prompts import PromptMode, with_values
from petground.pipeline.read import Exam

__all__ = ["Answer", "Asked", "Grounder", "by_checkpoint", "by_voxtell"]

Tick = Callable[[str, int, int], None]
MARGIN_MM = 50.0  # around the reported slice, where the model is told of it: far more than readers' slices are off


@dataclass(frozen=True)
class Asked:
    """One sentence to ground: `prompt` is what the model reads, without the reported values unless it wants them."""

    finding_id: str
    sentence: str
    prompt: str
    suv: float | None
    slice: int | None
    site: str | None = None
    laterality: str | None = None

    @property
    def has_words(self) -> bool:
        """Whether anything but numbers is left for the model to read."""
        return any(letter.isalpha() for letter in self.prompt)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was said to one sentence: `training.inference.Grounding` without the map.

    mask: [I, J, K] bool on the PET grid, empty when nothing was seen. presence: 0..1, None of who does not tell one.
    voxel_ijk, suv_max [g/ml]: the PET's hottest voxel inside the mask; None when it is empty.
    """

    mask: NDArray[np.bool_]
    presence: float | None
    voxel_ijk: tuple[int, int, int] | None
    suv_max: float | None
    volume_ml: float


@dataclass(frozen=True, eq=False)
class Grounder:
    """answers(images, asked, case, tick): an answer to each sentence, in order. reads: what it wants told of them.

    facts: who it was, for findings.json; whole once it has answered. not_looked_at(images, site): runs of PET slices
    that it does not see.
    """

    answers: Callable[[Exam, Sequence[Asked], str, Tick], Iterator[Any]]
    reads: PromptMode
    facts: dict[str, Any]
    not_looked_at: Callable[[Exam, Site], list[dict[str, Any]]]

    @property
    def named(self) -> str:
        """In a few words, for DICOM."""
        if "peer" in self.facts:
            return f"{self.facts['peer']} {self.facts.get('versions', {}).get(self.facts['peer'], '')}".strip()
        return f"{self.facts['checkpoint']} {(self.facts['sha256'] or '')[:12]}".strip()

    def told(self, asked: Sequence[Asked]) -> list[Asked]:
        """The sentences as it reads them."""
        return [replace(one, prompt=with_values(one.prompt, self.reads, one.suv, one.slice)) for one in asked]


def by_checkpoint(checkpoint: Path, device: str, slice_margin_mm: float | None, site: Site) -> Grounder:
    """A model of `petground train`. Errors as `training.inference.load_module`; ConfigError for a negative margin."""
    # Named by string: pipeline must not know of networks (import contract), the command line joins the rooms.
    load_module = pkgutil.resolve_name("petground.training.inference:load_module")
    ground_volumes = pkgutil.resolve_name("petground.training.inference:ground_volumes")
    if slice_margin_mm is not None and slice_margin_mm < 0:
        raise ConfigError(f"--slice-margin-mm is {slice_margin_mm:g}", fix="give 0 or more")
    module = load_module(checkpoint, device=device)
    reads: PromptMode = getattr(module, "prompt", "words")
    margin = MARGIN_MM if slice_margin_mm is None and reads in ("words+slice", "all") else slice_margin_mm
    sha256 = sha256_of(checkpoint) if checkpoint.is_file() else None

    def answers(images: Exam, asked: Sequence[Asked], case: str, tick: Tick) -> Iterator[Any]:
        near = [_near(one, images, site, margin) for one in asked]
        prompts, windows = [one.prompt for one in asked], partial(tick, "windows")
        return iter(ground_volumes(module, images.pet, images.ct, prompts, near_mm=near, tick=windows))

    return Grounder(
        answers,
        reads,
        {"checkpoint": checkpoint.name, "sha256": sha256, "slice_margin_mm": margin},
        lambda images, site: _not_looked_at(module.grid, images, site),
    )


def by_voxtell(peer: VoxTell) -> Grounder:
    """VoxTell, which reads one image and the words alone, and looks at all of it. Raises as `peers.voxtell.require`."""
    require(peer)
    facts: dict[str, Any] = {"peer": "voxtell"}

    def answers(images: Exam, asked: Sequence[Asked], case: str, tick: Tick) -> Iterator[Any]:
        said = ask(peer, images.pet, images.ct, [one.prompt for one in asked], case=case, tick=tick)
        facts.update(said.facts)
        return (_measured(mask, images.pet) for mask in said.masks)

    return Grounder(answers, "words", facts, lambda images, site: [])


def _measured(mask: NDArray[np.bool_], pet: Volume) -> Answer:
    volume_ml = float(np.count_nonzero(mask)) * pet.voxel_ml
    if not mask.any():
        return Answer(mask, None, None, None, volume_ml)
    i, j, k = (int(n) for n in np.unravel_index(int(np.where(mask, pet.array, -np.inf).argmax()), pet.shape))
    return Answer(mask, None, (i, j, k), float(pet.array[i, j, k]), volume_ml)


def _near(one: Asked, images: Exam, site: Site, margin_mm: float | None) -> tuple[float, float] | None:
    """Heights (RAS z) between which a sentence's lesion is looked for; None: anywhere."""
    at = slice_to_k(one.slice, images.pet, site, images.ct) if margin_mm is not None and one.slice is not None else None
    if not at or margin_mm is None:
        return None
    middle = [(n - 1) / 2 for n in images.pet.shape[:2]]
    low, high = sorted(float(images.pet.to_world_mm([*middle, k])[2]) for k in (at[0], at[-1]))
    return low - margin_mm, high + margin_mm


def _not_looked_at(spec: Any, images: Exam, site: Site) -> list[dict[str, Any]]:
    """Runs of PET slices whose middle lies above or below the model's grid: what the site prints, index and place."""
    template = pkgutil.resolve_name("petground.training.grid:model_template")(images.pet, spec)
    middle_ijk = [[(n - 1) / 2 for n in images.pet.shape[:2]] + [k] for k in range(images.pet.shape[2])]
    z_mm = images.pet.to_world_mm(np.array(middle_ijk, dtype=float))[:, 2]
    along = template.to_index(np.c_[np.tile(template.to_world_mm([0, 0, 0])[:2], (len(z_mm), 1)), z_mm])[:, 2]
    outside = np.flatnonzero((along < -0.5) | (along > template.shape[2] - 0.5))
    runs = np.split(outside, np.flatnonzero(np.diff(outside) > 1) + 1) if outside.size else []
    return [
        {
            "slices": sorted(slice_number(int(k), images.pet, site, images.ct) for k in (run[0], run[-1])),
            "voxel_k": [int(run[0]), int(run[-1])],
            "z_mm": sorted(round(float(z_mm[k]), 1) for k in (run[0], run[-1])),
        }
        for run in runs
    ]

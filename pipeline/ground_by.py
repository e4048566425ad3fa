"""Who is asked: a trained checkpoint, or a peer in its own environment. Both answer in masks on the PET grid.

`ground` and `evaluate` ask here, so that what is measured is what a report gets.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import ConfigError, GeometryError
from petground.labeling.finding import Laterality
from petground.labeling.numbering import site_for_series, slice_number, slice_to_k
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.files import sha256_of
from petground.pipeline.peers.voxtell import ImageKind, VoxTell, ask, require
from petground.pipeline.prompts import PromptMode, with_values
from petground.pipeline.redraw import Redraw, redrawn, redraws

__all__ = ["Answer", "Asked", "Grounder", "Peer", "by_checkpoint", "by_voxtell", "chosen", "reported_k"]

Peer = Literal["voxtell"]
Tick = Callable[[str, int, int], None]
MARGIN_MM = 50.0  # around the reported slice, where the model is told of it: far more than readers' slices are off


@dataclass(frozen=True)
class Asked:
    """One sentence to ground: `prompt` is what the model reads, without the reported values unless it wants them.

    denied: the sentence says that nothing is there.
    """

    finding_id: str
    sentence: str
    prompt: str
    suv: float | None
    slice: int | None
    site: str | None = None
    laterality: Laterality | None = None
    series: int | None = None
    denied: bool = False

    @property
    def has_words(self) -> bool:
        """Whether anything but numbers is left for the model to read."""
        return any(letter.isalpha() for letter in self.prompt)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was said to one sentence: `training.inference.Grounding` without the map.

    mask: [I, J, K] bool on the PET grid, empty when nothing was seen. presence: 0..1, None of who does not tell one.
    voxel_ijk, suv_max [g/ml]: the PET's hottest voxel inside the mask; None when it is empty. marked: what the model
    marked where `mask` was drawn anew on the PET, else None.
    """

    mask: NDArray[np.bool_]
    presence: float | None
    voxel_ijk: tuple[int, int, int] | None
    suv_max: float | None
    volume_ml: float
    marked: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Grounder:
    """answers(pet, ct, site, asked, case, tick): an answer to each sentence, in order.

    reads: what it wants told of them. facts: who it was, for findings.json; whole once it has answered.
    not_looked_at(pet, ct, site): runs of PET slices that it does not see. provenance: of a checkpoint, what it was
    trained on.
    """

    answers: Callable[[Volume, Volume | None, Site, Sequence[Asked], str, Tick], Iterator[Any]]
    reads: PromptMode
    facts: dict[str, Any]
    not_looked_at: Callable[[Volume, Volume | None, Site], list[dict[str, Any]]]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def surety(self) -> str:
        """What an answer's `presence` is, in a word: without a head for it, the mean probability inside the mask."""
        return "presence" if self.facts.get("presence_head") else "probability"

    @property
    def named(self) -> str:
        """In a few words, for DICOM."""
        if "peer" in self.facts:
            return f"{self.facts['peer']} {self.facts.get('versions', {}).get(self.facts['peer'], '')}".strip()
        return f"{self.facts['checkpoint']} {(self.facts['sha256'] or '')[:12]}".strip()

    def told(self, asked: Sequence[Asked]) -> list[Asked]:
        """The sentences as it reads them."""
        return [replace(one, prompt=with_values(one.prompt, self.reads, one.suv, one.slice)) for one in asked]


def chosen(
    peer: Peer | None,
    checkpoint: Path | None,
    device: str,
    slice_margin_mm: float | None,
    of_peer: tuple[Path | None, Path | None, ImageKind | None],
    outline: Redraw = "auto",
) -> Grounder:
    """Who answers, by a command's options; of_peer: --peer-python, --peer-model, --peer-image; outline: see `redraw`.

    Raises ConfigError unless one of checkpoint and peer is given, and for options of the other.
    """
    if (peer is None) == (checkpoint is None):
        both = "one of --checkpoint and --peer is needed, not both"
        raise ConfigError(both, fix="--checkpoint FILE or --peer voxtell")
    python, model, image = of_peer
    if checkpoint is not None:
        for name, value in (("python", python), ("model", model), ("image", image)):
            if value is not None:
                raise ConfigError(f"--peer-{name} belongs to a peer", fix="add --peer voxtell, or leave it out")
        return by_checkpoint(checkpoint, device, slice_margin_mm, outline)
    if slice_margin_mm is not None:
        raise ConfigError("--slice-margin-mm is of a checkpoint's model; VoxTell looks everywhere", fix="leave it out")
    return by_voxtell(VoxTell(python, model, image or "pet", device), outline)


def by_checkpoint(checkpoint: Path, device: str, slice_margin_mm: float | None, outline: Redraw = "auto") -> Grounder:
    """A model of `petground train`. Errors as `training.inference.load_module`; ConfigError for a negative margin."""
    # Named by string: pipeline must not know of networks (import contract), the command line joins the rooms.
    load_module = pkgutil.resolve_name("petground.training.inference:load_module")
    ground_volumes = pkgutil.resolve_name("petground.training.inference:ground_volumes")
    model_template = pkgutil.resolve_name("petground.training.grid:model_template")
    if slice_margin_mm is not None and slice_margin_mm < 0:
        raise ConfigError(f"--slice-margin-mm is {slice_margin_mm:g}", fix="give 0 or more")
    module = load_module(checkpoint, device=device)
    reads: PromptMode = getattr(module, "prompt", "words")
    margin = MARGIN_MM if slice_margin_mm is None and reads in ("words+slice", "all") else slice_margin_mm
    if module.grid.patch_zyx is None:
        if slice_margin_mm is not None:
            raise ConfigError(
                f"--slice-margin-mm leaves windows out, and {checkpoint.name} looks at the whole exam at once",
                fix="leave it out",
            )
        margin = None
    sha256 = sha256_of(checkpoint) if checkpoint.is_file() else None

    def answers(
        pet: Volume, ct: Volume | None, site: Site, asked: Sequence[Asked], case: str, tick: Tick
    ) -> Iterator[Any]:
        near = [_near(one, pet, ct, site, margin) for one in asked]
        prompts, windows = [one.prompt for one in asked], partial(tick, "windows")
        said = ground_volumes(module, pet, ct, prompts, near_mm=near, tick=windows)
        return _outlined(said, pet, site, outline, model_template(pet, module.grid).spacing_ijk_mm, facts)

    facts = {
        "checkpoint": checkpoint.name,
        "sha256": sha256,
        "slice_margin_mm": margin,
        "threshold": module.threshold,
        "presence_threshold": getattr(module, "presence_threshold", 0.0),
        "presence_head": getattr(getattr(module, "net_config", None), "presence", False),
    }
    return Grounder(
        answers,
        reads,
        facts,
        partial(_not_looked_at, module.grid),
        getattr(module, "provenance", {}),
    )


def by_voxtell(peer: VoxTell, outline: Redraw = "auto") -> Grounder:
    """VoxTell, which reads one image and the words alone, and looks at all of it. Raises as `peers.voxtell.require`."""
    require(peer)
    facts: dict[str, Any] = {"peer": "voxtell"}

    def answers(
        pet: Volume, ct: Volume | None, site: Site, asked: Sequence[Asked], case: str, tick: Tick
    ) -> Iterator[Any]:
        said = ask(peer, pet, ct, [one.prompt for one in asked], case=case, tick=tick)
        facts.update(said.facts)
        return _outlined((_measured(mask.array, pet) for mask in said.masks), pet, site, outline, None, facts)

    return Grounder(answers, "words", facts, lambda pet, ct, site: [])


def _outlined(
    answers: Iterator[Any],
    pet: Volume,
    site: Site,
    outline: Redraw,
    model_spacing_mm: tuple[float, ...] | None,
    facts: dict[str, Any],
) -> Iterator[Any]:
    """The answers, with the PET's outlines where those are wanted; facts learn whose they are."""
    anew = redraws(outline, pet, model_spacing_mm)
    facts["outline"] = "pet" if anew else "model"
    return (redrawn(one, pet, site, model_spacing_mm) for one in answers) if anew else answers


def _measured(mask: NDArray[np.bool_], pet: Volume) -> Answer:
    volume_ml = float(np.count_nonzero(mask)) * pet.voxel_ml
    if not mask.any():
        return Answer(mask, None, None, None, volume_ml)
    i, j, k = (int(n) for n in np.unravel_index(int(np.where(mask, pet.array, -np.inf).argmax()), pet.shape))
    return Answer(mask, None, (i, j, k), float(pet.array[i, j, k]), volume_ml)


def _near(
    one: Asked, pet: Volume, ct: Volume | None, site: Site, margin_mm: float | None
) -> tuple[float, float] | None:
    """Heights (RAS z) between which a sentence's lesion is looked for; None: anywhere."""
    at = None if margin_mm is None else reported_k(one, pet, ct, site)
    if margin_mm is None or at is None:
        return None
    middle = [(n - 1) / 2 for n in pet.shape[:2]]
    low, high = sorted(float(pet.to_world_mm([*middle, k])[2]) for k in (at[0], at[-1]))
    return low - margin_mm, high + margin_mm


def reported_k(one: Asked, pet: Volume, ct: Volume | None, site: Site) -> range | None:
    """PET indices of the slice that the sentence reports; None where it reports none, or none that lies on the PET."""
    counted = site_for_series(site, one.series, pet, ct)
    if one.slice is None or counted is None:
        return None
    try:
        return slice_to_k(one.slice, pet, counted, ct) or None
    except GeometryError:  # counted by numbers that these images do not carry
        return None


def _not_looked_at(spec: Any, pet: Volume, ct: Volume | None, site: Site) -> list[dict[str, Any]]:
    """Runs of PET slices whose middle lies above or below the model's grid: what the site prints, index and place."""
    template = pkgutil.resolve_name("petground.training.grid:model_template")(pet, spec)
    middle_ijk = [[(n - 1) / 2 for n in pet.shape[:2]] + [k] for k in range(pet.shape[2])]
    z_mm = pet.to_world_mm(np.array(middle_ijk, dtype=float))[:, 2]
    along = template.to_index(np.c_[np.tile(template.to_world_mm([0, 0, 0])[:2], (len(z_mm), 1)), z_mm])[:, 2]
    outside = np.flatnonzero((along < -0.5) | (along > template.shape[2] - 0.5))
    runs = np.split(outside, np.flatnonzero(np.diff(outside) > 1) + 1) if outside.size else []
    return [
        {
            "slices": sorted(slice_number(int(k), pet, site, ct) for k in (run[0], run[-1])),
            "voxel_k": [int(run[0]), int(run[-1])],
            "z_mm": sorted(round(float(z_mm[k]), 1) for k in (run[0], run[-1])),
        }
        for run in runs
    ]

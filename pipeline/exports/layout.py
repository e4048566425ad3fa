"""What a format is: where a case's files go, what it needs, and the index that is written last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petground.pipeline.exports.select import ExamOut

__all__ = ["CaseFiles", "Layout", "Namer", "Options", "Release", "Released", "lesion_row"]

Namer = Callable[[str, str], str]
"""Kind ("exam" or "patient") and id to the name that stands for it in a release."""


@dataclass(frozen=True)
class CaseFiles:
    """Paths of one case relative to the data set's folder; None or absent for what the format does not have."""

    pet: str
    ct: str | None = None
    union: str | None = None
    masks: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(path for path in (self.pet, self.ct, self.union, *self.masks.values()) if path)


@dataclass(frozen=True)
class Options:
    """What the user asked for; goes into the card, the key file does not."""

    to: str
    shares: Mapping[str, float]
    seed: int = 0
    min_confidence: float = 0.0
    spacing_xyz_mm: tuple[float, float, float] | None = None
    ct_grid: bool = False
    incomplete: str = "ignore"
    drop_duplicates: bool = False
    link: bool = False
    dataset: str = "Dataset501_Petground"
    pet_normalization: str = "image"
    licence: str = "not stated"


@dataclass(frozen=True)
class Released:
    """One case as it lies in the release. patient: a keyed hash, None where no key was given. voxels: by finding."""

    case: str
    split: str
    fold: int
    exam: ExamOut
    files: CaseFiles
    patient: str | None = None
    voxels: Mapping[str, int] = field(default_factory=dict)
    ignored_voxels: int = 0


@dataclass(frozen=True)
class Release:
    """All cases of a release by name, with what was asked for and the version that made it."""

    root: Path
    options: Options
    cases: Sequence[Released]
    folds: int
    version: str

    def of(self, split: str) -> list[Released]:
        """The cases of train, val or test."""
        return [case for case in self.cases if case.split == split]


@dataclass(frozen=True)
class Layout:
    """A format. `index` writes its files under the root and returns their names; they make the data set complete.

    words: cases are sentences with a mask each. upright: images are turned to RAS+. only_ct: a case needs a CT.
    indices: the names of all files that `index` may write.
    """

    words: bool
    upright: bool
    only_ct: bool
    files: Callable[[str, str, Sequence[str], bool], CaseFiles]
    index: Callable[[Release], list[str]]
    indices: tuple[str, ...]
    about: str


def lesion_row(released: Released, number: int) -> dict[str, Any]:
    """What text formats tell of one sentence-mask pair beside the paths."""
    lesion = released.exam.lesions[number]
    return {
        "case": released.case,
        "finding": lesion.finding_id,
        "sentence": lesion.prompt,
        "patient": released.patient,
        "tracer": released.exam.tracer,
        "site": lesion.site,
        "laterality": lesion.laterality,
        "suv_reported": lesion.suv_reported,
        "suv_measured": lesion.suv_measured,
        "slice_reported": lesion.slice_reported,
        "volume_ml": lesion.volume_ml,
        "confidence": lesion.confidence,
    }

"""What the reports say and what became of it: the records that go from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "IMAGE_REASONS",
    "TEXT_REASONS",
    "WARNINGS",
    "Candidate",
    "Denial",
    "Excluded",
    "Finding",
    "Label",
    "Laterality",
    "Span",
    "Status",
    "SuvKind",
]

Span = tuple[int, int]
Laterality = Literal["left", "right", "bilateral"]
Status = Literal["positive", "excluded"]
SuvKind = Literal["max", "mean", "peak", "unqualified"]

TEXT_REASONS: dict[str, str] = {
    "prior": "value of an earlier exam, or of another exam quoted in the text",
    "reference": "reference tissue: liver, blood pool, marrow, muscle, normal contralateral side",
    "physiologic": "normal organ uptake, excretion, brown fat, stimulated marrow, contamination",
    "negated": "belongs to a negated or non-avid statement",
    "threshold": "a cut-off, display window or hypothetical value",
    "not_max": "mean, average or peak, or lean-body SUV",
    "range": "only a range, or 'up to' over several lesions",
    "not_axial": "only a coronal, sagittal or projection index",
    "ambiguous": "several slices for one SUV, or a value that cannot be assigned",
    "no_slice": "a lesion value without an axial index",
    "repeat": "the same finding told again, in the impression say",
    "disagreement": "the second reader, a language model, read it otherwise",
}
"""Why a mention in a report is not a current lesion with SUVmax and axial slice; the first that applies."""

WARNINGS: dict[str, str] = {
    "at_least": "told as a bound: 'SUVmax > 20', 'at least 9.4'",
    "at_most": "told as a bound: 'SUVmax < 3'",
    "decimal_split": "read as one number across a blank: 'SUVmax 5. 4'",
}
"""What to know of a value that is kept all the same."""

IMAGE_REASONS: dict[str, str] = {
    "slice_outside": "the reported slice is not on the image",
    "suv_below_minimum": "reported SUV below the site's minimum",
    "numbering_unclear": "how slices are counted is not known for this scanner and time",
    "physiologic_organ": "the only fitting maximum lies inside an organ with normal uptake that the text does not name",
    "series_unknown": "the report counts in a series that is neither the PET nor the CT that were read",
    "no_match": "no local maximum of the reported value at the reported slice",
    "ambiguous_match": "several equally good maxima; kept as candidates for review",
    "no_contour": "the lesion could not be told from its surroundings",
    "check_suv": "the label's SUVmax differs from the reported one",
    "check_laterality": "the label lies on the other side than reported",
    "check_volume": "the label is implausibly large or small, or far larger than the size that the text states",
}
"""Why a positive mention got no label on the image."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One SUV value of a report.

    suv: value as reported [g/ml]; suv_decimals the digits printed after the point, so 5.2 stands for
        [5.15, 5.25) and 3.14 for [3.135, 3.145).
    slice: the axial index as printed (not converted; see `numbering`), or None.
    laterality, site: side and lower-case key words of the place, where the text says so.
    status, reason: `positive`, or `excluded` with a key of TEXT_REASONS.
    span: characters of the SUV mention in the report text; sentence_span those of its sentence.
    size_mm: the lesion's longest diameter today as the text states it (see `language.sizes`).
    counted_from: the end that the report says its slices are counted from; it goes before the site's convention.
    warnings: keys of WARNINGS, where the number printed is not simply the value.
    prompt: the words that single this finding out, with every SUV and slice mention cut out by its span:
        what a model may read without being told the answer; of a `negated` one with the words that deny it; empty
        for what a model is never asked for (`prior`, `reference`, `physiologic`, `threshold`).
    """

    suv: float
    slice: int | None
    laterality: Laterality | None
    site: str | None
    status: Status
    reason: str | None
    span: Span
    suv_decimals: int = 1
    suv_kind: SuvKind = "max"
    slice_span: Span | None = None
    sentence: str = ""
    sentence_span: Span = (0, 0)
    section: str | None = None
    prompt: str = ""
    uncertain: bool = False
    size_mm: float | None = None
    series: int | None = None
    counted_from: Literal["head", "feet"] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Denial:
    """A sentence that says, without a value, that nothing is at some places ("No avid axillary or hilar nodes.").

    places: lower-case key words and side of each, as a Finding has them. span: characters of the sentence.
    prompt: its words, which hold no answer; with its heading in front where only that tells the place.
    """

    places: tuple[tuple[str, Laterality | None], ...]
    span: Span
    sentence: str
    section: str | None
    prompt: str


@dataclass(frozen=True)
class Candidate:
    """A local maximum that could be what the report means.

    voxel_ijk: index of the hottest voxel; suv its value; score in [0, 1], higher is better; slice_distance in
    slices from the reported one; evidence names what was for and against it.
    """

    voxel_ijk: tuple[int, int, int]
    suv: float
    score: float
    slice_distance: int = 0
    evidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Label:
    """A lesion outlined on the PET grid.

    mask: [I, J, K] bool, same grid as the PET. suv_measured: the maximum of the PET inside the mask [g/ml].
    slice_measured: the hottest voxel's slice in the site's own numbering. volume_ml: mask volume [ml].
    confidence: probability that the mask overlaps the lesion meant with a Dice of 0.5 or more (see `confidence`);
    measures: what it was computed from. method: the contouring rule that made the mask, why: the reason it was
    chosen. threshold: SUV at its edge.
    """

    mask: NDArray[np.bool_]
    suv_measured: float
    slice_measured: int
    voxel_ijk: tuple[int, int, int]
    volume_ml: float
    confidence: float
    method: str
    threshold: float
    candidates: tuple[Candidate, ...] = ()
    warnings: tuple[str, ...] = ()
    why: str = ""
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Excluded:
    """A finding that got no label: a key of TEXT_REASONS or IMAGE_REASONS, and what was nearest."""

    reason: str
    detail: str = ""
    candidates: tuple[Candidate, ...] = ()

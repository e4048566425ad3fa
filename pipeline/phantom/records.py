"""What a phantom exam consists of; made by `exam`, told by `reports`, written by `write` and `dicom_out`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.volume import Volume

__all__ = ["Lesion", "Patient", "PhantomExam", "PhantomReport"]


@dataclass(frozen=True)
class Patient:
    """Who is scanned: everything random about the body depends on these and the seed."""

    patient_id: str
    sex: str  # F | M
    age: int
    weight_kg: float
    height_cm: float
    tracer: str  # FDG | DOTATATE | DCFPyL | fluciclovine
    study_date: str  # ISO, made up
    dose_mbq: float
    uptake_minutes: float


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion as it lies in the PET that is written, noise and blur included.

    site: lower-case key words as a report says them, without the side ("axillary node", "lower lobe nodule",
        "hepatic segment vii lesion", "t11 vertebral body lesion"). laterality: left | right | None for midline,
        spine and liver segments. mask: true extent on the PET grid [I, J, K] bool. suv_max: maximum of the written PET
        inside the mask [g/ml]; voxel_ijk its place; slice: that voxel's slice from the head, from 1.
    touches: the lesion_id or organ it touches, or None.
    """

    lesion_id: str
    site: str
    laterality: str | None
    region: str  # neck | chest | abdomen | pelvis | musculoskeletal
    mask: NDArray[np.bool_]
    diameter_mm: float
    volume_ml: float
    suv_max: float
    voxel_ijk: tuple[int, int, int]
    slice: int
    touches: str | None = None


@dataclass(frozen=True, eq=False)
class PhantomExam:
    """PET [SUVbw] and CT [HU] on their own grids, with every lesion in them.

    normal: measured values a report may quote, e.g. {"liver": 2.9, "blood pool": 1.9, "left kidney": 12.1}, SUVmax
    with the slice where it is met in `normal_slices`.
    """

    exam_id: str
    patient: Patient
    pet: Volume
    ct: Volume
    lesions: tuple[Lesion, ...]
    normal: dict[str, float] = field(default_factory=dict)
    normal_slices: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PhantomReport:
    """A report and what it says of each lesion.

    told: lesion_id -> the sentence that tells it; only lesions with SUVmax and slice printed are in `reported`.
    printed: lesion_id -> (SUV as printed, slice as printed). truth: rows about every SUV printed, for tests:
    {"suv", "slice", "reason"} where reason is None for a current lesion, else a key of TEXT_REASONS.
    """

    text: str
    told: dict[str, str]
    reported: frozenset[str]
    printed: dict[str, tuple[str, int | None]]
    truth: tuple[dict[str, Any], ...] = ()

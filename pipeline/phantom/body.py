"""Who is scanned and how large: patient data, scales from standard space to millimetres, the contours of the trunk."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petground.pipeline.phantom.records import Patient

__all__ = ["Body", "contour", "make_body", "make_patient"]

TRACERS = {"FDG": 0.72, "DOTATATE": 0.1, "DCFPyL": 0.1, "fluciclovine": 0.08}
MEN_ONLY = {"DCFPyL", "fluciclovine"}  # prostate cancer is what they are made for

DOSE_MBQ = {"FDG": (220, 420), "DOTATATE": (120, 200), "DCFPyL": (300, 350), "fluciclovine": (340, 390)}
UPTAKE_MINUTES = {"FDG": (55, 75), "DOTATATE": (50, 75), "DCFPyL": (60, 120), "fluciclovine": (3, 6)}
"""Administered activity and time to scan: FDG after Boellaard et al., Eur J Nucl Med Mol Imaging 2015;42:328 (60 min,
55-75 accepted); the others after their prescribing information (Netspot, Pylarify, Axumin)."""

HEIGHT_CM = {"F": (163.0, 6.5), "M": (176.0, 7.0)}  # mean and spread of adults
BMI = (26.0, 4.2)

# Heights [mm below the vertex] in a person of 175 cm between which proportions are kept: vertex, chin, top of the
# shoulders, lower end of the chest (T12), iliac crests, perineum, knees.
LANDMARKS_Z = np.array([60.0, 0.0, -228.0, -300.0, -545.0, -710.0, -930.0, -1300.0])

# The muscular trunk of the standard person: z, half width, half depth, y of the centre [mm].
TRUNK = np.array(
    [
        (0, 4, 4, 0), (-3, 25, 32, 0), (-10, 42, 54, 0), (-25, 60, 76, 0), (-50, 72, 90, 0), (-85, 77, 97, 0),
        (-120, 75, 97, 3), (-150, 69, 93, 8), (-185, 61, 82, 14), (-212, 55, 70, 16), (-230, 56, 62, 2),
        (-265, 62, 60, -10), (-285, 84, 66, -14), (-305, 135, 76, -18), (-325, 172, 86, -15), (-345, 184, 95, -10),
        (-380, 174, 101, -4), (-420, 162, 108, 0), (-480, 156, 111, 2), (-540, 150, 108, 3), (-600, 144, 102, 3),
        (-660, 140, 98, 2), (-710, 146, 98, 0), (-760, 160, 102, -3), (-810, 170, 108, -8), (-850, 174, 110, -8),
        (-900, 172, 104, -8), (-935, 168, 92, -8), (-940, 0, 0, -8), (-1400, 0, 0, -8),
    ],
    dtype=np.float64,
)[::-1]  # fmt: skip

# Chest and abdominal cavity: where lungs and fat lie, within the muscular wall.
CAVITY = np.array(
    [
        (-290, 0, 0, -20), (-296, 50, 28, -22), (-310, 72, 45, -20), (-330, 96, 64, -14), (-355, 114, 76, -9),
        (-390, 128, 85, -2), (-430, 136, 91, 0), (-480, 137, 95, 2), (-540, 132, 93, 4), (-600, 127, 87, 5),
        (-660, 122, 82, 6), (-710, 116, 80, 8), (-760, 104, 77, 8), (-800, 86, 74, 4), (-840, 70, 66, 0),
        (-880, 52, 50, -5), (-905, 25, 25, -5), (-912, 0, 0, -5), (-1400, 0, 0, -5),
    ],
    dtype=np.float64,
)[::-1]  # fmt: skip

# Thickness of the subcutaneous fat at BMI 24 [mm] along z.
FAT_Z = np.array([-1400.0, -950, -900, -820, -700, -600, -450, -350, -280, -230, -180, 0])
FAT_MM = np.array([10.0, 12, 18, 20, 17, 13, 10, 9, 7, 5, 4, 3])


@dataclass(frozen=True, eq=False)
class Body:
    """Sizes of one patient. World is RAS+ millimetres: x_world = shift_x + scale_x * x_standard, alike for y.

    knots_z: world heights of LANDMARKS_Z; in between z is linear. fat: factor on FAT_MM. girth: widening of the
    abdomen by visceral fat. breath_mm: how far the diaphragm lies lower in the CT than in the PET. arms: "up", "down"
    or "none" (outside the field of view).
    """

    patient: Patient
    scale_xy: tuple[float, float]
    shift_xy: tuple[float, float]
    knots_z: NDArray[np.float64]
    fat: float
    girth: float
    breath_mm: float
    arms: str
    bottom_z: float  # lower end of the scan in standard space

    def to_standard(self, axis: int, world_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        """World coordinates of one axis (0 x, 1 y, 2 z) -> standard space."""
        if axis == 2:
            order = slice(None, None, -1)  # np.interp wants rising abscissae
            place = np.interp(world_mm, self.knots_z[order], LANDMARKS_Z[order])
        else:
            place = (world_mm - self.shift_xy[axis]) / self.scale_xy[axis]
        return np.asarray(place, dtype=np.float32)

    def to_world(self, point: tuple[float, float, float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """A standard-space point [3] -> world."""
        z = np.interp(point[2], LANDMARKS_Z[::-1], self.knots_z[::-1])
        return np.array([self.shift_xy[i] + self.scale_xy[i] * point[i] for i in (0, 1)] + [z])

    def scale_z(self, z_standard: float) -> float:
        """Local millimetres per standard millimetre along z."""
        return float(self.to_world((0, 0, z_standard + 5))[2] - self.to_world((0, 0, z_standard - 5))[2]) / 10.0


def make_patient(rng: np.random.Generator, patient_id: str, *, later: bool = False) -> Patient:
    """Draws sex, size, tracer, dose and a date; `later` is the same person half a year on."""
    tracer = str(rng.choice(list(TRACERS), p=list(TRACERS.values())))
    sex = "M" if tracer in MEN_ONLY or rng.random() < 0.5 else "F"
    height = float(np.clip(rng.normal(*HEIGHT_CM[sex]), 148, 198))
    bmi = float(np.clip(rng.normal(*BMI), 18.0, 38.0))
    date = datetime.date(2021, 1, 4) + datetime.timedelta(days=int(rng.integers(0, 1400)) + 182 * later)
    return Patient(
        patient_id=patient_id,
        sex=sex,
        age=int(rng.integers(28, 86)),
        weight_kg=round(bmi * (height / 100) ** 2, 1),
        height_cm=round(height, 0),
        tracer=tracer,
        study_date=date.isoformat(),
        dose_mbq=round(float(rng.uniform(*DOSE_MBQ[tracer])), 1),
        uptake_minutes=round(float(rng.uniform(*UPTAKE_MINUTES[tracer])), 0),
    )


def make_body(rng: np.random.Generator, patient: Patient) -> Body:
    """Sizes from height and weight with individual variation.

    The diaphragm of the CT lies -5 to +15 mm below that of the PET, which is taken over many breaths; what comes of it
    in practice: Goerres et al., Eur J Nucl Med 2002;29:351, and Osman et al., J Nucl Med 2003;44:240.
    """
    bmi = patient.weight_kg / (patient.height_cm / 100) ** 2
    size = patient.height_cm / 175.0
    broad = (bmi / 24.0) ** 0.2
    scale_x = size * broad * rng.normal(1.0, 0.02) * (0.96 if patient.sex == "F" else 1.0)
    scale_y = size * broad * rng.normal(1.0, 0.025)
    steps = np.diff(LANDMARKS_Z) * size * rng.normal(1.0, 0.025, len(LANDMARKS_Z) - 1)
    steps[1] = LANDMARKS_Z[2] * size**0.3 * rng.normal(1.0, 0.015)  # heads differ less than bodies
    table = rng.uniform(-250.0, 350.0)
    knots = table - np.cumsum(np.concatenate([[0.0], -steps]))
    fat = max(0.45, 1.0 + 0.13 * (bmi - 24.0) + (0.25 if patient.sex == "F" else 0.0)) * rng.normal(1.0, 0.08)
    return Body(
        patient=patient,
        scale_xy=(float(scale_x), float(scale_y)),
        shift_xy=(float(rng.normal(0, 3.0)), float(rng.normal(0, 12.0))),
        knots_z=knots,
        fat=float(fat),
        girth=float(np.clip(1.0 + 0.012 * (bmi - 24.0) + rng.normal(0, 0.015), 0.92, 1.2)),
        breath_mm=float(np.clip(rng.normal(6.0, 5.0), -5.0, 15.0)),
        arms=str(rng.choice(["up", "down", "none"], p=[0.68, 0.14, 0.18])),
        bottom_z=float(rng.uniform(-1060.0, -1000.0)),
    )


def contour(table: NDArray[np.float64], z: NDArray[np.float32], body: Body) -> NDArray[np.float32]:
    """Half width, half depth and y centre at the standard heights z [K] -> [3, K], widened in the abdomen by girth."""
    a, b, cy = (np.interp(z, table[:, 0], table[:, column]) for column in (1, 2, 3))
    belly = np.clip(np.interp(z, [-900, -800, -660, -560, -460], [0, 0.6, 1, 0.7, 0]), 0, 1) * (body.girth - 1.0)
    grown = 2.2 * belly * b  # the belly grows to the front
    return np.stack([a * (1 + belly), b + grown / 2, cy + grown / 2]).astype(np.float32)

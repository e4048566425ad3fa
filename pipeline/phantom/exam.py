"""One phantom exam: a body, its tracer, its lesions, and what CT and PET make of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petground.labeling.volume import Volume
from petground.pipeline.phantom.anatomy import make_canvas, make_shapes, paint_body
from petground.pipeline.phantom.body import FAT_MM, TRUNK, Body, contour, make_body, make_patient
from petground.pipeline.phantom.canvas import Canvas
from petground.pipeline.phantom.disease import place_lesions
from petground.pipeline.phantom.normal import measure_normal
from petground.pipeline.phantom.physics import blur, ct_image, make_noise, make_scanner, texture
from petground.pipeline.phantom.records import Lesion, PhantomExam
from petground.pipeline.phantom.settle import Found, paint_ct, settle, touched_organ
from petground.pipeline.phantom.tissue import hu_table, suv_table
from petground.pipeline.phantom.trunk import couch

__all__ = ["exam_id_of", "make_exam", "patient_number"]

Vector = NDArray[np.float64]
RETURNING = 8  # every eighth exam is a second one of the patient before it: splits must go by patient
AIR_MM = 14.0  # around the body


def exam_id_of(seed: int, index: int) -> str:
    return f"phantom-{seed}-{index:04d}"


def patient_number(index: int) -> int:
    """Which patient an exam is of."""
    return index - 1 if index % RETURNING == RETURNING - 1 else index


def make_exam(seed: int, index: int, *, mirrored: bool = False) -> PhantomExam:
    """The exam number `index` of the series `seed`: the same on every platform, whatever was made before.

    PET [I, J, K] float32 SUVbw and CT [I, J, K] int16 HU lie on grids of their own in one frame of reference; i runs to
    the patient's left, j to the back, k to the head, as NIfTI files made from axial DICOM do. mirrored: lesions of like
    SUVmax at the same site of both sides (`place_lesions`).
    """
    number = patient_number(index)
    person = np.random.default_rng(np.random.SeedSequence([seed, 1, number]))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2, index]))
    patient = make_patient(person, f"patient-{seed}-{number:04d}", later=index != number)
    body = make_body(person, patient)
    shapes = make_shapes(person, body)
    scanner = make_scanner(rng, patient.weight_kg, patient.tracer)

    affine, shape_kji = _grid(rng, body, scanner.pet_spacing_ijk_mm, behind_mm=0.0)
    canvas = make_canvas(body, shape_kji, affine, suv_table(rng, patient.tracer), 0.0)
    paint_body(canvas, body, shapes)
    texture(rng, canvas)
    image = blur(canvas, scanner)
    axes = _axes(affine, shape_kji)
    placed = place_lesions(rng, body, canvas, image, scanner, axes, mirrored=mirrored)
    pet, found = settle(placed, image, make_noise(rng, scanner, shape_kji), scanner)

    ct_affine, ct_shape = _grid(rng, body, scanner.ct_spacing_ijk_mm, behind_mm=34.0)
    ct = make_canvas(body, ct_shape, ct_affine, hu_table(person), body.breath_mm)
    paint_body(ct, body, shapes)
    paint_ct(rng, ct, body, [one for one, _, _ in found], _axes(ct_affine, ct_shape))
    couch(ct)
    hu = ct_image(rng, ct, scanner.ct_noise_hu)

    diseased = np.zeros(shape_kji, dtype=bool)
    for _, mask, _ in found:
        diseased |= mask
    normal, normal_slices = measure_normal(pet, canvas, diseased)
    pet_volume = Volume(pet.transpose(2, 1, 0), affine, "SUVbw")
    return PhantomExam(
        exam_id=exam_id_of(seed, index),
        patient=patient,
        pet=pet_volume,
        ct=Volume(hu.transpose(2, 1, 0), ct_affine, "HU"),
        lesions=_lesions(found, pet_volume, canvas),
        normal=normal,
        normal_slices=normal_slices,
    )


def _lesions(found: list[Found], pet: Volume, canvas: Canvas) -> tuple[Lesion, ...]:
    names = [f"lesion-{number}" for number in range(1, len(found) + 1)]
    touching = {one.touches: name for (one, _, _), name in zip(found, names, strict=True) if one.touches is not None}
    lesions = []
    for number, (one, mask, (k, j, i)) in enumerate(found):
        beside = names[one.touches] if one.touches is not None else touching.get(number)
        lesions.append(
            Lesion(
                lesion_id=names[number],
                site=one.site.name,
                laterality=one.side,
                region=one.site.region,
                mask=mask.transpose(2, 1, 0),
                diameter_mm=round(one.blob.diameter_mm, 1),
                volume_ml=round(float(mask.sum()) * pet.voxel_ml, 4),
                suv_max=float(pet.array[i, j, k]),
                voxel_ijk=(i, j, k),
                slice=pet.shape[2] - k,
                touches=beside or touched_organ(one, mask, canvas),
            )
        )
    return tuple(lesions)


def _grid(
    rng: np.random.Generator, body: Body, spacing_ijk_mm: tuple[float, float, float], behind_mm: float
) -> tuple[Vector, tuple[int, int, int]]:
    """Affine and shape [K, J, I] of a grid around the body, somewhere off its centre; `behind_mm` more at the back."""
    half_x, front, back = _extent(body)
    top = body.to_world((0, 0, 0))[2] + rng.uniform(8, 24)
    bottom = body.to_world((0, 0, body.bottom_z))[2] + rng.uniform(-8, 8)
    left, right = -half_x - AIR_MM - rng.uniform(0, 8), half_x + AIR_MM + rng.uniform(0, 8)
    back, front = back - AIR_MM - behind_mm - rng.uniform(0, 6), front + AIR_MM + rng.uniform(0, 6)
    extent = (right - left, front - back, top - bottom)
    i, j, k = (int(np.ceil(length / step)) for length, step in zip(extent, spacing_ijk_mm, strict=True))
    di, dj, dk = spacing_ijk_mm
    affine = np.diag([-di, -dj, dk, 1.0])
    affine[:3, 3] = np.round([right + body.shift_xy[0], front + body.shift_xy[1], bottom], 2)
    return affine, (k, j, i)


def _extent(body: Body) -> tuple[float, float, float]:
    """Half width, front and back of the body with its arms [mm], from its own middle."""
    z = np.linspace(0, body.bottom_z, 120).astype(np.float32)
    a, b, cy = contour(TRUNK, z, body)
    fat = float(FAT_MM.max()) * body.fat
    sx, sy = body.scale_xy
    half_x = float(a.max()) * sx + fat
    if body.arms != "none":
        half_x = max(half_x, (250.0 if body.arms == "up" else 285.0 + 14.0 * body.fat) * sx)
    bust = 30.0 if body.patient.sex == "F" else 0.0
    return half_x, float((b + cy).max()) * sy + fat + bust, float((cy - b).min()) * sy - fat


def _axes(affine: Vector, shape_kji: tuple[int, int, int]) -> tuple[Vector, Vector, Vector]:
    """World coordinates of the voxel centres along x, y, z."""
    x, y, z = (affine[a, 3] + affine[a, a] * np.arange(n) for a, n in enumerate(shape_kji[::-1]))
    return x, y, z

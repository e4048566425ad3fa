"""The phantom's exams: the same each time, organs and lesions on the right sides, truth that the images bear out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from petground.labeling.volume import same_grid
from petground.pipeline.phantom import physics
from petground.pipeline.phantom.anatomy import make_canvas, make_shapes, paint_body
from petground.pipeline.phantom.body import Body, make_body, make_patient
from petground.pipeline.phantom.canvas import Canvas, capsule, ellipsoid, mirrored, paint
from petground.pipeline.phantom.exam import make_exam, patient_number
from petground.pipeline.phantom.records import Lesion, PhantomExam
from petground.pipeline.phantom.sites import SITES, liver_segment
from petground.pipeline.phantom.tissue import NAMES, TISSUES, TRACER_COLUMN, hu_table, suv_table
from petground.pipeline.phantom.trunk import lobe

EXAMS = 18


@pytest.fixture(scope="module")
def exams() -> list[PhantomExam]:
    """A series on coarse grids, which are quicker to fill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(physics, "PET_SPACINGS_MM", ((4.5, 4.5, 5.0),) * len(physics.PET_SPACINGS_MM))
        patch.setattr(physics, "CT_SPACINGS_MM", ((5.0, 5.0, 6.0),) * len(physics.CT_SPACINGS_MM))
        return [make_exam(7, index) for index in range(EXAMS)]


@pytest.fixture(scope="module")
def body() -> Body:
    rng = np.random.default_rng(3)
    patient = dataclasses.replace(make_patient(rng, "p"), tracer="FDG", sex="M", weight_kg=80.0, height_cm=178.0)
    return make_body(rng, patient)


def _painted(body: Body, moved: float = 0.0, tracer: str | None = None) -> tuple[Canvas, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = make_shapes(rng, body)
    table = suv_table(rng, tracer) if tracer else hu_table(rng)
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    affine[:3, 3] = body.shift_xy[0] + 280.0, body.shift_xy[1] + 180.0, body.to_world((0, 0, -1040))[2]
    canvas = make_canvas(body, (int((body.to_world((0, 0, 20)) - affine[:3, 3])[2] / 5), 72, 112), affine, table, moved)
    paint_body(canvas, body, shapes)
    return canvas, affine


def _centre_mm(canvas: Canvas, affine: np.ndarray, organ: str) -> np.ndarray:
    """RAS centre of an organ, from its voxels' indices and the affine."""
    kji = np.argwhere(canvas.is_in((organ,)))
    assert len(kji), organ
    return affine[:3, :3] @ kji.mean(axis=0)[::-1] + affine[:3, 3]


def test_same_exam_from_same_seed(exams: list[PhantomExam], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physics, "PET_SPACINGS_MM", ((4.5, 4.5, 5.0),) * len(physics.PET_SPACINGS_MM))
    monkeypatch.setattr(physics, "CT_SPACINGS_MM", ((5.0, 5.0, 6.0),) * len(physics.CT_SPACINGS_MM))
    again, other = make_exam(7, 3), make_exam(8, 3)
    assert np.array_equal(again.pet.array, exams[3].pet.array)
    assert np.array_equal(again.ct.array, exams[3].ct.array)
    assert [one.site for one in again.lesions] == [one.site for one in exams[3].lesions]
    assert other.pet.shape != again.pet.shape or not np.array_equal(other.pet.array, again.pet.array)
    assert other.patient.patient_id != again.patient.patient_id


def test_mirrored_lesions_are_alike_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physics, "PET_SPACINGS_MM", ((4.5, 4.5, 5.0),) * len(physics.PET_SPACINGS_MM))
    monkeypatch.setattr(physics, "CT_SPACINGS_MM", ((5.0, 5.0, 6.0),) * len(physics.CT_SPACINGS_MM))
    pairs = singles = 0
    for index in range(4):
        exam = make_exam(50, index, mirrored=True)
        by_site: dict[str, list[Lesion]] = {}
        for lesion in exam.lesions:
            by_site.setdefault(lesion.site, []).append(lesion)
        for both in by_site.values():
            if len(both) == 1:
                singles += 1
                continue
            pairs += 1
            left, right = sorted(both, key=lambda one: str(one.laterality))
            assert (left.laterality, right.laterality) == ("left", "right")
            assert 0.75 < left.suv_max / right.suv_max < 1.33
            # i runs to the patient's left
            assert left.voxel_ijk[0] > right.voxel_ijk[0]
    assert pairs >= 4
    assert singles >= 1


def test_a_lesion_that_fills_no_voxel_is_drawn_anew() -> None:
    assert len(make_exam(11, 275, mirrored=True).lesions) >= 2


def test_grids_and_units(exams: list[PhantomExam]) -> None:
    for exam in exams[:6]:
        assert exam.pet.unit == "SUVbw"
        assert exam.pet.array.dtype == np.float32
        assert exam.ct.unit == "HU"
        assert exam.ct.array.dtype == np.int16
        assert exam.pet.head_is_last
        assert exam.ct.head_is_last
        assert exam.pet.affine[0, 0] < 0
        assert exam.pet.affine[1, 1] < 0
        assert not same_grid(exam.pet, exam.ct)
        assert exam.pet.array.min() >= 0
        assert np.array_equal(exam.pet.array, np.round(exam.pet.array * 1024) / 1024)
        assert -1024 <= exam.ct.array.min() < -900
        assert exam.ct.array.max() > 500


def test_paired_and_unpaired_organs_lie_on_their_sides(body: Body) -> None:
    canvas, affine = _painted(body)
    middle = _centre_mm(canvas, affine, "cord")[0]
    assert middle == pytest.approx(body.shift_xy[0], abs=3.0)
    at = {organ: _centre_mm(canvas, affine, organ) for organ in NAMES if canvas.is_in((organ,)).any()}
    for organ in ("liver", "gallbladder", "duodenum"):
        assert at[organ][0] > middle + 10, organ  # +x is the patient's right
    for organ in ("spleen", "myocardium", "stomach_wall", "heart_chambers"):
        assert at[organ][0] < middle - 10, organ
    assert at["cord"][1] < at["esophagus"][1] < at["heart_chambers"][1]  # the back is -y
    assert at["grey_matter"][2] > at["thyroid"][2] > at["myocardium"][2] > at["liver"][2]
    assert at["liver"][2] > at["colon"][2] > at["bladder"][2]


def test_kidneys_left_higher_on_average() -> None:
    higher = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        body = make_body(rng, make_patient(rng, "p"))
        kidneys = [s for s in make_shapes(rng, body) if s.organ == "kidney_cortex"]
        right, left = (next(s for s in kidneys if np.sign(s.centre[0]) == side) for side in (1, -1))
        higher.append(left.centre[2] - right.centre[2])
    assert np.mean(higher) > 5


def test_breathing_puts_the_liver_lower_in_the_ct(body: Body) -> None:
    still, _ = _painted(body)
    moved, _ = _painted(body, moved=15.0)
    tops = [np.flatnonzero(c.is_in(("liver",)).any(axis=(1, 2))).max() * 5.0 for c in (still, moved)]
    assert tops[0] - tops[1] == pytest.approx(15.0, abs=5.0)
    bottoms = [np.argwhere(c.is_in(("bladder",)))[:, 0].min() for c in (still, moved)]
    assert bottoms[0] == bottoms[1]


@pytest.mark.parametrize("tracer", list(TRACER_COLUMN))
def test_uptake_within_the_ranges_of_the_literature(body: Body, tracer: str) -> None:
    canvas, _ = _painted(body, tracer=tracer)
    for organ in ("liver", "spleen", "bladder", "lung", "grey_matter", "muscle"):
        low, high = TISSUES[organ][TRACER_COLUMN[tracer]]  # type: ignore[misc]
        assert low - 1e-3 <= np.median(canvas.value[canvas.is_in((organ,))]) <= high + 1e-3, organ


def test_ct_numbers(body: Body) -> None:
    canvas, _ = _painted(body)
    for organ, low, high in (("liver", 45, 70), ("lung", -900, -700), ("fat", -120, -80), ("skull", 500, 1500)):
        assert low < np.median(canvas.value[canvas.is_in((organ,))]) < high, organ


def test_measured_normal_values(exams: list[PhantomExam]) -> None:
    fdg = [exam for exam in exams if exam.patient.tracer == "FDG"]
    assert 1.8 < np.median([exam.normal["liver"] for exam in fdg]) < 3.6
    assert all(exam.normal["blood pool"] < exam.normal["liver"] * 1.3 for exam in fdg)
    for exam in exams:
        for organ, suv in exam.normal.items():
            k = exam.pet.shape[2] - exam.normal_slices[organ]
            assert np.isclose(exam.pet.array[:, :, k], suv, atol=1e-3).any(), organ


def test_lesions_as_the_truth_says(exams: list[PhantomExam]) -> None:
    for exam in exams:
        pet, taken = exam.pet.array, np.zeros(exam.pet.shape, dtype=bool)
        assert 1 <= len(exam.lesions) <= 6
        for lesion in exam.lesions:
            i, j, k = lesion.voxel_ijk
            assert lesion.mask.shape == pet.shape
            assert lesion.mask.dtype == bool
            assert lesion.mask[i, j, k]
            assert pet[i, j, k] == pet[lesion.mask].max() == np.float32(lesion.suv_max)
            assert lesion.slice == pet.shape[2] - k  # from the head, from 1
            assert lesion.volume_ml == pytest.approx(lesion.mask.sum() * exam.pet.voxel_ml, rel=1e-3)
            assert 2.5 <= lesion.suv_max <= 28
            assert 6 <= lesion.diameter_mm <= 50
            around = pet[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2, max(0, k - 1) : k + 2]
            assert (around >= pet[i, j, k]).sum() == 1  # a maximum of its own
            assert not (taken & lesion.mask).any()
            taken |= lesion.mask


def test_lesions_lie_on_the_side_they_are_named_after(exams: list[PhantomExam]) -> None:
    sides = set()
    for exam in exams:
        trunk = np.argwhere(exam.ct.array[::2, ::2, ::2] > -400) * 2
        midline = exam.ct.to_world_mm(trunk)[:, 0].mean()
        for lesion in exam.lesions:
            x = exam.pet.to_world_mm(np.argwhere(lesion.mask)).mean(axis=0)[0] - midline
            if lesion.laterality is None:
                assert abs(x) < 145
            else:
                assert (x > 0) == (lesion.laterality == "right"), (exam.exam_id, lesion.site)
                sides.add(lesion.laterality)
    assert sides == {"left", "right"}


def test_lung_nodules_are_in_the_ct_where_the_pet_has_them(exams: list[PhantomExam]) -> None:
    looked = 0
    for exam in exams:
        for lesion in exam.lesions:
            if "upper lobe" in lesion.site and lesion.diameter_mm > 9:
                index = np.rint(exam.ct.to_index(exam.pet.to_world_mm(np.argwhere(lesion.mask)).mean(axis=0)))
                i, j, k = index.astype(int)
                assert exam.ct.array[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].max() > -450
                looked += 1
    assert looked


def test_some_lesions_touch(exams: list[PhantomExam]) -> None:
    lesions = [lesion for exam in exams for lesion in exam.lesions]
    touching = [lesion for lesion in lesions if lesion.touches]
    assert 0.05 < len(touching) / len(lesions) < 0.35
    for exam in exams:
        ids = {lesion.lesion_id: lesion for lesion in exam.lesions}
        for lesion in exam.lesions:
            if lesion.touches in ids:
                apart = np.argwhere(lesion.mask)[:, None] - np.argwhere(ids[lesion.touches].mask)[None]
                assert np.abs(apart).max(axis=2).min() <= 2


def test_site_and_side_single_a_lesion_out_nearly_always(exams: list[PhantomExam]) -> None:
    doubled = [len(e.lesions) != len({(one.site, one.laterality) for one in e.lesions}) for e in exams]
    assert np.mean(doubled) < 0.2


def test_second_exams_belong_to_the_patient_before(exams: list[PhantomExam]) -> None:
    first, second = exams[6], exams[7]
    assert patient_number(7) == 6
    assert first.patient.patient_id == second.patient.patient_id
    assert first.patient.study_date < second.patient.study_date
    assert first.patient.tracer == second.patient.tracer
    assert first.exam_id != second.exam_id
    assert len({exam.patient.patient_id for exam in exams}) == EXAMS - EXAMS // 8


def test_tracers_for_men_only(exams: list[PhantomExam]) -> None:
    assert all(e.patient.sex == "M" for e in exams if e.patient.tracer in ("DCFPyL", "fluciclovine"))
    assert all("breast" not in one.site for e in exams if e.patient.sex == "M" for one in e.lesions)


def test_sites_are_told_apart_by_name_and_side() -> None:
    keys = [(site.name, side) for site in SITES for side in site.sides]
    assert len(keys) == len(set(keys))
    assert {site.region for site in SITES} == {"neck", "chest", "abdomen", "pelvis", "musculoskeletal"}


def test_lobes_and_segments() -> None:
    points = np.array([(70, 40, -350), (70, 60, -480), (70, -60, -500), (-70, 40, -350), (-70, -60, -500)], np.float32)
    assert list(lobe(*points.T)) == ["RUL", "RML", "RLL", "LUL", "LLL"]
    assert liver_segment(110, -30, -620) == "vi"
    assert liver_segment(110, -30, -520) == "vii"
    assert liver_segment(110, 40, -520) == "viii"
    assert liver_segment(-40, 40, -530) == "ii"


def _blank() -> Canvas:
    axis = np.arange(-20, 21, 2, dtype=np.float32)
    z = np.arange(-30, 31, 2, dtype=np.float32)
    table = dict.fromkeys(NAMES, 0.0) | {"liver": 100.0}
    shape = (len(z), len(axis), len(axis))
    return Canvas(axis[::-1], axis, z, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), NAMES, table, 6.0)


def test_a_painted_ellipsoid_has_its_volume_and_place() -> None:
    canvas = _blank()
    paint(canvas, [ellipsoid("liver", (8, -4, 5), (7, 9, 11), (10, 20, 30))])
    assert canvas.value.sum() * 8 / 100 == pytest.approx(4 / 3 * np.pi * 7 * 9 * 11, rel=0.05)
    k, j, i = np.argwhere(canvas.organ > 0).mean(axis=0).round().astype(int)
    assert (canvas.x[i], canvas.y[j]) == (8, -4)
    assert canvas.z[k] == pytest.approx(5, abs=1)


def test_mirrored_shapes_and_breathing() -> None:
    right, left = _blank(), _blank()
    shape = capsule("liver", (5, -3, 0), (12, 8, 10), 4.0, motion=0.5)
    paint(right, [shape])
    paint(left, [mirrored(shape)])
    assert np.array_equal(right.value, left.value[:, :, ::-1])
    still = _blank()
    paint(still, [dataclasses.replace(shape, motion=0.0)])
    heights = [np.average(c.z, weights=c.value.sum(axis=(1, 2))) for c in (still, right)]
    assert heights[0] - heights[1] == pytest.approx(3.0, abs=0.05)

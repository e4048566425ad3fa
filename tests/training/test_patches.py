"""Patches: they lie where they say, hold what they should, and what is cut out goes back to its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_work import LESIONS, SPEC, affine
from scipy.ndimage import binary_dilation

from petground.labeling.errors import ConfigError, GeometryError
from petground.labeling.volume import Volume
from petground.models.blocks.contextual_gate import voxel_places
from petground.training import cache
from petground.training.augment import Augment, AugmentConfig
from petground.training.data import GroundingData
from petground.training.dataset import ExamDataset, collate
from petground.training.grid import GridSpec, mask_to_model_grid, model_template, to_model_grid, to_pet_grid
from petground.training.patches import box_of, cut, draw_start, in_image, moved_box, turned_margin
from petground.training.work import read_exams


def _coded(shape: tuple[int, int, int]) -> np.ndarray:
    """Each voxel tells its own z, y, x."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return (z * 10000 + y * 100 + x + 1).astype(np.float32)


def _data(work: Path, **options: object) -> GroundingData:
    data = GroundingData(work, **{"validation_fraction": 0.0, "augment": None, **options})  # type: ignore[arg-type]
    data.grid = SPEC
    data.prepare_data()
    data.setup("validate")
    return data


def _dataset(work: Path, **options: object) -> ExamDataset:
    return _data(work, **options)._dataset("train", training=True)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(-9, 14)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_a_patch_put_back_lies_where_it_was(start: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    whole = _coded((11, 7, 9))
    patch = cut(whole, start, shape)
    assert patch.shape == shape
    back = np.zeros(whole.shape, dtype=np.float32)
    for place in np.argwhere(patch > 0):
        back[tuple(place + start)] = patch[tuple(place)]
    assert ((back == whole) | (back == 0)).all(), "nothing is turned, mirrored or shifted"
    inside = [len(set(range(s, s + n)) & set(range(m))) for s, n, m in zip(start, shape, whole.shape, strict=True)]
    assert (back > 0).sum() == np.prod(inside)


def test_channels_are_cut_alike() -> None:
    whole = np.stack([_coded((6, 5, 4)), -_coded((6, 5, 4))])
    patch = cut(whole, (2, -1, 3), (3, 4, 2))
    assert patch.shape == (2, 3, 4, 2)
    np.testing.assert_array_equal(patch[0], -patch[1])
    np.testing.assert_array_equal(patch[0][:, 1:, 0], whole[0][2:5, 0:3, 3])
    assert not patch[:, :, :, 1].any()
    assert not patch[:, :, 0].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(4, 16)] * 3), st.data())
def test_a_patch_holds_its_finding_and_lies_in_the_grid(
    seed: int, patch: tuple[int, int, int], draw: st.DataObject
) -> None:
    grid = tuple(p + draw.draw(st.integers(0, 20)) for p in patch)
    voxel = [draw.draw(st.integers(0, n - 1)) for n in grid]
    start = draw_start(np.random.default_rng(seed), grid, patch, np.array([voxel]))
    for s, p, n, v in zip(start, patch, grid, voxel, strict=True):
        assert 0 <= s <= n - p
        assert s <= v < s + p
        if s not in (0, n - p):
            assert abs(v - (s + (p - 1) / 2)) <= 0.25 * p + 1, "near the middle, but not always in it"


def test_a_finding_is_anywhere_around_the_middle_and_patches_without_one_go_everywhere() -> None:
    rng = np.random.default_rng(0)
    finding = np.array([[50, 50, 50]])
    offsets = {50 - draw_start(rng, (100, 100, 100), (16, 16, 16), finding)[0] for _ in range(300)}
    assert offsets == set(range(4, 13)), "its place in the patch tells nothing"
    anywhere = {draw_start(rng, (20, 18, 30), (16, 16, 24), None) for _ in range(2000)}
    assert len(anywhere) == 5 * 3 * 7
    with pytest.raises(ValueError, match="does not lie"):
        draw_start(rng, (10, 20, 20), (16, 16, 16), None)


def test_a_place_has_one_coordinate_in_every_patch_that_holds_it() -> None:
    grid, patch = (40, 30, 50), (16, 16, 24)
    whole = voxel_places(grid).reshape(*grid, 3).numpy()
    np.testing.assert_allclose(box_of((0, 0, 0), grid, grid), [[-1] * 3, [1] * 3])
    for start in ((0, 0, 0), (24, 14, 26), (7, 3, 19)):
        box = torch.from_numpy(box_of(start, patch, grid))[None]
        part = voxel_places(patch, box).reshape(*patch, 3).numpy()
        z, y, x = start
        np.testing.assert_allclose(part, whole[z : z + 16, y : y + 16, x : x + 24], atol=1e-5)


def test_the_box_follows_what_augmentation_moved() -> None:
    """Gaussian blobs at asymmetric places: where they end up has, by the moved box, the coordinates they had before."""
    grid, patch, start = (60, 50, 70), (28, 24, 32), (17, 9, 21)
    augment = Augment(
        AugmentConfig(affine_chance=1.0, rotate_rad=0.0, scale=0.1, shift_voxels=3.0, intensity_chance=0.0)
    )
    margin = augment.margin(patch)
    outer = [p + 2 * m for p, m in zip(patch, margin, strict=True)]
    first = [s - m for s, m in zip(start, margin, strict=True)]
    for seed, place in enumerate([(28, 18, 43), (35, 24, 30), (30, 20, 37)]):
        z, y, x = np.meshgrid(*map(np.arange, grid), indexing="ij")
        blob = np.exp(-((z - place[0]) ** 2 + (y - place[1]) ** 2 + (x - place[2]) ** 2) / 8).astype(np.float32)
        image = torch.from_numpy(cut(np.stack([blob, blob]), first, outer))
        image, target, matrix = augment.moved(image, image[:1].clone(), seed=seed)
        # a mask that is the image stays the image, but for its maximum, which is brought back
        torch.testing.assert_close(target[0] / target.max(), image[0] / image[0].max(), atol=1e-5, rtol=0)
        assert np.abs(matrix - np.eye(4)).max() > 0.5, "something is moved"
        inner = image[0].numpy()[tuple(slice(m, m + p) for m, p in zip(margin, patch, strict=True))].astype(np.float64)
        inner[inner < 0.05] = 0
        centre = [(inner * axis).sum() / inner.sum() for axis in np.meshgrid(*map(np.arange, patch), indexing="ij")]
        box = moved_box(box_of(start, patch, grid), patch, matrix)
        found = box[0] + (np.array(centre) + 0.5) / patch * (box[1] - box[0])
        told = (2 * np.array(place) + 1) / np.array(grid) - 1
        np.testing.assert_allclose(found, told, atol=0.004)  # a tenth of a voxel
        assert (np.abs(found - told) < 0.5 * np.abs(_unmoved(centre, start, grid) - told).max()).any()


def _middle(weights: np.ndarray) -> np.ndarray:
    """[z, y, x] voxels; not a number where all weights are 0."""
    total = weights.sum(dtype=np.float64)
    return np.array(
        [(weights * axis).sum() / total for axis in np.meshgrid(*map(np.arange, weights.shape), indexing="ij")]
    )


def _unmoved(centre: list[float], start: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
    return (2 * (np.array(centre) + start) + 1) / np.array(grid) - 1


def test_the_margin_is_what_may_be_turned_into_the_patch() -> None:
    assert turned_margin((40, 20, 60), 0.0, 0.0, 2.0) == (2, 2, 2)
    assert turned_margin((40, 20, 60), 0.0, 0.1, 0.0) == (2, 1, 3)
    assert turned_margin((40, 20, 60), np.pi / 2, 0.0, 0.0) == (40, 50, 30)
    assert Augment(AugmentConfig(affine_chance=0.0)).margin((40, 20, 60)) == (0, 0, 0)


def test_an_exam_has_a_grid_of_its_own_that_holds_its_body_and_a_patch(patch_work: Path) -> None:
    (exam, *_) = read_exams(patch_work)
    loaded = cache.load_exam(patch_work, exam, SPEC, patch_work / "cache")
    whole = loaded.image.shape[1:]
    assert isinstance(loaded.image, np.memmap), "only what a patch needs is read"
    assert all(n >= p for n, p in zip(whole, SPEC.patch_zyx or (), strict=True))
    assert whole[0] >= 360 / 8
    assert whole[2] > whole[1], "wider than deep"
    for n, (_, _, centre, _, _) in enumerate(LESIONS):
        at = (loaded.voxels(n).mean(axis=0) + 0.5 - np.array(whole) / 2) * 8.0  # the body's middle is the grid's
        np.testing.assert_allclose(at[::-1][:2], centre[:2], atol=9.0)
        assert abs(at[0] - centre[2]) < 15, "the grid hangs from the head"
        dense = loaded.target(n)
        part = loaded.target_part(n, (3, -2, 5), (20, 12, 22))
        np.testing.assert_array_equal(part, cut(dense, (3, -2, 5), (20, 12, 22)))
        np.testing.assert_array_equal(np.argwhere(dense >= 0.5), loaded.voxels(n))


@pytest.mark.parametrize("sign", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1)])
def test_masks_go_to_the_exams_own_grid_and_back(sign: tuple[int, int, int]) -> None:
    shape = (50, 34, 60)
    frame = np.diag([*np.multiply(sign, (5.0, 6.0, 7.0)), 1.0])
    frame[:3, 3] = [-130.0 * sign[0], -100.0 * sign[1], 40.0]
    pet = Volume(np.zeros(shape, dtype=np.float32), frame, "SUVbw")
    mm = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))
    pet.array[((mm[..., 0] / 90) ** 2 + (mm[..., 1] / 60) ** 2 < 1) & (mm[..., 2] > 60) & (mm[..., 2] < 430)] = 1.0
    mark = np.array([62.0, -18.0, 370.0])
    mask = pet.like((np.linalg.norm(mm - mark, axis=-1) < 16).astype(np.uint8), "label")
    spec = GridSpec((6.0, 7.0, 8.0), patch_zyx=(16, 8, 16))
    image, template = to_model_grid(pet, None, spec)
    soft = mask_to_model_grid(mask, template)
    assert soft.shape == image.shape[1:]
    at = template.to_world_mm(np.argwhere(soft > 0.5).mean(axis=0)[::-1])
    np.testing.assert_allclose(at, mark, atol=4)
    back = to_pet_grid(soft, template, pet)
    np.testing.assert_allclose(pet.to_world_mm(np.argwhere(back.array > 0.5).mean(axis=0)), mark, atol=4)


def test_a_small_exam_is_as_large_as_a_patch_and_a_hand_apart_is_not_lost() -> None:
    shape = (60, 30, 40)
    pet = Volume(np.zeros(shape, dtype=np.float32), np.diag([6.0, 6.0, 6.0, 1.0]), "SUVbw")
    pet.array[24:44, 8:24, 4:36] = 1.0
    assert model_template(pet, GridSpec((6.0,) * 3, patch_zyx=(64, 48, 64))).shape == (64, 48, 64)
    alone = model_template(pet, GridSpec((6.0,) * 3, patch_zyx=(8, 8, 8)))
    pet.array[4:11, 12:18, 10:22] = 1.0  # an arm beside the body, cut off from it
    both = model_template(pet, GridSpec((6.0,) * 3, patch_zyx=(8, 8, 8)))
    assert alone.to_index(pet.to_world_mm([5, 14, 15]))[0] < -0.5
    assert both.to_index(pet.to_world_mm([4, 14, 15]))[0] >= 0
    middle = both.to_world_mm((np.array(both.shape) - 1) / 2)[0]
    assert middle == pytest.approx(pet.to_world_mm([33.5, 0, 0])[0], abs=6), (
        "the grid's middle is the body's, arm or not"
    )
    with pytest.raises(GeometryError, match="larger spacing"):
        model_template(pet, GridSpec((0.2, 0.2, 0.2), patch_zyx=(8, 8, 8)))


def test_settings_that_do_not_go_together_are_refused() -> None:
    for wrong in ({"patch_zyx": (16, 16)}, {"patch_zyx": (0, 8, 8)}, {"patch_step": 0.0}, {"patch_step": 1.5}):
        with pytest.raises(ConfigError):
            GridSpec(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fit_height"):
        GridSpec(patch_zyx=(16, 16, 16), fit_height=True)


def test_items_are_patches_that_lie_where_their_box_says(patch_work: Path) -> None:
    data = _data(patch_work, sentences=4, absent_fraction=0.25, swapped_fraction=1.0)
    dataset = data._dataset("train", training=True)
    patch = np.array(SPEC.patch_zyx)
    kinds: set[float | None] = set()
    for epoch in range(12):
        for number, exam in enumerate(dataset.exams):
            item = dataset[epoch, number]
            loaded = cache.load_exam(patch_work, exam, SPEC, data.cache / "grids", key=data._keys[exam.exam_id])
            grid = np.array(loaded.image.shape[1:])
            start = np.rint((item["box"][0].numpy() + 1) / 2 * grid).astype(int)
            np.testing.assert_allclose(item["box"].numpy(), box_of(start, patch, grid), atol=1e-6)
            z, y, x = (slice(s, s + p) for s, p in zip(start, patch, strict=True))
            np.testing.assert_array_equal(item["image"].numpy(), loaded.image[:, z, y, x].astype(np.float32))
            prompts = [example.prompt for example in exam.examples]
            for sentence, target, said in zip(item["sentences"], item["target"], item["present"], strict=True):
                said = float(said)
                if sentence not in prompts:
                    assert said == 0
                    assert not target.any()
                    kinds.add(0.0)
                    continue
                whole = loaded.target(prompts.index(sentence))
                np.testing.assert_array_equal(target.numpy(), whole[z, y, x])
                assert said == 1 if target.max() >= 0.5 else np.isnan(said)
                kinds.add(None if np.isnan(said) else said)
    assert kinds == {0.0, 1.0, None}


def test_a_share_of_patches_holds_a_finding_that_is_asked(patch_work: Path) -> None:
    held = {}
    for share in (0.0, 1.0):
        dataset = _dataset(patch_work, foreground_fraction=share, sentences=1, absent_fraction=0.0)
        items = [dataset[epoch, number] for epoch in range(10) for number in range(4)]
        held[share] = np.mean([bool((item["present"] == 1).any()) for item in items])
    assert held[1.0] == 1.0
    assert held[0.0] < 0.75
    with pytest.raises(ConfigError, match="foreground_fraction"):
        GroundingData(patch_work, foreground_fraction=1.2)


@pytest.mark.parametrize("augment", [None, AugmentConfig()])
def test_a_patch_hangs_on_seed_epoch_and_exam_alone(patch_work: Path, augment: AugmentConfig | None) -> None:
    first, second = (_dataset(patch_work, augment=augment) for _ in range(2))
    for key in ((0, 1), (3, 1), (3, 2)):
        one, same = first[key], second[key]
        assert one["sentences"] == same["sentences"]
        for name in ("image", "target", "box", "present"):
            assert torch.equal(one[name].nan_to_num(-1), same[name].nan_to_num(-1))
    assert not torch.equal(first[0, 1]["box"], first[3, 1]["box"])
    other = _dataset(patch_work, augment=augment, seed=1)
    assert not torch.equal(first[0, 1]["box"], other[0, 1]["box"])


def test_augmentation_never_makes_left_of_right(patch_work: Path) -> None:
    """By its box, a lesion that is asked for lies on its own side, whatever the patch and its shift."""
    dataset = _dataset(patch_work, augment=AugmentConfig(affine_chance=1.0, shift_voxels=3.0), absent_fraction=0.0)
    seen = 0
    for epoch in range(10):
        for number in range(4):
            item = dataset[epoch, number]
            assert item["image"].shape == (2, *(SPEC.patch_zyx or ()))
            box = item["box"].numpy()
            for sentence, target in zip(item["sentences"], item["target"].numpy(), strict=True):
                if target.sum() < 4:
                    continue
                x = np.argwhere(target > 0.5)[:, 2].mean()
                place = box[0, 2] + (x + 0.5) / target.shape[2] * (box[1, 2] - box[0, 2])
                assert (place > 0) == ("right" in sentence)
                # uptake lies where the mask does, to a fraction of a voxel; the background stays below 0.15
                near = binary_dilation(target > 0.05, iterations=3)
                hot = np.where(near, (item["image"][0].numpy() - 0.15).clip(0), 0)
                np.testing.assert_allclose(_middle(hot), _middle(target), atol=0.3)
                seen += 1
    assert seen >= 30


def test_validation_sees_whole_exams_and_batches_carry_boxes(patch_work: Path) -> None:
    data = _data(patch_work, validation_fraction=0.5, exams_per_step=2)
    item = data._dataset("val", training=False)[0]
    assert item["image"].shape[1] > (SPEC.patch_zyx or (0,))[0]
    assert item["target"].shape[1:] == item["image"].shape[1:]
    assert item["target"].dtype == torch.float16
    np.testing.assert_allclose(item["box"].numpy(), [[-1] * 3, [1] * 3])
    assert not item["present"].isnan().any()
    train = data._dataset("train", training=True)
    batch = collate([train[0, 0], train[0, 1]])
    assert batch["box"].shape == (2, 2, 3)
    assert batch["present"].shape == (2, 4)
    assert "box" not in collate([{key: item[key] for key in ("exam_id", "image", "sentences", "target")}])


def test_damaged_and_missing_images_are_made_anew(patch_work: Path) -> None:
    (exam, *_) = read_exams(patch_work)
    folder = patch_work / "cache"
    before = np.array(cache.load_exam(patch_work, exam, SPEC, folder).image)
    (file,) = folder.glob("*.npy")
    file.write_bytes(file.read_bytes()[:300])
    np.testing.assert_array_equal(cache.load_exam(patch_work, exam, SPEC, folder).image, before)
    file.unlink()
    np.testing.assert_array_equal(cache.load_exam(patch_work, exam, SPEC, folder).image, before)
    assert not list(folder.glob("*.part"))


def test_the_key_of_a_fixed_grid_is_what_it_was_and_a_patch_has_its_own(patch_work: Path) -> None:
    (exam, *_) = read_exams(patch_work)
    plain = GridSpec((8.0, 8.0, 8.0), (48, 24, 32))
    keys = {cache.cache_key(patch_work, exam, spec) for spec in (plain, SPEC, GridSpec((8.0,) * 3, patch_step=0.25))}
    assert len(keys) == 3
    assert cache.cache_key(patch_work, exam, GridSpec((8.0, 8.0, 8.0), (48, 24, 32), patch_step=0.7)) in keys


def test_a_finding_outside_the_patch_says_nothing() -> None:
    target = np.zeros((4, 4, 4), dtype=np.float32)
    assert np.isnan(in_image(target))
    target[1, 2, 3] = 0.3
    assert np.isnan(in_image(target)), "its rim alone"
    target[1, 2, 2] = 0.8
    assert in_image(target) == 1
    assert affine()[0, 0] < 0

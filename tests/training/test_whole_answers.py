"""A module on a fixed grid: the answers to a long report go to a file, not to memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from petground.models.unet import Decoded
from petground.training import sliding
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

"""Which kernel a stream's attention to another takes, and that both say the same."""

from __future__ import annotations

import pytest
import torch

from petground.models.blocks import between
from petground.models.blocks.fusion.parts import Attend
from petground.models.blocks.token_reduction.latents import Read


@pytest.mark.parametrize("layer", [lambda: Attend(8, 2, full_width=True), lambda: Read(8, 2)])
def test_few_queries_share_the_keys_out(layer: type, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, voxels, words = layer().double(), torch.randn(2, 40, 8).double(), torch.randn(2, 5, 8).double()
    real, known = torch.rand(2, 40) > 0.3, torch.ones(2, 5, dtype=torch.bool)
    known[1] = False
    down, up = module(words, voxels, real), module(voxels, words, known)
    ways = {name: getattr(between, name) for name in ("cross_attention", "text_to_voxel")}
    taken: list[str] = []
    for name in ways:
        other = next(each for key, each in ways.items() if key != name)

        def swapped(
            *given: torch.Tensor, mask: torch.Tensor, backend: str, name: str = name, other: object = other
        ) -> torch.Tensor:
            taken.append(name)
            return other(*given, mask=mask, backend="chunked")  # type: ignore[operator]

        monkeypatch.setattr(between, name, swapped)
    assert torch.allclose(module(words, voxels, real), down, atol=1e-12)
    assert torch.allclose(module(voxels, words, known), up, atol=1e-12)
    assert taken == ["text_to_voxel", "cross_attention"]

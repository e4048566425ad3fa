"""MixFormer: asymmetric templates never see the search region and can be cached; the full scheme is one softmax."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.contract import BlockInputError
from petground.models.blocks.fusion.score_prediction import region_means


def _block(**options: object) -> nn.Module:
    torch.manual_seed(0)
    block = build("fusion", "mixed_attention", channels=8, text_channels=6, num_heads=2, **options)
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return block.double().eval()


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    return torch.randn(2, 8, 3, 4, 5).double(), torch.randn(2, 5, 6).double(), mask


def test_asymmetric_templates_are_the_same_for_any_search_region() -> None:
    x, tokens, mask = _inputs()
    block = _block()
    _, said = block(x, tokens, mask)
    _, other = block(torch.randn(2, 8, 6, 2, 2).double(), tokens, mask)
    assert torch.equal(said, other)
    _, mixed = _block(asymmetric=False)(x, tokens, mask)
    assert not torch.allclose(mixed, said, atol=1e-4)


def test_templates_once_per_sentence_serve_every_window() -> None:
    _, tokens, mask = _inputs()
    block = _block(coordinates="fourier")
    k, v = block.templates(tokens)
    box = torch.tensor([[[-1.0, -1.0, -1.0], [0.0, 1.0, 1.0]]]).double()
    for window in (torch.randn(2, 8, 3, 4, 5), torch.randn(2, 8, 4, 4, 2)):
        out, _ = block(window.double(), tokens, mask, box)
        assert torch.equal(block.search(window.double(), k, v, mask, box), out)


def test_identity_convolutions_are_plain_attention_over_both_streams() -> None:
    x, tokens, mask = _inputs()
    for full_width, scale in ((True, 8**0.5), (False, 4**0.5)):
        block = _block(asymmetric=False, kv_stride=1, full_width=full_width)
        for convolution in block.convolve.values():
            nn.init.dirac_(convolution.weight, groups=8)
        words, voxels = block.text(tokens), x.flatten(2).transpose(1, 2)
        both = torch.cat([words, voxels], dim=1)
        states, attend = block.norm(both), block.attend
        q, k, v = (
            layer(states).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (attend.query, attend.key, attend.value)
        )
        hidden = torch.cat([~mask, torch.zeros(2, 60, dtype=torch.bool)], dim=1)[:, None, None]
        weights = (q @ k.transpose(-1, -2) / scale).masked_fill(hidden, float("-inf")).softmax(-1)
        both = both + attend.out((weights @ v).transpose(1, 2).flatten(2))
        both = both + block.think(both)
        out, said = block(x, tokens, mask)
        assert torch.allclose(out.flatten(2).transpose(1, 2), both[:, 5:], atol=1e-10)
        change = block.back(both[:, :5] - words)
        assert torch.allclose(said[mask], (tokens + change)[mask], atol=1e-10)


def test_whole_templates_may_come_in_any_order() -> None:
    x, tokens, mask = _inputs()
    block, mask = _block(), torch.ones_like(mask)
    k, v = block.templates(tokens)
    first, second = slice(0, 2), slice(2, 5)
    turned = [torch.cat([one[:, :, second], one[:, :, first]], dim=2) for one in (k, v)]
    assert torch.allclose(block.search(x, *turned, mask), block.search(x, k, v, mask), atol=1e-12)


def test_strided_keys_are_an_eighth() -> None:
    block = _block()
    q, k, v = block._search(torch.randn(1, 8, 4, 6, 8).double(), None)
    assert (q.shape[2], k.shape[2], v.shape[2]) == (192, 24, 24)


REGION = torch.tensor([[[-1.0, 0.0, -0.6], [0.0, 1.0, 0.2]]] * 2).double()  # voxels 0..1.5, 2..4, 1..3 of 3, 4, 5


def test_a_score_is_of_its_region_alone() -> None:
    x, tokens, mask = _inputs()
    block = _block(score_prediction=True)
    score = block.score(x, tokens, mask, REGION)
    assert ((score > 0) & (score < 1)).all()
    inside = (..., slice(0, 2), slice(2, 4), slice(1, 3))
    outside = x + 5.0 * torch.randn_like(x)
    outside[inside] = x[inside]
    assert torch.allclose(block.score(outside, tokens, mask, REGION), score, atol=1e-12)
    for voxel in ((0, 2, 1), (1, 3, 2)):  # the second z slice lies half within
        changed = x.clone()
        changed[(..., *voxel)] += 5.0 * torch.randn(2, 8).double()
        assert not torch.allclose(block.score(changed, tokens, mask, REGION), score, atol=1e-9)


def test_means_of_a_region_are_those_of_its_voxels() -> None:
    x = torch.randn(1, 3, 4, 8, 8).double()
    region = torch.tensor([[[-1.0, -0.5, 0.0], [1.0, 0.5, 1.0]]]).double()
    cropped = x[:, :, :, 2:6, 4:8]
    assert torch.allclose(region_means(x, region, 4), cropped, atol=1e-12)
    assert torch.allclose(region_means(x, region, 2), nn.functional.avg_pool3d(cropped, 2), atol=1e-12)


def test_scores_without_a_head_or_a_region_are_refused() -> None:
    x, tokens, mask = _inputs()
    with pytest.raises(BlockInputError, match=r"^mixed_attention: score .*score_prediction"):
        _block().score(x, tokens, mask, REGION)
    with pytest.raises(BlockInputError, match=r"^mixed_attention: region"):
        _block(score_prediction=True).score(x, tokens, mask, REGION[:1])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.5, 0.25), (1.0, 1.5), (-2.0, -1.0), (0.0, float("nan"))])
def test_a_region_without_voxels_is_refused(axis: int, low: float, high: float) -> None:
    x, tokens, mask = _inputs()
    region = REGION.clone()
    region[1, :, axis] = torch.tensor([low, high]).double()
    with pytest.raises(BlockInputError, match=r"^mixed_attention: region is empty or lies outside the grid; .*lower <"):
        _block(score_prediction=True).score(x, tokens, mask, region)


def test_a_thin_region_has_the_value_of_its_voxel() -> None:
    x = torch.randn(1, 3, 4, 8, 8)
    low = torch.tensor([0.3, -0.6, 0.1])
    region = torch.stack([low, low + 1e-6])[None]  # in 32 bits its bins' edges fall together
    assert torch.allclose(region_means(x, region, 4), x[:, :, 2:3, 1:2, 4:5].expand(-1, -1, 4, 4, 4), atol=1e-6)

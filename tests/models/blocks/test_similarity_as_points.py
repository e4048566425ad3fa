"""READ: soft coordinates, thresholds, and maps that say nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from petground.models import build
from petground.models.blocks.contextual_gate import voxel_places
from petground.models.blocks.fusion.similarity_as_points import points_of, similarity, soft_places

SHAPE = (5, 7, 9)


def _grid(shape: tuple[int, int, int] = SHAPE) -> Tensor:
    axes = [torch.arange(n).double() for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def _map(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    torch.manual_seed(seed)
    return torch.rand(2, shape[0] * shape[1] * shape[2]).double()


def test_a_map_symmetric_about_a_voxel_has_its_soft_point_there() -> None:
    centre = torch.tensor([2.0, 3.0, 4.0]).double()
    alike = torch.exp(-(_grid() - centre).square().sum(-1) / 3.0)[None]
    assert torch.allclose(soft_places(alike, centre[None, None], SHAPE)[0, 0], centre, atol=1e-9)
    # and it leans to the side where the map is higher: z, y, x are not mixed up
    leaning = alike + 0.5 * (_grid()[:, 2] > 4)[None]
    moved = soft_places(leaning, centre[None, None], SHAPE)[0, 0] - centre
    assert moved[2] > 0.05
    assert moved[:2].abs().max() < 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), smooth=st.integers(1, 3))
def test_points_stay_inside_the_grid_and_their_labels_are_a_partition(seed: int, count: int, smooth: int) -> None:
    found = points_of(_map(seed), SHAPE, count, 0.8, 0.2, smooth)
    assert found.places.min() >= 0
    assert (found.places <= torch.tensor(SHAPE) - 1.0).all()
    assert torch.isin(found.labels, torch.tensor([1, 0, -1])).all()
    order = found.labels.tolist()
    for row in order:  # positives, negatives, then neutral ones
        assert row == sorted(row, key=(1, 0, -1).index)


def test_soft_coordinates_are_differentiable_in_the_map() -> None:
    alike = _map().requires_grad_()
    found = points_of(alike, SHAPE, 30, 0.8, 0.2, 2)
    (grad,) = torch.autograd.grad(found.places.square().sum(), alike)
    assert grad.abs().max() > 0
    p = found.places.detach()[:, :1]
    assert torch.autograd.gradcheck(lambda s: soft_places(s, p, SHAPE), (alike,), fast_mode=True)


def test_a_higher_threshold_never_adds_positives() -> None:
    counts = [
        (points_of(_map(), SHAPE, 400, t, 0.2, 1).labels == 1).sum(dim=1).tolist() for t in (0.3, 0.5, 0.7, 0.9, 1.0)
    ]
    for before, after in pairwise(counts):
        assert all(a <= b for a, b in zip(after, before, strict=True))
    assert counts[-1] == [1, 1]  # min-max: the highest is 1


@pytest.mark.parametrize("words", [0, 5])
def test_a_constant_map_has_no_positive(words: int) -> None:
    """The same voxel everywhere, or no word at all: no 0/0, all neutral."""
    voxels = torch.ones(1, 30, 8) if words else torch.randn(1, 30, 8)
    mask = torch.zeros(1, 5, dtype=torch.bool)
    mask[:, :words] = True
    alike = similarity(voxels, torch.randn(1, 5, 8), mask)
    assert torch.equal(alike, torch.full((1, 30), 0.5))
    assert (points_of(alike, (2, 3, 5), 30, 0.8, 0.2, 1).labels == -1).all()


def test_the_map_is_highest_where_voxel_and_words_agree() -> None:
    torch.manual_seed(0)
    voxels, words = torch.randn(1, 60, 8), torch.randn(1, 1, 8)
    voxels[0, 37] = 4.0 * words[0, 0]  # longer or shorter does not matter
    voxels[0, 12] = -words[0, 0]
    alike = similarity(voxels, words, torch.ones(1, 1, dtype=torch.bool))
    assert (int(alike.argmax()), int(alike.argmin())) == (37, 12)
    assert (alike[0, 37], alike[0, 12]) == (1.0, 0.0)
    found = points_of(alike.double(), (3, 4, 5), 10, 0.99, 0.01, 1)
    place = torch.tensor([37 // 20, 37 % 20 // 5, 37 % 5]).double()
    assert found.labels[0, 0] == 1
    assert (found.places[0, 0] - place).abs().max() < 1.0


def test_a_neutral_point_has_no_place() -> None:
    torch.manual_seed(0)
    block = build("fusion", "similarity_as_points", channels=8, text_channels=6).double()
    found = points_of(_map(), SHAPE, 30, 0.8, 0.2, 2)
    moved = found._replace(places=found.places + 0.3)
    same = (block._prompts(found, SHAPE, None) - block._prompts(moved, SHAPE, None)).abs().amax(dim=-1) < 1e-9
    assert torch.equal(same, found.labels == -1)


def test_a_point_has_the_place_of_its_voxel_in_the_exam() -> None:
    """The fourier code of a point on a voxel is that voxel's own, also in a patch."""
    block = build("fusion", "similarity_as_points", channels=8, text_channels=6).double()
    box = torch.tensor([[[-1.0, -0.5, 0.0], [0.5, 0.25, 1.0]]]).double()
    found = points_of(_map()[:1], SHAPE, 4, 0.8, 0.2, 1)._replace(labels=torch.tensor([[1, 1, 0, 0]]))
    index = torch.tensor([0, 11, 100, 314])
    found = found._replace(places=_grid()[index][None])
    voxels = block._fourier(voxel_places(SHAPE, box).reshape(-1, 3)[index].double())
    prompts = block._prompts(found, SHAPE, box)[0] - block.label(torch.tensor([2, 2, 1, 1]))
    assert torch.allclose(prompts, voxels, atol=1e-5)

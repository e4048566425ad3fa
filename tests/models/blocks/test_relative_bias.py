"""What a relative bias depends on: the offset in voxels or in mm, axis by axis, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from petground.models.blocks.attention.relative_bias import LogSpacedBias, OffsetBias, TableBias
from petground.models.blocks.attention.windows import cut

HEADS = 2


@pytest.mark.parametrize("bias", [LogSpacedBias(HEADS, 16), OffsetBias(HEADS, 8)])
def test_a_bias_in_mm_depends_on_the_mm_alone(bias: nn.Module) -> None:
    bias = bias.double()
    with torch.no_grad():
        fine = bias(cut((9, 9, 9), (5, 5, 5)), (1.0, 1.5, 2.0))
        coarse = bias(cut((9, 9, 9), (3, 3, 3)), (2.0, 3.0, 4.0))
        far = bias(cut((9, 9, 9), (3, 3, 3), interval=(2, 2, 2)), (1.0, 1.5, 2.0))
        rim = bias(cut((9, 9, 9), (1, 1, 1), halo=(2, 2, 2)), (2.0, 3.0, 4.0))
    every_other = [z * 25 + y * 5 + x for z in (0, 2, 4) for y in (0, 2, 4) for x in (0, 2, 4)]
    assert torch.allclose(fine[:, every_other][:, :, every_other], coarse)
    assert torch.allclose(far, coarse)
    assert torch.allclose(rim[:, 0, 62], coarse[:, 0, 0])  # its own place
    assert torch.allclose(rim[:, 0, 0], coarse[:, 26, 0])  # two steps on, along every axis
    assert not torch.allclose(coarse[:, 0, 1], coarse[:, 1, 0])  # it knows left from right


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_axis_has_its_own_spacing(axis: int) -> None:
    bias = LogSpacedBias(HEADS, 16, unit_mm=3.0).double()
    spacing = (5.0, 3.0, 2.0)
    offset = torch.zeros(3, dtype=torch.float64)
    offset[axis] = math.log(1 + spacing[axis] / 3.0)
    step = (9, 3, 1)[axis]  # the query one voxel further than the key
    with torch.no_grad():
        expected = 16 * torch.sigmoid(bias.outward(bias.inward(offset).relu()))
        table = bias(cut((9, 9, 9), (3, 3, 3)), spacing)
        assert torch.allclose(table[:, step, 0], expected)
        other = 16 * torch.sigmoid(bias.outward(bias.inward(-offset).relu()))
        assert torch.allclose(table[:, 0, step], other)


def test_a_table_gives_an_offset_the_same_number_in_any_window() -> None:
    table = TableBias(HEADS, (4, 4, 4)).double()
    with torch.no_grad():
        large = table(cut((8, 8, 8), (4, 4, 4)), (1.0, 1.0, 1.0))
        small = table(cut((2, 8, 3), (4, 4, 4)), (1.0, 1.0, 1.0))
    inside = [z * 16 + y * 4 + x for z in range(2) for y in range(4) for x in range(3)]
    assert torch.equal(large[:, inside][:, :, inside], small)
    assert torch.equal(large[:, 1, 0], table.table[:, 3, 3, 4])  # query at x 1, key at x 0: offset +1

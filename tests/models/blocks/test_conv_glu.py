"""TransNeXt's feed-forward layer: a gated linear unit once its convolution sees the voxel alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import conv3d, gelu

from petground.models.registry import build


def _made() -> nn.Module:
    torch.manual_seed(0)
    module = build("mixer", "conv_glu", channels=6, ratio=2.0)
    nn.init.normal_(module.outward.weight)
    return module.double()


def test_a_delta_kernel_makes_a_gated_linear_unit() -> None:
    module = _made()
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        whole = module.operator(x)
        module.depthwise.weight.zero_()
        module.depthwise.weight[:, :, 1, 1, 1] = 1.0
        module.depthwise.bias.zero_()
        gate, value = conv3d(x, module.inward.weight, module.inward.bias).chunk(2, dim=1)
        expected = conv3d(gelu(gate) * value, module.outward.weight, module.outward.bias)
        assert torch.allclose(module.operator(x), expected)
    assert not torch.allclose(whole, expected, atol=1e-3)
    assert module.inward.weight.shape[0] == 2 * 8  # 2/3 of 2 x 6, twice


def test_only_the_gate_sees_neighbours_one_voxel_away() -> None:
    x = torch.randn(1, 6, 5, 5, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(_made().operator(x)[..., 2, 2, 2].sum(), x)
    reached = gradient.abs().sum((0, 1)) > 0
    assert reached[1:4, 1:4, 1:4].all()
    assert reached.sum() == 27


def test_it_starts_as_the_identity() -> None:
    x = torch.randn(1, 6, 2, 3, 4)
    assert torch.equal(build("mixer", "conv_glu", channels=6)(x), x)

"""LXMERT: both directions read the states before, nothing is added at the start, shared weights are half as many."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petground.models import build
from petground.models.blocks.fusion.lxmert_cross import CrossModalityLayer


def _layer(shared: bool = False) -> CrossModalityLayer:
    torch.manual_seed(0)
    layer = CrossModalityLayer(8, 2, shared).double()
    for parameter in layer.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("first", ["h", "v"])
def test_either_order_of_the_directions_is_the_layer(first: str) -> None:
    layer = _layer()
    h, v = torch.randn(2, 4, 8).double(), torch.randn(2, 6, 8).double()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    where = torch.randn(2, 6, 8).double()
    said, seen = layer.norms["h"](h), layer.norms["v"](v) + where
    new = {}
    for stream in (first, "v" if first == "h" else "h"):
        new[stream] = h + layer.cross_h(said, seen) if stream == "h" else v + layer.cross_v(seen, said, mask)
    said, seen = layer.norms["h_self"](new["h"]), layer.norms["v_self"](new["v"]) + where
    h2, v2 = new["h"] + layer.self_h(said, said, mask), new["v"] + layer.self_v(seen, seen)
    got_h, got_v = layer(h, v, mask, where)
    assert torch.allclose(got_h, h2 + layer.think_h(h2), atol=1e-12)
    assert torch.allclose(got_v, v2 + layer.think_v(v2), atol=1e-12)
    # a layer that read the updated text would say something else
    wrong = v + layer.cross_v(layer.norms["v"](v) + where, layer.norms["h"](new["h"]), mask)
    assert not torch.allclose(wrong, new["v"], atol=1e-3)


def test_zero_output_projections_are_the_identity() -> None:
    block = build("fusion", "lxmert_cross", channels=8, text_channels=6, num_heads=2, layers=2)
    for name, parameter in block.named_parameters():
        if ".out." not in name:
            nn.init.normal_(parameter)
    x, tokens = torch.randn(2, 8, 2, 3, 4), torch.randn(2, 5, 6)
    out, said = block(x, tokens, torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(out, x)
    assert torch.equal(said, tokens)


def test_shared_weights_are_half_of_the_cross_attention() -> None:
    def cross(shared: bool) -> int:
        return sum(p.numel() for name, p in _layer(shared).named_parameters() if name.startswith("cross"))

    assert 2 * cross(shared=True) == cross(shared=False)


def test_pooled_voxels_change_cell_by_cell() -> None:
    """With pool=2 the change of the voxels varies as a map of half the size, spread back trilinearly."""
    torch.manual_seed(0)
    block = build("fusion", "lxmert_cross", channels=8, text_channels=6, pool=2)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, tokens = torch.randn(1, 8, 4, 4, 6), torch.randn(1, 5, 6)
    mask = torch.ones(1, 5, dtype=torch.bool)
    within = torch.randn(8, 1, 1, 1) * torch.tensor([1.0, -1.0]).repeat(3)  # moves voxels, not the means of their cells
    change = block(x, tokens, mask)[0] - x
    assert torch.allclose(block(x + within, tokens, mask)[0] - (x + within), change, atol=1e-4)
    assert change.abs().max() > 1e-2

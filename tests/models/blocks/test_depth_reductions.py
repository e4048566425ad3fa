"""Mixture of depths (p_mod, gamma_mod): who is routed, what is weighted, what passes untouched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.contract import Grid
from petground.models.blocks.token_reduction.depth import MixtureOfDepths, attention_rank
from petground.models.blocks.voxel_attention import VoxelAttention
from petground.models.registry import BlockError, build

SHAPE = (3, 5, 7)


def _layer(reduction: nn.Module | None) -> VoxelAttention:
    """The attention layer around a reduction, no identity; the same weights each time."""
    torch.manual_seed(3)
    layer = VoxelAttention(8, 6, 2, SoftmaxAttention(8, 2), None, needs_grid=False)
    nn.init.normal_(layer.outward.weight)
    layer.reduction, layer.text = reduction, None if reduction is None else nn.Linear(6, 8)
    return layer.double().eval()


def _volume() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 8, *SHAPE, dtype=torch.float64)


def _trained(key: str, **options: object) -> nn.Module:
    module = build("token_reduction", key, channels=8, **options)
    torch.manual_seed(5)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double().eval()


@pytest.mark.parametrize("key", ["p_mod", "gamma_mod"])
def test_skipped_voxels_pass_bit_for_bit(key: str) -> None:
    reduction = build("token_reduction", key, channels=8)  # p_mod's router as it starts: zero
    layer, x = _layer(reduction), _volume()
    with torch.no_grad():
        out = layer(x)
        voxels = layer.norm(Grid(SHAPE).flat(x))
        routed = reduction(voxels).kept
    skipped = torch.ones(2, 105, dtype=torch.bool).scatter(1, routed, False)
    assert skipped.sum() == 2 * (105 - routed.shape[1]) > 0
    same = (out == x).flatten(2).all(1)
    assert same[skipped].all()
    assert not same[~skipped].any()


def test_all_routed_is_the_dense_layer() -> None:
    x = _volume()
    with torch.no_grad():
        dense = _layer(None)(x)
        first = _layer(build("token_reduction", "p_mod", channels=8, layer=0, layers=4))(x)
        unit = _layer(MixtureOfDepths(8, "unit", weight="one", schedule="constant", capacity=1.0))(x)
    assert torch.equal(first, dense)
    assert torch.allclose(unit, dense, atol=1e-12)


def test_progressive_ratio() -> None:
    layers = 9
    shares = [build("token_reduction", "p_mod", channels=8, layer=n, layers=layers).share for n in range(layers)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert shares[-1] == 0.15
    assert shares[4] == pytest.approx(0.5)
    assert shares[2] == pytest.approx(math.cos(math.pi / 4) / 2 + 0.5)
    mask = torch.ones(2, 105, dtype=torch.bool)
    mask[1, ::2] = False
    for layer in range(layers):
        module = build("token_reduction", "p_mod", channels=8, layer=layer, layers=layers)
        routed = module(torch.randn(2, 105, 8), mask=mask).mask.sum(1)
        share = 1.0 if module.dense else module.share
        assert routed.tolist() == [math.floor(share * 105 + 1e-6), math.floor(share * 52 + 1e-6)]


def test_capacity_is_rounded_up_and_never_empty() -> None:
    tokens = torch.randn(2, 10, 8)
    assert build("token_reduction", "gamma_mod", channels=8, capacity=0.31)(tokens).mask.sum(1).tolist() == [4, 4]
    assert build("token_reduction", "gamma_mod", channels=8, capacity=0.3)(tokens).mask.sum(1).tolist() == [3, 3]
    assert build("token_reduction", "p_mod", channels=8, layer=2)(tokens[:, :1]).mask.sum(1).tolist() == [1, 1]


@pytest.mark.parametrize("key", ["p_mod", "gamma_mod"])
def test_permuted_voxels_are_routed_alike(key: str) -> None:
    module = _trained(key)
    tokens = torch.randn(1, 30, 8, dtype=torch.float64)
    order = torch.randperm(30)
    with torch.no_grad():
        kept = module(tokens).kept[0]
        turned = module(tokens[:, order]).kept[0]
    assert set(order[turned].tolist()) == set(kept.tolist())


def test_weights_of_routed_and_skipped() -> None:
    """p_mod: c x + g T(x), g = w on the routed, c = w on the others; gamma_mod: x + w T(x), written out here."""
    x = _volume()
    for key in ("p_mod", "gamma_mod"):
        reduction = _trained(key)
        layer = _layer(reduction)
        with torch.no_grad():
            out = Grid(SHAPE).flat(layer(x))
            flat = Grid(SHAPE).flat(x)
            voxels = layer.norm(flat)
            logits = reduction.router(voxels)
            weight = 0.2 * logits[..., 0].tanh() + 1 if key == "p_mod" else logits.softmax(-1)[..., 1]
            reduced = reduction(voxels)
            q, k, v = layer.inward(reduced.tokens).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            added = layer.outward(layer.attention(q, k, v)[0].transpose(1, 2).flatten(2))
            for row in range(2):
                best = set(weight[row].topk(reduced.kept.shape[1]).indices.tolist())
                assert set(reduced.kept[row].tolist()) == best
                wanted = flat[row] * weight[row][:, None] if key == "p_mod" else flat[row].clone()
                for slot, place in enumerate(reduced.kept[row].tolist()):
                    wanted[place] = flat[row, place] + weight[row, place] * added[row, slot]
                assert torch.allclose(out[row], wanted, atol=1e-12)


def test_router_learns_from_routed_and_skipped() -> None:
    layer = _layer(_trained("p_mod")).train()
    x = _volume()
    routed = layer.reduction(layer.norm(Grid(SHAPE).flat(x)))
    router = layer.reduction.router.weight
    assert torch.autograd.grad(routed.gain.sum(), router, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(routed.carry.sum(), router)[0].abs().sum() > 0


def test_the_sentence_is_not_routed() -> None:
    tokens, text = torch.randn(1, 20, 8).double(), torch.randn(1, 5, 8).double()
    for key in ("p_mod", "gamma_mod"):
        module = _trained(key)
        with torch.no_grad():
            assert torch.equal(module(tokens, text=text).kept, module(tokens, text=-text).kept)


def test_attention_rank() -> None:
    uniform = torch.full((2, 3, 6, 6), 1 / 6)
    assert attention_rank(uniform) == 1
    assert attention_rank(torch.eye(6).expand(2, 3, 6, 6)) == 6
    assert attention_rank(torch.stack([uniform[0], torch.eye(6).expand(3, 6, 6)])) == 3.5


def test_wrong_options_are_refused() -> None:
    for options in ({"capacity": 0.0}, {"capacity": 1.5}):
        with pytest.raises(BlockError, match="capacity"):
            build("token_reduction", "gamma_mod", channels=8, **options)
    with pytest.raises(BlockError, match="layer=3"):
        build("token_reduction", "p_mod", channels=8, layer=3, layers=3)
    with pytest.raises(BlockError, match="weight"):
        build("token_reduction", "p_mod", channels=8, weight="one")  # a preset's own option

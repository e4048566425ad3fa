"""aaren, agent, kmeans_cross and size_switched: what each paper promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from petground.models.blocks.attention import kmeans_cross
from petground.models.blocks.attention.pooling import bin_shares, linear_resize
from petground.models.blocks.contract import BlockInputError, Grid
from petground.models.registry import BlockError, build
from tests.models.conformance.memory import largest_tensor


def made(key: str, heads: int = 2, dim: int = 4, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build("attention", key, channels=heads * dim, num_heads=heads, **options).double().eval()


def qkv(count: int = 30, keys: int | None = None, heads: int = 2, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    keys = count if keys is None else keys
    q, k, v = (torch.randn(2, heads, n, dim, dtype=torch.float64) for n in (count, keys, keys))
    return q, k, v


@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
def test_aaren_is_softmax_attention_however_the_keys_are_split(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petground.kernels.text_to_voxel.chunked._BLOCK_SCORES", 35)  # 7 keys at a time
    q, k, v = qkv(5, 40)
    mask = torch.rand(2, 40) > 0.5
    truth = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    assert torch.allclose(made("aaren", backend=backend)(q, k, v, cross=True, mask=mask)[0], truth, atol=1e-12)


def test_aaren_causal_is_its_own_query_on_every_prefix() -> None:
    q, k, v = qkv(13)
    module = made("aaren")
    out, _ = module(q, k, v, causal=True)
    own = module.query[None, :, None].expand(2, -1, -1, -1)
    for t in range(13):
        truth = scaled_dot_product_attention(own, k[:, :, : t + 1], v[:, :, : t + 1])
        assert torch.allclose(out[:, :, t : t + 1], truth, atol=1e-12)
    assert torch.equal(module(torch.zeros_like(q), k, v, causal=True)[0], out)  # q is not read


def test_agent_map_is_of_low_rank_and_sums_to_one() -> None:
    grid = Grid((3, 4, 5))
    q, k, v = qkv(60)
    mask = torch.rand(2, 60) > 0.3
    out, weights = made("agent", pool=[2, 1, 2], dwc=False)(q, k, v, mask=mask, grid=grid, need_weights=True)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 60, dtype=torch.float64))
    assert torch.linalg.matrix_rank(weights).max() <= 4
    assert torch.allclose(weights @ v, out, atol=1e-10)


def test_agents_are_means_over_boxes_of_the_grid() -> None:
    """Cut in two along z; boxes of odd sizes overlap by a slice; only real queries count."""
    q, _, _ = qkv(60)
    module = made("agent", pool=[2, 1, 1], bias_size=0, dwc=False)
    grid = Grid((4, 3, 5))
    agents, real = module._agents(q, None, grid)
    assert torch.allclose(agents[:, :, 0], q[:, :, :30].mean(2), atol=1e-12)
    assert torch.allclose(agents[:, :, 1], q[:, :, 30:].mean(2), atol=1e-12)
    half = torch.ones(2, 60, dtype=torch.bool)
    half[:, 30:] = False
    half[:, 3] = False
    agents, real = module._agents(q, half, grid)
    assert torch.allclose(agents[:, :, 0], q[:, :, :30][:, :, half[0, :30]].mean(2), atol=1e-12)
    assert real.tolist() == [[True, False]] * 2
    agents, _ = module._agents(q, None, Grid((5, 4, 3)))
    assert torch.allclose(agents[:, :, 1], q[:, :, 24:].mean(2), atol=1e-12)


def test_one_agent_answers_everyone_alike() -> None:
    q, k, v = qkv(60)
    out, _ = made("agent", pool=[1, 1, 1], dwc=False)(q, k, v, grid=Grid((3, 4, 5)))
    assert torch.allclose(out, out[:, :, :1].expand_as(out), atol=1e-12)


@pytest.mark.parametrize("cross", [True, False])
def test_agent_with_the_same_agents_follows_its_tokens(cross: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the boxes that make agents, the biases and the convolution read places."""
    q, k, v = qkv(24, 40 if cross else 24)
    mask = torch.rand(k.shape[0], k.shape[2]) > 0.3
    module, other = made("agent", pool=[1, 2, 2], bias_size=0, dwc=False), torch.randperm(24)
    moved = torch.randperm(40) if cross else other
    turned = q[:, :, other], k[:, :, moved], v[:, :, moved]
    out, _ = module(q, k, v, mask=mask, cross=cross)
    assert not torch.allclose(module(*turned, mask=mask[:, moved], cross=cross)[0], out[:, :, other], atol=1e-3)
    agents = module._agents(q, None if cross else mask, None)
    monkeypatch.setattr(module, "_agents", lambda *_: agents)
    assert torch.allclose(module(q, k, v, mask=mask, cross=cross)[0], out, atol=1e-12)
    assert torch.allclose(module(*turned, mask=mask[:, moved], cross=cross)[0], out[:, :, other], atol=1e-12)


def test_agent_convolution_with_a_delta_kernel_adds_the_values() -> None:
    q, k, v = qkv(60)
    grid = Grid((3, 4, 5))
    module = made("agent", pool=[2, 2, 2])
    with torch.no_grad():
        module.dwc.weight.zero_()
        module.dwc.bias.zero_()
        without, _ = module(q, k, v, grid=grid)
        module.dwc.weight[:, 0, 1, 1, 1] = 1.0
        assert torch.allclose(module(q, k, v, grid=grid)[0], without + v, atol=1e-12)
        module.dwc.weight.zero_()
        module.dwc.weight[:, 0, 2, 1, 1] = 1.0  # one slice on
        shifted = torch.cat([v[:, :, 20:], torch.zeros_like(v[:, :, :20])], dim=2)
        assert torch.allclose(module(q, k, v, grid=grid)[0], without + shifted, atol=1e-12)


def test_agent_bias_is_interpolated_along_its_own_axis() -> None:
    """A bias for large z pulls attention to large z, not to large y or x."""
    grid = Grid((6, 4, 2))
    q, k, v = (torch.zeros(1, 2, 48, 4, dtype=torch.float64) for _ in range(3))
    module = made("agent", pool=[1, 1, 1], dwc=False)
    with torch.no_grad():
        module.of_keys.zero_()
        module.of_keys[:, :, 3] = 5.0
        _, weights = module(q, k, v, grid=grid, need_weights=True)
    slices = weights[0, 0, 0].reshape(6, 4, 2)
    by_z = slices.sum((1, 2))
    assert (by_z.diff() >= 0).all()
    assert by_z[-1] > 10 * by_z[0]
    assert torch.allclose(slices, slices[:, :1, :1].expand_as(slices))


def test_bins_and_interpolation_are_pytorchs() -> None:
    x = torch.randn(1, 1, 11, dtype=torch.float64)
    for count in (1, 3, 4, 11, 15):
        pooled = torch.nn.functional.adaptive_avg_pool1d(x, count)
        assert torch.allclose(x @ bin_shares(11, count, x).T, pooled)
        resized = torch.nn.functional.interpolate(x, size=count, mode="linear")
        assert torch.allclose(x @ linear_resize(count, 11, x).T, resized)


def test_agent_cost_is_linear() -> None:
    q, k, v = (one[:1].float() for one in qkv(4096, heads=1, dim=8))
    module = made("agent", heads=1, dim=8, pool=[2, 2, 2]).float()
    with largest_tensor() as most:
        module(q, k, v, grid=Grid((16, 16, 16)))
    assert most.numbers <= 4096 * 16, most.shape


def test_agent_refuses_what_does_not_fit() -> None:
    for pool in ([2, 2], [0, 1, 1], 4, [1.5, 2, 2]):
        with pytest.raises(BlockError, match="pool"):
            made("agent", pool=pool)
    q, k, v = qkv(60)
    with pytest.raises(BlockInputError, match="agent: v"):
        made("agent")(q, k, v[..., :2], grid=Grid((3, 4, 5)))


def test_kmeans_gives_every_voxel_to_its_best_query() -> None:
    q, k, v = qkv(6, 40)
    mask = torch.rand(2, 40) > 0.3
    out, map_ = made("kmeans_cross")(q, k, v, cross=True, mask=mask, need_weights=True)
    best = (q @ k.mT).argmax(2)
    for j in range(40):
        column = map_[0, 1, :, j]
        assert column.sum() == float(mask[0, j])
        assert not mask[0, j] or column[best[0, 1, j]] == 1
    assert torch.allclose(map_ @ v, out, atol=1e-12)
    assert torch.allclose(out.sum(2), (v * mask[:, None, :, None]).sum(2), atol=1e-12)


def test_kmeans_knows_only_the_order_of_its_scores() -> None:
    q, k, v = qkv(6, 40)
    module = made("kmeans_cross")
    out, _ = module(q, k, v, cross=True)
    assert torch.allclose(module(7.0 * q, k, v, cross=True)[0], out, atol=1e-12)
    per_voxel = torch.randn(2, 2, 1, 40, dtype=torch.float64)  # the same for all queries: nobody's rank changes
    assert torch.allclose(module(q, k, v, cross=True, bias=per_voxel)[0], out, atol=1e-12)
    order = torch.randperm(40)
    assert torch.allclose(module(q, k[:, :, order], v[:, :, order], cross=True)[0], out, atol=1e-12)


def test_kmeans_in_bfloat16_takes_a_best_query_and_loses_no_value() -> None:
    """Rounded scores may tie or swap, but only where they are within rounding of each other."""
    q, k, v = (one.bfloat16() for one in qkv(6, 400))
    out, map_ = made("kmeans_cross").bfloat16()(q, k, v, cross=True, need_weights=True)
    scores = q.double() @ k.double().mT
    taken = (scores * map_.double()).sum(2)
    rounding = scores.abs().amax(2) * torch.finfo(torch.bfloat16).eps
    assert (map_.sum(2) == 1).all()
    assert (taken >= scores.amax(2) - rounding).all()
    assert (taken == scores.amax(2)).double().mean() > 0.97
    wanted = map_.double() @ v.double()
    assert torch.allclose(out.double(), wanted, rtol=torch.finfo(torch.bfloat16).eps, atol=1e-6)


def test_kmeans_masked_queries_receive_nothing() -> None:
    q, k, v = qkv(6, 40)
    bias = torch.zeros(2, 1, 6, 1, dtype=torch.float64)
    bias[:, :, 2] = float("-inf")
    out, _ = made("kmeans_cross")(q, k, v, cross=True, bias=bias)
    assert torch.equal(out[:, :, 2], torch.zeros_like(out[:, :, 2]))
    assert torch.allclose(out.sum(2), v.sum(2), atol=1e-12)  # the others share it out
    none, _ = made("kmeans_cross")(q, k, v, cross=True, bias=torch.full_like(bias, float("-inf")))
    assert torch.equal(none, torch.zeros_like(none))
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    padded, _ = made("kmeans_cross")(50.0 * q, q, q, mask=mask)
    assert torch.equal(padded[:, :, 4:], torch.zeros_like(padded[:, :, 4:]))


def test_kmeans_keys_in_turn_and_no_gradient_through_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (one.requires_grad_() for one in qkv(6, 40))
    module = made("kmeans_cross")
    whole, _ = module(q, k, v, cross=True)
    monkeypatch.setattr(kmeans_cross, "_BUDGET", 4 * 6 * 7)
    with largest_tensor() as most:
        out, _ = module(q, k, v, cross=True)
    assert torch.equal(out, whole)
    assert most.numbers <= max(4 * 6 * 7, v.numel()), most.shape
    given = torch.autograd.grad(out.square().sum(), (q, k, v), allow_unused=True)
    assert given[:2] == (None, None)
    assert given[2].abs().sum() > 0
    masks = module.scores(q, k)
    assert torch.autograd.grad(masks.sigmoid().sum(), q)[0].abs().sum() > 0


def test_size_switched_is_sdpa_bit_for_bit_up_to_its_width() -> None:
    module = made("size_switched", width=12)
    for keys in (3, 12):
        q, k, v = qkv(20, keys)
        assert torch.equal(module(q, k, v, cross=True)[0], scaled_dot_product_attention(q, k, v))
    q, k, v = qkv(20, 13)
    assert not torch.allclose(module(q, k, v, cross=True)[0], scaled_dot_product_attention(q, k, v), atol=1e-3)


def test_size_switched_light_form() -> None:
    q, k, v = qkv(20, 40)
    mask = torch.rand(2, 40) > 0.4
    out, weights = made("size_switched")(q, k, v, cross=True, mask=mask, need_weights=True)
    of_k = k.masked_fill(~mask[:, None, :, None], float("-inf")).softmax(2)
    assert torch.allclose(out, q.softmax(-1) @ (of_k.mT @ v.masked_fill(~mask[:, None, :, None], 0)), atol=1e-12)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 20, dtype=torch.float64))
    assert (weights >= 0).all()
    assert torch.allclose(weights @ v, out, atol=1e-12)


def test_size_switched_chooses_by_numbers_alone_and_holds_no_map() -> None:
    """A mask that leaves few keys does not switch; many keys never make N x N."""
    module = made("size_switched", heads=1, dim=8).float()
    q, k, v = (one[:1].float() for one in qkv(4096, heads=1, dim=8))
    with largest_tensor() as most:
        module(q, k, v)
    assert most.numbers <= 4096 * 8, most.shape
    few = torch.zeros(1, 4096, dtype=torch.bool)
    few[:, :4] = True
    out, _ = module(q, k, v, mask=few)
    assert not torch.allclose(out, scaled_dot_product_attention(q, k[:, :, :4], v[:, :, :4]), atol=1e-3)


def test_size_switched_on_tokens_that_merge_between_levels() -> None:
    """The paper's merging is the token_reduction's: sizes sum to N at each level; few are left, and it is exact."""
    module, grid = made("size_switched", width=16), Grid((3, 4, 5))
    torch.manual_seed(0)
    tokens, text = torch.randn(2, 60, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    for merges in (0, 1, 2):
        merging = build("token_reduction", "aim_merge_prune", channels=8, merges=merges, layer=0)
        reduced = merging(tokens, grid=grid, text=text)
        count = reduced.tokens.shape[1]
        sizes = reduced.unmerge(torch.eye(count, dtype=torch.float64).expand(2, -1, -1)).sum(1)
        assert torch.equal(sizes.sum(1), torch.full((2,), 60.0, dtype=torch.float64))
        assert (sizes[reduced.mask] >= 1).all()
        heads = reduced.tokens.unflatten(-1, (2, 4)).transpose(1, 2)
        truth = scaled_dot_product_attention(heads, heads, heads, attn_mask=reduced.mask[:, None, None])
        exact = torch.allclose(module(heads, heads, heads, mask=reduced.mask)[0], truth, atol=1e-12)
        assert exact == (count <= 16)
    assert count == 15


@pytest.mark.parametrize("key", ["aaren", "agent", "kmeans_cross", "size_switched"])
def test_bfloat16_is_finite(key: str) -> None:
    q, k, v = (one.bfloat16() for one in qkv(300))
    out, _ = made(key).bfloat16()(q, k, v, grid=Grid((3, 10, 10)))
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()

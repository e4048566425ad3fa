"""Linear attention and its presets: what each paper promises, memory, and fla's plain references."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from petground.kernels.linear_attention import linear_attention_carried
from petground.models.blocks.attention.feature_maps import HedgehogFeatures, taylor
from petground.models.blocks.attention.linear import attention_distillation, log_decays, rms_norm
from petground.models.blocks.contract import BlockInputError, Grid
from petground.models.registry import BlockError, build
from tests.models.conformance.memory import kept_for_backward, largest_tensor

LIGHTNING = ["lightning_attention", "lightning2"]


def made(key: str, heads: int = 2, dim: int = 4, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build("attention", key, channels=heads * dim, num_heads=heads, **options).double().eval()


def qkv(count: int = 30, heads: int = 2, dim: int = 4, keys: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    keys = count if keys is None else keys
    q, k, v = (torch.randn(2, heads, n, dim, dtype=torch.float64) for n in (count, keys, keys))
    return q, k, v


def naive(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, causal: bool) -> Tensor:
    """[(Q K^T) o M] V, M_ij = lambda^|i - j|, below the diagonal when causal."""
    n = q.shape[2]
    apart = (torch.arange(n)[:, None] - torch.arange(n)).double()
    decay = torch.exp(log_decay.double()[:, None, None] * apart.abs())
    return ((q @ k.mT) * (decay.tril() if causal else decay)) @ v


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 7, 30, 64])
@pytest.mark.parametrize("key", LIGHTNING)
def test_lightning_is_the_naive_masked_product_for_any_chunk(key: str, chunk_size: int, causal: bool) -> None:
    q, k, v = qkv()
    rates = log_decays(2, "heads" if key == "lightning_attention" else "slopes")
    truth = naive(q, k, v, rates, causal=causal)
    options: dict[str, Any] = {"chunk_size": chunk_size, "feature_map": "identity", "value_map": "identity"}
    bare, _ = made(key, normalize="none", **options)(q, k, v, causal=causal)
    assert torch.allclose(bare, truth, atol=1e-7)  # the decays are float32
    normed, _ = made(key, **options)(q, k, v, causal=causal)
    assert torch.allclose(normed, rms_norm(truth), atol=1e-7)


@pytest.mark.parametrize("key", LIGHTNING)
def test_lightning_takes_the_silu_as_the_authors_and_their_norm_of_all_heads_where_told(key: str) -> None:
    q, k, v = qkv()
    rates = log_decays(2, "heads" if key == "lightning_attention" else "slopes") * 0.25
    bare = naive(silu(q), silu(k), silu(v), rates, causal=True)
    side_by_side = bare.transpose(1, 2).flatten(2)
    truth = side_by_side / (side_by_side.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    out, _ = made(key, decay_scale=0.25, normalize="rms_all")(q, k, v, causal=True)  # as the fourth of five layers
    assert torch.allclose(out.transpose(1, 2).flatten(2), truth, atol=1e-6)
    each, _ = made(key, decay_scale=0.25)(q, k, v, causal=True)
    assert torch.allclose(each, rms_norm(bare), atol=1e-6)


@pytest.mark.parametrize("key", LIGHTNING)
def test_lightning_in_pieces_whose_state_is_carried_is_one_pass(key: str) -> None:
    q, k, v = qkv()
    module = made(key, normalize="none")
    truth, _ = module(q, k, v, causal=True)
    decay, state, outs = cast(Tensor, module.log_decay), None, []
    for piece in (slice(0, 1), slice(1, 12), slice(12, 30)):
        some = (silu(one[:, :, piece]) for one in (q, k, v))
        out, state = linear_attention_carried(*some, state, log_decay=decay, chunk_size=5)
        outs.append(out)
    assert torch.allclose(torch.cat(outs, dim=2), truth, atol=1e-9)


@pytest.mark.parametrize("key", LIGHTNING)
def test_without_decay_it_is_plain_linear_attention(key: str) -> None:
    q, k, v = qkv()
    module = made(key, normalize="none", decay_scale=0.0, feature_map="identity", value_map="identity")
    assert torch.allclose(module(q, k, v, causal=True)[0], (q @ k.mT).tril() @ v, atol=1e-10)
    assert torch.allclose(module(q, k, v)[0], q @ k.mT @ v, atol=1e-10)


def test_decays_are_the_published_ones() -> None:
    assert log_decays(4, "heads").tolist() == [0.0, -2.0, -4.0, -6.0]
    assert log_decays(4, "slopes").tolist() == [-0.25, -0.0625, -0.015625, -0.00390625]


@pytest.mark.parametrize("key", LIGHTNING)
def test_lightning_decays_along_z_first_order(key: str) -> None:
    """Tokens lie in C order: the next voxel in x is one step away, the next in z a whole slice."""
    grid = Grid((3, 2, 4))
    q = torch.ones(1, 2, 24, 4, dtype=torch.float64)
    v = torch.zeros_like(q).requires_grad_()
    out, _ = made(key, normalize="none")(q, q, v, grid=grid)
    (reach,) = torch.autograd.grad(out[0, 1, 0].sum(), v)
    x, y, z = (reach[0, 1, step, 0].item() for step in (1, 4, 8))
    assert x > y > z > 0


@pytest.mark.parametrize("key", [*LIGHTNING, "based", "hedgehog"])
@pytest.mark.parametrize("causal", [True, False])
def test_no_n_by_n_tensor_and_backward_linear_in_n(key: str, causal: bool) -> None:
    module = made(key, heads=1, dim=8, chunk_size=32).float()
    numbers, kept = [], []
    for count in (2048, 4096):
        q, k, v = (one[:1].float().requires_grad_() for one in qkv(count, heads=1, dim=8))
        grid = Grid((16, 16, count // 256))
        with largest_tensor() as most, kept_for_backward() as stored:
            module(q, k, v, grid=grid, causal=causal)
        numbers.append(most.numbers)
        kept.append(sum(stored.values()))
    assert numbers[1] < 4096 * 4096 / 4
    assert numbers[1] <= 2.2 * numbers[0]
    assert kept[1] <= 2.2 * kept[0]


def test_taylor_features_multiply_to_the_polynomial() -> None:
    q, k = torch.randn(50, 6, dtype=torch.float64) * 3, torch.randn(40, 6, dtype=torch.float64) * 3
    s = q @ k.T / 6**0.5
    weights = taylor(q) @ taylor(k).T
    assert torch.allclose(weights, 1 + s + s * s / 2, atol=1e-10)
    assert weights.min() >= 0.5
    assert taylor(q).shape[-1] == 1 + 6 + 21


def test_based_shares_are_positive_and_sum_to_one() -> None:
    q, k, v = qkv(60)
    for grid, causal in ((Grid((3, 4, 5)), False), (None, False), (None, True)):
        out, weights = made("based", window=8, radius=[1, 1, 0])(q, k, v, grid=grid, causal=causal, need_weights=True)
        assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert ((weights if not causal else weights.tril() + torch.ones(60, 60).triu(1)) > 0).all()
        assert torch.allclose(weights @ v, out, atol=1e-10)


def test_based_window_is_exact_softmax_near_by() -> None:
    """With the gate open the map is the softmax over the box of voxels; with it closed the linear part alone."""
    q, k, v = qkv(60)
    grid = Grid((3, 4, 5))
    module = made("based", radius=[1, 0, 2])
    with torch.no_grad():
        module.share.fill_(200.0)
    at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid.shape_zyx), indexing="ij"), -1).reshape(-1, 3)
    near = ((at[:, None] - at).abs() <= torch.tensor([1, 0, 2])).all(-1)
    truth = scaled_dot_product_attention(q, k, v, attn_mask=near)
    assert torch.allclose(module(q, k, v, grid=grid)[0], truth, atol=1e-10)
    steps = torch.arange(60)[:, None] - torch.arange(60)
    last = made("based", window=7)
    with torch.no_grad():
        last.share.fill_(200.0)
    truth = scaled_dot_product_attention(q, k, v, attn_mask=(steps >= 0) & (steps < 7))
    assert torch.allclose(last(q, k, v, causal=True)[0], truth, atol=1e-10)
    closed = made("based", window=0)
    assert torch.allclose(closed(q, k, v, grid=grid)[0], closed.linear(q, k, v)[0])


@pytest.mark.parametrize("feature_dim", [0, 3])
@pytest.mark.parametrize("causal", [True, False])
def test_based_without_its_window_is_the_taylor_map(causal: bool, feature_dim: int) -> None:
    """Shares (1 + s + s^2 / 2) over their row sum, whatever q and k are projected to; padding takes no part."""
    q, k, v = qkv(24)
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[1, 20:] = False
    module = made("based", window=0, feature_dim=feature_dim, chunk_size=5)
    short = [features.project @ one.mT if feature_dim else one.mT for features, one in
             ((module.linear.of_q, q), (module.linear.of_k, k))]  # fmt: skip
    s = short[0].mT @ short[1] / (feature_dim or 4) ** 0.5
    raw = (1.0 + s + s.square() / 2.0).masked_fill(~mask[:, None, None], 0.0)
    raw = raw.tril() if causal else raw
    truth = raw / raw.sum(-1, keepdim=True)
    out, weights = module(q, k, v, mask=mask, causal=causal, need_weights=True)
    assert torch.allclose(weights, truth, atol=1e-12)
    assert torch.allclose(out, truth @ v, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_hedgehog_shares_and_the_quadratic_form(causal: bool) -> None:
    q, k, v = qkv(24)
    module = made("hedgehog", chunk_size=5)
    with torch.no_grad():
        for one in module.parameters():
            one.add_(0.3 * torch.randn_like(one))
    out, weights = module(q, k, v, causal=causal, need_weights=True)
    fq, fk = module.of_q(q), module.of_k(k)
    raw = fq @ fk.mT
    raw = raw.tril() if causal else raw
    assert torch.allclose(weights, raw / raw.sum(-1, keepdim=True), atol=1e-12)
    assert torch.allclose(weights @ v, out, atol=1e-12)
    assert (weights.tril() if causal else weights).min() >= 0
    assert fq.min() > 0


def test_distillation_is_at_least_the_teachers_entropy() -> None:
    q, k, _ = qkv(24)
    teacher = (q @ k.mT).softmax(-1)
    entropy = -(teacher * teacher.log()).sum(-1).mean()
    assert attention_distillation(teacher, teacher).mean().item() == pytest.approx(entropy.item())
    other = (q @ k.flip(2).mT).softmax(-1)
    assert attention_distillation(teacher, other).mean() > entropy + 0.1
    nobody = torch.zeros_like(teacher)
    assert not attention_distillation(nobody, nobody).any()
    masked = teacher.masked_fill(torch.rand_like(teacher) < 0.5, 0.0)
    assert torch.isfinite(attention_distillation(masked, masked)).all()


def test_distillation_teaches_hedgehog_a_softmax() -> None:
    """A few steps on stored q and k bring its map nearer to the teacher's than where it starts."""
    q, k, v = (one.float() for one in qkv(32))
    module = made("hedgehog").float()
    teacher = (q @ k.mT / 2.0).softmax(-1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        _, student = module(q, k, v, need_weights=True)
        loss = attention_distillation(teacher, student).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    entropy = -(teacher * teacher.log()).sum(-1).mean().item()
    assert losses[-1] - entropy < 0.7 * (losses[0] - entropy)


def test_presets_are_fixed_and_misfits_named() -> None:
    with pytest.raises(BlockError, match="no option 'decay'"):
        made("lightning2", decay="none")
    with pytest.raises(BlockError, match="normalize=sum"):
        made("lightning2", normalize="sum")
    with pytest.raises(BlockError, match="chunk_size"):
        made("hedgehog", chunk_size=0)
    with pytest.raises(BlockError, match="radius"):
        made("based", radius=[1, 2])
    q, k, v = qkv(6, keys=9)
    with pytest.raises(BlockInputError, match="lightning2: k"):
        made("lightning2")(q, k, v)


@pytest.mark.parametrize("key", [*LIGHTNING, "based", "hedgehog"])
def test_bfloat16_is_finite_and_near(key: str) -> None:
    q, k, v = qkv(300)
    module = made(key)
    truth, _ = module(q, k, v, grid=Grid((3, 10, 10)))
    out, _ = module.bfloat16()(q.bfloat16(), k.bfloat16(), v.bfloat16(), grid=Grid((3, 10, 10)))
    assert out.dtype == torch.bfloat16
    assert ((out.double() - truth).square().mean() / truth.square().mean()).sqrt() < 0.05


def test_equals_fla_based() -> None:
    theirs = pytest.importorskip("fla.ops.based.naive", reason="fla-core is missing: extra peers")
    q, k, v = (one.float() for one in qkv(256))
    module = made("based", window=0, feature_dim=0).float()
    out, _ = module(q, k, v, causal=True)
    assert torch.allclose(out, theirs.naive_parallel_based(q, k, v), atol=1e-4)
    assert torch.allclose(out, theirs.naive_chunk_based(q, k, v, chunk_size=64), atol=1e-3)


def test_equals_fla_feature_maps() -> None:
    theirs = pytest.importorskip("fla.modules.feature_map", reason="fla-core is missing: extra peers")
    x = torch.randn(2, 3, 7, 4)
    mine, other = HedgehogFeatures(3, 4), theirs.HedgehogFeatureMap(4)
    with torch.no_grad():
        mine.weight.mul_(2.0)  # theirs is twice as sharp at the start
    assert torch.allclose(mine(x), other(x), atol=1e-6)
    y = torch.randn(2, 3, 9, 4)
    map_ = theirs.TaylorFeatureMap(4)
    assert torch.allclose(taylor(x) @ taylor(y).mT, map_(x) @ map_(y).mT, atol=1e-5)

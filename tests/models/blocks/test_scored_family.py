"""Scored attention and its presets: what each paper promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, softplus

from petground.models.blocks.attention import scored
from petground.models.blocks.attention.scores import reweight, softplus_shares
from petground.models.registry import BlockError, build
from tests.models.conformance.memory import kept_for_backward, largest_tensor

KEYS = ["softplus_reweight", "selective_temperature", "pointer"]


def made(key: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build("attention", key, channels=8, num_heads=2, **options).double().eval()


def qkv(count: int = 9, keys: int = 14) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    q, k, v = (torch.randn(2, 2, n, 4, dtype=torch.float64) for n in (count, keys, keys))
    return q, k, v


def half_masked(keys: int = 14) -> Tensor:
    mask = torch.ones(2, keys, dtype=torch.bool)
    mask[0, 5:] = False
    mask[1, ::3] = False
    return mask


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("key", KEYS)
def test_shares_sum_to_one_and_masked_keys_get_exactly_none(key: str, causal: bool) -> None:
    q, k, v = qkv(14)
    mask = half_masked()
    mask[1, 0] = True
    out, weights = made(key)(q, k, v, mask=mask, causal=causal, need_weights=True)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]))
    hidden = ~mask[:, None, None, :] | (torch.ones(14, 14).triu(1).bool() if causal else False)
    assert (weights.masked_select(hidden) == 0).all()
    assert torch.allclose(made(key)(q, k, v, mask=mask, causal=causal)[0], out, atol=1e-12)


@pytest.mark.parametrize("key", ["softplus_reweight", "pointer"])
@pytest.mark.parametrize("causal", [True, False])
def test_rows_in_turn_change_nothing_gradients_included(
    key: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [one.requires_grad_() for one in qkv(14)]
    bias = torch.randn(1, 2, 14, 14, dtype=torch.float64)
    module = made(key)
    answers = []
    for budget in (1 << 21, 4 * 14 * 4 * 3):
        monkeypatch.setattr(scored, "_BUDGET", budget)
        out, _ = module(*inputs, mask=half_masked(), bias=bias, causal=causal)
        answers.append((out, *torch.autograd.grad(out.square().sum(), (*inputs, *module.parameters()))))
    for one, other in zip(*answers, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("key", KEYS)
def test_no_n_by_n_in_training(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored, "_BUDGET", 1 << 16)
    module = made(key).float()
    q, k, v = (one[:1].float().requires_grad_() for one in qkv(1500, 1500))
    with largest_tensor() as most, kept_for_backward() as kept:
        out, _ = module(q, k, v)
    assert most.numbers <= 1 << 17, most.shape
    assert sum(kept.values()) < 1500 * 1500 / 4
    with largest_tensor() as most:
        out.sum().backward()
    assert most.numbers <= 1 << 17, most.shape


def test_softplus_written_out() -> None:
    """LSSA by hand, and that power 1 and offset 0 are it."""
    q, k, v = qkv()
    mask = half_masked()
    count = mask.sum(-1).double()[:, None, None, None]
    scores = math.log(4) * count.log() * (q @ k.mT) / 2.0
    plain = softplus(scores) * mask[:, None, None]
    plain = plain / plain.sum(-1, keepdim=True)
    _, weights = made("softplus_reweight", power=1.0, offset=0.0)(q, k, v, cross=True, mask=mask, need_weights=True)
    assert torch.allclose(weights, plain, atol=1e-12)
    sharp = (count * plain - 1.0).relu() ** 3
    _, weights = made("softplus_reweight", power=3.0, offset=1.0)(q, k, v, cross=True, mask=mask, need_weights=True)
    assert torch.allclose(weights, sharp / sharp.sum(-1, keepdim=True), atol=1e-12)


@pytest.mark.parametrize("power", [1.0, 2.0, 15.0])
@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
def test_reweighting_keeps_the_order_and_never_lowers_the_largest(power: float, offset: float) -> None:
    shares = (3.0 * torch.randn(200, 30, dtype=torch.float64)).softmax(-1)
    after = reweight(shares, torch.tensor(30.0), power, offset)
    assert torch.allclose(after.sum(-1), torch.ones(200, dtype=torch.float64))
    assert (after.amax(-1) >= shares.amax(-1) - 1e-12).all()
    sorted_after = after.gather(-1, shares.argsort(-1))
    assert (sorted_after.diff(dim=-1) >= -1e-12).all()


def test_an_even_row_stays_even() -> None:
    even = torch.full((1, 8), 0.125, requires_grad=True)
    out = reweight(even, torch.tensor(8.0), 3.0, 1.0)
    assert torch.equal(out, even)
    out.square().sum().backward()
    assert torch.isfinite(even.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("level", [1e4, -1e4])
def test_softplus_of_ten_thousand_is_finite_and_sums_to_one(dtype: torch.dtype, level: float) -> None:
    scores = (level + torch.arange(64.0)).to(dtype).requires_grad_()
    shares = softplus_shares(scores, None)
    shares.square().sum().backward()
    assert torch.isfinite(shares).all()
    assert torch.isfinite(scores.grad).all()
    assert shares.float().sum().item() == pytest.approx(1.0, abs=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("level", [1e4, -1e4])
def test_softplus_block_with_logits_of_ten_thousand(dtype: torch.dtype, level: float) -> None:
    q = torch.full((1, 2, 5, 4), level / 200, dtype=dtype)
    k = torch.full((1, 2, 70, 4), 100.0, dtype=dtype)
    out, _ = build("attention", "softplus_reweight", channels=8, num_heads=2).to(dtype)(
        q, k, torch.ones_like(k), cross=True
    )
    assert torch.allclose(out.float(), torch.ones(1, 2, 5, 4), atol=2e-2)


@pytest.mark.parametrize("top", [-80.0, -37.0, -36.0, -20.0, 0.0, 50.0])
def test_softplus_shares_are_exact_on_both_sides_of_the_shift(top: float) -> None:
    scores = (top - torch.linspace(0, 6, 9, dtype=torch.float64)).requires_grad_()
    shares = softplus_shares(scores, None)
    raw = torch.log1p(scores.exp())
    truth = raw / raw.sum()
    assert torch.allclose(shares, truth, rtol=1e-12)
    push = torch.randn(9, dtype=torch.float64)
    one, other = (torch.autograd.grad(x, scores, push)[0] for x in (shares, truth))
    assert torch.allclose(one, other, rtol=1e-9)


def test_nobody_to_look_at_is_zero() -> None:
    q, k, v = qkv()
    for key in KEYS:
        out, weights = made(key)(q, k, v, cross=True, mask=torch.zeros(2, 14, dtype=torch.bool), need_weights=True)
        assert torch.equal(out, torch.zeros_like(out))
        assert torch.equal(weights, torch.zeros_like(weights))


def selective(f: float = 0.0, beta: float = 100.0, gate: float = 0.0) -> nn.Module:
    module = made("selective_temperature")
    with torch.no_grad():
        module.selective.beta.fill_(beta)
        module.selective.of_q.fill_(f)
        module.selective.of_v.fill_(gate)
    return module


def test_selective_without_its_terms_is_softmax_attention() -> None:
    q, k, v = qkv()
    mask = half_masked()
    truth = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    assert torch.allclose(selective()(q, k, v, cross=True, mask=mask)[0], truth, atol=1e-12)


def test_selective_keeps_order_and_its_entropy_falls_with_tau() -> None:
    q, k, v = qkv()
    plain = scaled_dot_product_attention(q, k, torch.eye(14, dtype=torch.float64).expand(2, 2, 14, 14))
    before = math.inf
    for shift in (-3.0, -0.5, 0.0, 0.5, 3.0):  # tau rises
        module = selective()
        with torch.no_grad():
            module.selective.shift[0] = shift
        _, weights = module(q, k, v, cross=True, need_weights=True)
        assert torch.equal(weights.argsort(-1), plain.argsort(-1))
        entropy = -(weights * weights.log()).sum(-1)
        assert (entropy < before).all()
        before = entropy


def test_selective_position_term_counts_the_keys_that_a_row_sees() -> None:
    q, k, v = qkv(14)
    mask = half_masked()
    mask[1, 0] = True
    beta = torch.tensor(0.3, dtype=torch.float64)
    n = mask.cumsum(-1).clamp(min=1).double()[:, None, :, None]
    tau = 1.0 + torch.exp(-torch.exp(beta)) * n.log()
    keep = mask[:, None, None] & torch.ones(14, 14).tril().bool()
    keep_safe = keep | ~keep.any(-1, keepdim=True)
    truth = scaled_dot_product_attention(tau * q, k, v, attn_mask=keep_safe) * keep.any(-1, keepdim=True)
    assert torch.allclose(selective(beta=0.3)(q, k, v, mask=mask, causal=True)[0], truth, atol=1e-12)
    one = [x[:, :, :1] for x in (q, k, v)]
    assert torch.allclose(selective(beta=0.3)(*one, need_weights=True)[1], torch.ones(2, 2, 1, 1).double())


def test_selective_gates_values() -> None:
    q, k, v = qkv()
    gated = v * (1.0 + torch.tanh(0.7 * v.sum(-1, keepdim=True)))
    assert torch.allclose(
        selective(gate=0.7)(q, k, v, cross=True)[0], scaled_dot_product_attention(q, k, gated), atol=1e-12
    )


def test_pointer_is_additive_and_follows_its_candidates() -> None:
    q, k, v = qkv()
    module = made("pointer")
    _, map_ = module(q, k, v, cross=True, need_weights=True)
    part = module.additive
    for head in range(2):
        for i, j in ((0, 0), (3, 11), (8, 4)):
            u = [
                part.weight[head, :, 0] @ torch.tanh(part.of_k[head] @ k[1, head, m] + part.of_q[head] @ q[1, head, i])
                for m in range(14)
            ]
            assert torch.allclose(torch.stack(u).softmax(0)[j], map_[1, head, i, j], atol=1e-12)
    order = torch.randperm(14)
    _, turned = module(q, k[:, :, order], v[:, :, order], cross=True, need_weights=True)
    assert torch.allclose(turned, map_[..., order], atol=1e-12)
    for keys in (1, 3, 50):
        _, some = module(*qkv(9, keys), cross=True, need_weights=True)
        assert some.shape == (2, 2, 9, keys)
        assert torch.allclose(some.sum(-1), torch.ones(2, 2, 9, dtype=torch.float64))
    assert torch.equal(
        module(*qkv(9, 1), cross=True, need_weights=True)[1], torch.ones(2, 2, 9, 1, dtype=torch.float64)
    )


def test_pointer_learns_to_point_at_the_largest() -> None:
    """40 candidates though it was trained on 8: the dictionary follows the input (section 4 of the paper)."""
    torch.manual_seed(0)
    module = build("attention", "pointer", channels=4, num_heads=1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    hit = 0.0
    for step in range(121):
        keys = 8 if step < 120 else 40
        k = torch.randn(64, 1, keys, 4)
        _, p = module(torch.ones(64, 1, 1, 4), k, k, cross=True, need_weights=True)
        wanted = k[:, 0, :, 0].argmax(-1)
        hit = (p[:, 0, 0].argmax(-1) == wanted).float().mean().item()
        loss = -p[:, 0, 0].gather(1, wanted[:, None]).clamp(min=1e-9).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert hit > 0.6


def test_options_of_other_presets_are_refused() -> None:
    with pytest.raises(BlockError, match="no option 'power'"):
        made("pointer", power=2.0)
    with pytest.raises(BlockError, match="power"):
        made("softplus_reweight", power=0.5)

"""Chunked linear attention against its quadratic form and against fla's plain references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels.linear_attention import linear_attention, linear_attention_carried
from tests.models.conformance.memory import largest_tensor

DECAYS = torch.tensor([0.0, -0.3, -4.0], dtype=torch.float64)


def inputs(count: int = 23, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    q, k = torch.rand(2, 3, count, 5, dtype=dtype), torch.rand(2, 3, count, 5, dtype=dtype)
    return q, k, torch.randn(2, 3, count, 4, dtype=dtype)


@pytest.mark.parametrize("chunk", [1, 2, 7, 23, 64])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("decay", [None, DECAYS], ids=["plain", "decay"])
@pytest.mark.parametrize("causal", [True, False])
def test_any_chunk_size_is_the_quadratic_form(causal: bool, decay: Tensor | None, normalize: bool, chunk: int) -> None:
    q, k, v = (one.requires_grad_() for one in inputs())
    mask = torch.ones(2, 23, dtype=torch.bool)
    mask[0, 3:9] = mask[1, :2] = mask[1, -5:] = False
    given = {"mask": mask, "log_decay": decay, "causal": causal, "normalize": normalize}
    truth = linear_attention(q, k, v, backend="reference", **given)
    out = linear_attention(q, k, v, chunk_size=chunk, **given)
    assert torch.allclose(out, truth, atol=1e-11)
    push = torch.randn_like(out)
    mine, theirs = (torch.autograd.grad(answer, (q, k, v), push) for answer in (out, truth))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_the_quadratic_form_by_hand() -> None:
    """Three tokens, lambda = 1/2, numbers worked out on paper; forwards differs from backwards."""
    q = torch.tensor([[[[1.0], [2.0], [3.0]]]], dtype=torch.float64)
    k = torch.tensor([[[[1.0], [10.0], [100.0]]]], dtype=torch.float64)
    v = torch.ones(1, 1, 3, 1, dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64).log()
    causal = linear_attention(q, k, v, log_decay=half, causal=True, chunk_size=2)
    both = linear_attention(q, k, v, log_decay=half, chunk_size=2)
    assert causal.flatten().tolist() == pytest.approx([1.0, 2 * (0.5 + 10), 3 * (0.25 + 5 + 100)])
    assert both.flatten().tolist() == pytest.approx([1 + 5 + 25, 2 * (0.5 + 10 + 50), 3 * (0.25 + 5 + 100)])


def test_cross_attention_without_order() -> None:
    q, _, _ = inputs(11)
    _, k, v = inputs(7)
    weights = q @ k.transpose(-1, -2)
    assert torch.allclose(linear_attention(q, k, v), weights @ v, atol=1e-12)
    shares = weights / weights.sum(-1, keepdim=True)
    assert torch.allclose(linear_attention(q, k, v, normalize=True), shares @ v, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_no_n_by_n_tensor(causal: bool) -> None:
    q, k, v = (one[:1] for one in inputs(8192, torch.float32))
    with largest_tensor() as made:
        linear_attention(q, k, v, log_decay=DECAYS, causal=causal, normalize=True)
    assert made.numbers <= q.numel() * 2, made.shape
    with largest_tensor() as made:
        linear_attention(q[:, :, :512], k[:, :, :512], v[:, :, :512], causal=causal, backend="reference")
    assert made.numbers >= 512 * 512  # the measure sees it where it is


def test_bfloat16_sums_do_not_stand_still() -> None:
    """512 chunks of ones: a state in bfloat16 would stop at 256."""
    ones = torch.ones(1, 1, 2048, 1, dtype=torch.bfloat16)
    out = linear_attention(ones, ones, ones, causal=True, chunk_size=4)
    assert out[0, 0, -1, 0].item() == 2048.0


@pytest.mark.parametrize("form", ["unordered", "causal", "both ways"])
def test_float16_sums_of_more_keys_than_it_can_count(form: str) -> None:
    ones = torch.ones(1, 1, 70000, 1, dtype=torch.float16)
    decay = torch.zeros(1) if form == "both ways" else None
    options = {"log_decay": decay, "causal": form == "causal", "normalize": True, "chunk_size": 256}
    assert torch.equal(linear_attention(ones, ones, ones, **options), ones)
    few = 16 * torch.ones(1, 1, 300, 1, dtype=torch.float16)  # 300 weights of 256 each
    options = options | {"backend": "reference"}
    assert torch.equal(linear_attention(few, few, few, **options), few)


def test_a_row_without_keys_is_zero_and_padding_may_hold_anything() -> None:
    q, k, v = inputs(9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0] = False
    mask[1, 4:] = False
    k, v = (torch.where(mask[:, None, :, None], one, torch.full_like(one, float("nan"))) for one in (k, v))
    for causal in (True, False):
        out = linear_attention(q, k, v, mask=mask, causal=causal, normalize=True)
        assert torch.equal(out[0], torch.zeros_like(out[0]))
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("decay", [None, DECAYS], ids=["plain", "decay"])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_pieces_whose_state_is_carried_are_one_pass(backend: str, decay: Tensor | None) -> None:
    q, k, v = (one.requires_grad_() for one in inputs())
    mask = torch.ones(2, 23, dtype=torch.bool)
    mask[0, 3:9] = mask[1, :2] = False
    truth = linear_attention(q, k, v, mask=mask, log_decay=decay, causal=True, backend="reference")
    state, outs = None, []
    for piece in (slice(0, 5), slice(5, 6), slice(6, 17), slice(17, 23)):  # one token, several chunks, no whole chunk
        given = {"mask": mask[:, piece], "log_decay": decay, "backend": backend, "chunk_size": 4}
        out, state = linear_attention_carried(q[:, :, piece], k[:, :, piece], v[:, :, piece], state, **given)
        outs.append(out)
    out = torch.cat(outs, dim=2)
    assert torch.allclose(out, truth, atol=1e-11)
    assert state is not None
    rates = torch.zeros(3, 1, 1) if decay is None else decay[:, None, None]
    faded = k * torch.exp(rates * (22 - torch.arange(23.0, dtype=torch.float64)[:, None])) * mask[:, None, :, None]
    assert torch.allclose(state, faded.mT @ v, atol=1e-11)
    push = torch.randn_like(out)
    for one, other in zip(*(torch.autograd.grad(o, (q, k, v), push) for o in (out, truth)), strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_a_carried_state_is_wide_and_has_to_fit() -> None:
    q, k, v = inputs(9, torch.bfloat16)
    out, state = linear_attention_carried(q, k, v)
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(KernelInputError, match="linear_attention_carried: state"):
        linear_attention_carried(q, k, v, state[:, :, :4])
    with pytest.raises(BackendUnavailableError, match="starts its states at zero"):
        linear_attention_carried(q, k, v, backend="triton")


def test_wrong_inputs() -> None:
    q, k, v = inputs(9)
    with pytest.raises(KernelInputError, match="as many"):
        linear_attention(q[:, :, :5], k, v, causal=True)
    with pytest.raises(KernelInputError, match="log_decay"):
        linear_attention(q, k, v, log_decay=DECAYS[:2])
    with pytest.raises(KernelInputError, match="chunk_size"):
        linear_attention(q, k, v, chunk_size=0)
    with pytest.raises(KernelInputError, match="mask"):
        linear_attention(q, k, v, mask=torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(BackendUnavailableError, match="chunked"):
        linear_attention(q, k, v, backend="cuda")


@pytest.mark.parametrize("normalize", [False, True])
def test_equals_fla_linear_attn(normalize: bool) -> None:
    naive = pytest.importorskip("fla.ops.linear_attn.naive", reason="fla-core is missing: extra peers")
    q, k, v = inputs(128, torch.float32)
    theirs = [one.transpose(1, 2) for one in (q, k, v)]
    truth, _ = naive.naive_recurrent_linear_attn(*theirs, scale=1.0, normalize=normalize)
    chunked = naive.naive_chunk_linear_attn(*theirs, scale=1.0, normalize=normalize)
    out = linear_attention(q, k, v, causal=True, normalize=normalize).transpose(1, 2)
    assert torch.allclose(out, truth, rtol=1e-4, atol=1e-5)
    assert torch.allclose(out, chunked, rtol=1e-4, atol=1e-5)


def test_equals_fla_lightning_attn() -> None:
    """It is simple gated linear attention with a constant gate of each head, log lambda."""
    naive = pytest.importorskip("fla.ops.simple_gla.naive", reason="fla-core is missing: extra peers")
    q, k, v = inputs(100, torch.float32)
    theirs = [one.transpose(1, 2) for one in (q, k, v)]
    gates = DECAYS.float().expand(2, 100, 3)
    truth, _ = naive.naive_recurrent_simple_gla(*theirs, gates, scale=1.0)
    out = linear_attention(q, k, v, log_decay=DECAYS.float(), causal=True)
    assert torch.allclose(out.transpose(1, 2), truth, rtol=1e-4, atol=1e-5)

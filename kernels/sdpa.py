"""PyTorch's fused softmax attention, with what it leaves open settled: rows without keys, widths, strides."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import FLOATS, check_broadcast

__all__ = ["masked_sdpa"]


def masked_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """softmax(scale q k^T + bias) v over the keys that `keep` (True) allows; a row without keys is zero.

    Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], keep (bool) and bias broadcastable to [B, H, N, M] -> [B, H, N, E].
    scale None is 1 / sqrt(D). Causal: a token sees none after it. Nothing of N x M is held but keep and bias as they
    were given, and the bits of causal with padding; on CPUs a bias with a gradient takes PyTorch's written-out way.

    Raises KernelInputError for shapes, types or devices that do not fit.
    """
    name = "masked_sdpa"
    check_qkv(name, q, k, v, None)
    full = (*q.shape[:3], k.shape[2])
    if keep is not None:
        keep = check_broadcast(name, "keep", keep, "BHNM", full, (torch.bool,), q.device)
    if bias is not None:  # of bools it would be taken for `keep`
        bias = check_broadcast(name, "bias", bias, "BHNM", full, FLOATS, q.device)
        # on CPUs PyTorch takes float32 beside 16-bit queries; elsewhere its fused kernels want one type
        bias = bias if bias.dtype == torch.float32 and q.device.type == "cpu" else bias.to(q.dtype)
    if causal and q.shape[2] != k.shape[2]:
        held = f"q has {q.shape[2]} tokens and k {k.shape[2]}"
        raise KernelInputError(f"{name}: {held}, expected as many of both with causal")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # PyTorch's fused kernels want the channels side by side and, on CPUs, one width for all: they silently hold N x M
    # where it is not so. Values wider than there are keys (asked for maps) would cost more widened than N x M does.
    width, wide = v.shape[-1], max(q.shape[-1], v.shape[-1])
    if q.shape[-1] != width and wide <= k.shape[2]:
        q, k, v = (one if one.shape[-1] == wide else pad(one, (0, wide - one.shape[-1])) for one in (q, k, v))
    q, k, v = (one if one.stride(-1) == 1 else one.contiguous() for one in (q, k, v))
    if causal and keep is None and bias is None:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)[..., :width]
    if causal:
        before = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        keep = before if keep is None else keep & before
    wider = bias is not None and bias.dtype != q.dtype  # autocast would round it
    if keep is None:
        with autocast_off(q) if wider else nullcontext():
            return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[..., :width]
    has_key = keep.any(dim=-1, keepdim=True)
    # a row without keys is undefined across PyTorch's backends: it attends to everything, then becomes zero
    allowed = keep | ~has_key
    mask = allowed if bias is None else bias.masked_fill(~allowed, float("-inf"))
    with autocast_off(q) if wider else nullcontext():
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)[..., :width]
    return out * has_key.to(out.dtype)

"""Every prefix of the keys at once: checks. One form serves every device."""

from __future__ import annotations

from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import FLOATS, check_tensor
from petground.kernels.split_attention.reference import prefix_attention_reference

__all__ = ["prefix_attention"]


def prefix_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """One query per head against every prefix of the keys: o_t = softmax(q . k_1..t) v_1..t -> [B, H, N, E].

    q [H, D], k [B, H, N, D], v [B, H, N, E], mask [B, N] bool with True = a real key; a prefix without any gives zero.

    Raises KernelInputError for shapes, types or devices that do not fit.
    """
    check_tensor("prefix_attention", "q", q, "HD", (None, None), FLOATS, None)
    check_tensor("prefix_attention", "k", k, "BHND", (None, q.shape[0], None, q.shape[1]), (q.dtype,), q.device)
    check_qkv("prefix_attention", q[None, :, None].expand(k.shape[0], -1, -1, -1), k, v, mask)
    with autocast_off(q):
        return prefix_attention_reference(q, k, v, mask)

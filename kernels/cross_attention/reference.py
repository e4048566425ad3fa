"""The truth: masked multi-head attention with any activation and a gate, written out, in any floating type."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.activations import elementwise
from petground.kernels._shared.attention_checks import head_scale

__all__ = ["apply_gate", "cross_attention_reference"]


def cross_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scale: Tensor | None = None,
    activation: str = "softmax",
    shift: float = 0.0,
    x: Tensor | None = None,
    gate: str = "none",
) -> Tensor:
    """Q [B, H, N, D], k [B, H, P, D], v [B, H, P, E], mask [B, P] bool (True = a real key) -> [B, H, N, E].

    w = activation(scale_h q k^T) over the real keys, answer = w v. With softmax and scale = 1 / sqrt(D) this is
    Vaswani et al. 2017, section 3.2.1; "sigmoid" (Ramapuram et al. 2024, arXiv 2409.04431, section 2) and "softplus"
    take scale_h q k^T + shift and are not normalised. Where a batch entry has no real key the answer is zero. The
    gate: "tanh" x * tanh(answer), "residual_tanh" x * (1 + tanh(answer)) + answer. Holds [B, H, N, P] in memory.
    """
    factor = head_scale("cross_attention", q, None) if scale is None else scale
    scores = torch.einsum("bhnd,bhpd->bhnp", q, k) * factor.to(q.dtype)[:, None, None]
    keep = None if mask is None else mask[:, None, None, :]
    if activation == "softmax":
        # a row without keys is 0/0; masked_fill also stops its gradient
        weights = (scores if keep is None else scores.masked_fill(~keep, float("-inf"))).softmax(dim=-1)
    else:
        weights = elementwise(scores + shift, activation)
    if keep is not None:
        weights = weights.masked_fill(~keep, 0.0)
    return apply_gate(torch.einsum("bhnp,bhpe->bhne", weights, v), x, gate)


def apply_gate(answer: Tensor, x: Tensor | None, gate: str) -> Tensor:
    """The gate after an answer [B, H, N, E], in the type of x."""
    if x is None or gate == "none":
        return answer
    t = torch.tanh(answer)
    return (x * t if gate == "tanh" else x * (1.0 + t) + answer).to(x.dtype)

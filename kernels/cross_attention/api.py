"""Cross-attention from many queries (voxels) to few masked keys (text tokens): checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from petground.kernels._shared.attention_checks import check_activation, check_qkv, head_scale
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import FLOATS, check_tensor
from petground.kernels._triton.attention_plans import cannot_serve
from petground.kernels.cross_attention.ops import cross_attention_op
from petground.kernels.cross_attention.reference import apply_gate, cross_attention_reference
from petground.kernels.cross_attention.sdpa import cross_attention_sdpa

__all__ = [
    "GATES",
    "BackendUnavailableError",
    "KernelInputError",
    "available_backends",
    "cross_attention",
    "fold_output",
    "works_channels_first",
]

GATES = ("none", "tanh", "residual_tanh")


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that `backend=` can have for float32 tensors of this device, besides "auto"."""
    small = torch.empty(1, 1, 1, 16, device="meta")
    reasons = _reasons(small, small, "softmax", torch.device(device))
    return tuple(name for name, reason in reasons.items() if reason is None)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    activation: str = "softmax",
    temperature: Tensor | float | None = None,
    shift: float = 0.0,
    x: Tensor | None = None,
    gate: str = "none",
    backend: str = "auto",
) -> Tensor:
    """Masked multi-head attention, q [B, H, N, D], k [B, H, P, D], v [B, H, P, E] -> [B, H, N, E].

    answer = activation(q k^T / (sqrt(D) temperature)) v, and with a gate x * tanh(answer) or
    x * (1 + tanh(answer)) + answer, all before anything is written.

    mask: [B, P] bool, True where the key is real, False where it is padding. Entries without any real key give
        zeros. Values in padded keys and their values never reach the output, unless they are not finite.
    activation: "softmax", or "sigmoid" and "softplus" of the scores + `shift`, which are not normalised (sigmoid
        attention takes shift = -log P). For weights that sum to 1 append a column of ones to v and divide by it.
    temperature: a number, or a tensor of one element or one per head; it gets a gradient.
    x, gate: features to gate, [B, H, N, E], with gate "tanh" or "residual_tanh"; the answer has the type of x. The
        gate is applied per head, so a layer between attention and gate must be folded away first: `fold_output`.
    backend: "auto", "reference", "sdpa" (softmax), "chunked" (for the CPU; any activation) or "triton". A backend
        asked for by name that cannot serve raises; "auto" says once in the log what it picked.

    Raises KernelInputError for shapes, types or devices that do not fit, BackendUnavailableError as above.
    """
    check_qkv("cross_attention", q, k, v, mask)
    check_activation("cross_attention", activation, shift)
    _check_gate(q, v, x, gate)
    reasons = _reasons(q, v, activation, q.device)
    picked = choose("cross_attention", backend, reasons, f"{q.device.type} {q.dtype} {activation}")
    if picked == "sdpa":
        scale = None if temperature is None else head_scale("cross_attention", q, temperature)
        return apply_gate(cross_attention_sdpa(q, k, v, mask, scale), x, gate)
    scale = head_scale("cross_attention", q, temperature)
    if picked == "reference":
        with autocast_off(q):
            return cross_attention_reference(
                q, k, v, mask, scale=scale, activation=activation, shift=shift, x=x, gate=gate
            )
    return cross_attention_op(q, k, v, mask, scale, x, activation, gate, float(shift), picked)[0]


def fold_output(
    v: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Values and mask after which softmax attention of one head gives what Linear(weight, bias) would make of it.

    The layer after the attention goes onto the P values instead of the N answers: sum_j w_j (W v_j + b) =
    W (sum_j w_j v_j) + b, as the weights sum to 1. So a gate that comes after the layer can be fused. An entry
    without a real key, whose answer is zero, attends evenly to values that are all b: exact there too. Several heads
    cannot be folded (each output channel mixes all heads): there the layer stands between attention and gate.

    v [B, 1, P, E], weight [C, E], bias [C] or None, mask [B, P] or None -> v [B, 1, P, C], mask.
    Raises KernelInputError for tensors that do not fit and for more than one head.
    """
    check_tensor("fold_output", "v", v, "BHPE", (None, 1, None, None), FLOATS, None)
    check_tensor("fold_output", "weight", weight, "CE", (None, v.shape[3]), FLOATS, v.device)
    if bias is not None:
        check_tensor("fold_output", "bias", bias, "C", weight.shape[:1], FLOATS, v.device)
    weight, bias = weight.to(v.dtype), None if bias is None else bias.to(v.dtype)  # as autocast would
    if mask is None:
        return linear(v, weight, bias), None
    check_tensor("fold_output", "mask", mask, "BP", (v.shape[0], v.shape[2]), (torch.bool,), v.device)
    real = v.masked_fill(~mask[:, None, :, None], 0.0)
    return linear(real, weight, bias), mask | ~mask.any(dim=-1, keepdim=True)


def works_channels_first(q: Tensor, v: Tensor, backend: str = "auto") -> bool:
    """Whether softmax attention of these is quickest on queries that lie channels first, [B, H, D, N] in memory, as its
    answer does then. The form in blocks for CPUs is; a layer that makes queries can lay them as it likes.

    Tells without queries being there: q [B, H, N, D] may lie in any way, v as in `cross_attention`.
    """
    if not q.is_cpu or torch.compiler.is_compiling():
        return False
    return (
        choose("cross_attention", backend, _reasons(q, v, "softmax", q.device), f"cpu {q.dtype} softmax") == "chunked"
    )


def _reasons(q: Tensor, v: Tensor, activation: str, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    sdpa = None if activation == "softmax" else f"has no {activation}"
    triton = cannot_serve(q, v, device)
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        reasons = {"sdpa": sdpa, "chunked": None, "reference": None, "triton": triton}
        # quicker where many voxels ask few words by narrow heads (docs/kernels.md); in 16 bits PyTorch's backward takes
        # longer for nearly all, and rounds the gradient of a temperature
        narrow = q.shape[2] >= 4096 and v.shape[2] <= 32 and max(q.shape[3], v.shape[3]) <= 16
        learns = q.element_size() == 2 and torch.is_grad_enabled()
        return {"chunked": None, **reasons} if narrow or learns else reasons
    return {"triton": triton, "sdpa": sdpa, "chunked": None, "reference": None}


def _check_gate(q: Tensor, v: Tensor, x: Tensor | None, gate: str) -> None:
    if gate not in GATES:
        raise KernelInputError(f"cross_attention: gate is {gate!r}, expected one of {', '.join(GATES)}")
    if (x is None) != (gate == "none"):
        held = "missing" if x is None else "given"
        raise KernelInputError(f"cross_attention: gate is {gate!r} and x is {held}, expected both or neither")
    if x is None:
        return
    check_tensor("cross_attention", "x", x, "BHNE", (*q.shape[:3], v.shape[3]), FLOATS, q.device)

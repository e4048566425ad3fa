"""Agent attention: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
from petground.kernels._shared.precision import autocast_off
from petground.kernels._shared.tensor_checks import FLOATS, check_broadcast, check_tensor
from petground.kernels.agent_attention.ops import biased_attention_op
from petground.kernels.agent_attention.plans import cannot_serve
from petground.kernels.agent_attention.reference import agent_attention_reference

__all__ = ["agent_attention", "available_backends"]


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """Names that `backend=` can have for float32 tensors of this device, besides "auto"."""
    small = torch.empty(1, 1, 1, 16, device="meta")
    return tuple(name for name, reason in _reasons(small, small, torch.device(device)).items() if reason is None)


def agent_attention(
    q: Tensor,
    agents: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    agent_mask: Tensor | None = None,
    bias_in: Tensor | None = None,
    bias_out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Q [B, H, N, D], agents [B, H, n, D], k [B, H, M, D], v [B, H, M, E] -> [B, H, N, E], linear in N and M.

    mask [B, M], agent_mask [B, n]: bool, True = real. bias_in, bias_out: added to the agents' scores [B, H, n, M] and
    the queries' scores [B, H, N, n], broadcastable to them, of any floating type.
    backend: "auto", "reference" or "triton". A backend asked for by name that cannot serve raises.

    Raises KernelInputError for tensors that do not fit, BackendUnavailableError as above.
    """
    check_qkv("agent_attention", q, k, v, mask)
    batch, heads, rows, width = q.shape
    check_tensor("agent_attention", "agents", agents, "BHnD", (batch, heads, None, width), (q.dtype,), q.device)
    count, cols = agents.shape[2], k.shape[2]
    if count == 0:
        raise KernelInputError(f"agent_attention: agents is {tuple(agents.shape)}, expected at least one agent")
    if agent_mask is not None:
        check_tensor("agent_attention", "agent_mask", agent_mask, "Bn", (batch, count), (torch.bool,), q.device)
    bias_in = _bias("bias_in", bias_in, "BHnM", (batch, heads, count, cols), q)
    bias_out = _bias("bias_out", bias_out, "BHNn", (batch, heads, rows, count), q)
    picked = choose("agent_attention", backend, _reasons(q, v, q.device), f"{q.device.type} {q.dtype}")
    if picked == "triton":
        read, _ = biased_attention_op(agents, k, v, mask, bias_in)
        return biased_attention_op(q, agents, read, agent_mask, bias_out)[0]
    with autocast_off(q):
        return agent_attention_reference(q, agents, k, v, mask, agent_mask, bias_in, bias_out)


def _bias(name: str, bias: Tensor | None, axes: str, full: tuple[int, ...], q: Tensor) -> Tensor | None:
    if bias is None:
        return None
    return check_broadcast("agent_attention", name, bias, axes, full, FLOATS, q.device)


def _reasons(q: Tensor, v: Tensor, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    triton = cannot_serve(q, v, device)
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"reference": None, "triton": triton}
    return {"triton": triton, "reference": None}

"""Agent attention: checks and dispatch."""

from __future__ import annotations

import torch
from torch import Tensor

from petground.kernels._shared.attention_checks import check_qkv
from petground.kernels._shared.dispatch import choose
from petground.kernels._shared.errors import KernelInputError
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
    the queries' scores [B, H, N, n], broadcastable to them.
    backend: "auto", "reference" or "triton". A backend asked for by name that cannot serve raises.

    Raises KernelInputError for tensors that do not fit, BackendUnavailableError as above.
    """
    check_qkv(q, k, v, mask, "softmax", 0.0)
    if agents.ndim != 4 or agents.shape[:2] != q.shape[:2] or agents.shape[3] != q.shape[3] or agents.shape[2] == 0:
        raise KernelInputError(f"agents are {tuple(agents.shape)}, expected [B, H, n, D] as q {tuple(q.shape)}")
    if agents.dtype != q.dtype or agents.device != q.device:
        raise KernelInputError(f"agents are {agents.dtype} on {agents.device}, q is {q.dtype} on {q.device}")
    count = agents.shape[2]
    if agent_mask is not None and (agent_mask.dtype != torch.bool or agent_mask.shape != (q.shape[0], count)):
        wanted = (q.shape[0], count)
        raise KernelInputError(f"agent_mask is {agent_mask.dtype} {tuple(agent_mask.shape)}, expected bool {wanted}")
    for name, bias, rows, cols in (("bias_in", bias_in, count, k.shape[2]), ("bias_out", bias_out, q.shape[2], count)):
        full = (*q.shape[:2], rows, cols)
        if bias is not None and (bias.ndim != 4 or any(b not in (1, n) for b, n in zip(bias.shape, full, strict=True))):
            raise KernelInputError(f"{name} is {tuple(bias.shape)}, expected broadcastable to {full}")
    picked = choose("agent_attention", backend, _reasons(q, v, q.device), f"{q.device.type} {q.dtype}")
    if picked == "triton":
        read, _ = biased_attention_op(agents, k, v, mask, bias_in)
        return biased_attention_op(q, agents, read, agent_mask, bias_out)[0]
    return agent_attention_reference(q, agents, k, v, mask, agent_mask, bias_in, bias_out)


def _reasons(q: Tensor, v: Tensor, device: torch.device) -> dict[str, str | None]:
    """{backend: why it cannot serve, or None}, in the order in which "auto" takes them."""
    triton = cannot_serve(q, v, device)
    if device.type == "cpu":  # where Triton is only interpreted, nobody wants it unasked
        return {"reference": None, "triton": triton}
    return {"triton": triton, "reference": None}

"""Agent attention written out: n agents read the keys, the queries read the agents."""

from __future__ import annotations

from torch import Tensor

__all__ = ["agent_attention_reference", "agent_maps"]


def agent_maps(
    q: Tensor,
    agents: Tensor,
    k: Tensor,
    mask: Tensor | None = None,
    agent_mask: Tensor | None = None,
    bias_in: Tensor | None = None,
    bias_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The two maps, [B, H, N, n] of the queries and [B, H, n, M] of the agents; their product is the whole map."""
    scale = q.shape[-1] ** -0.5
    read = agents @ k.transpose(-1, -2) * scale
    ask = q @ agents.transpose(-1, -2) * scale
    read = read if bias_in is None else read + bias_in
    ask = ask if bias_out is None else ask + bias_out
    # a bias of its own type makes scores of another
    return _softmax(ask, agent_mask).to(q.dtype), _softmax(read, mask).to(q.dtype)


def agent_attention_reference(
    q: Tensor,
    agents: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    agent_mask: Tensor | None = None,
    bias_in: Tensor | None = None,
    bias_out: Tensor | None = None,
) -> Tensor:
    """softmax(q a^T / sqrt(D) + bias_out) softmax(a k^T / sqrt(D) + bias_in) v (arXiv 2312.08874, equation 5).

    q [B, H, N, D], agents [B, H, n, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] and agent_mask [B, n] bool with
    True = real, bias_in [., ., n, M], bias_out [., ., N, n] -> [B, H, N, E]. Linear in N and M; a row without keys or
    without agents is zero.
    """
    ask, read = agent_maps(q, agents, k, mask, agent_mask, bias_in, bias_out)
    if mask is not None:
        v = v.masked_fill(~mask[:, None, :, None], 0.0)
    return ask @ (read @ v)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores.softmax(dim=-1)
    keep = mask[:, None, None, :]
    # a row without keys is 0/0; masked_fill also stops its gradient
    return scores.masked_fill(~keep, float("-inf")).softmax(dim=-1).masked_fill(~keep, 0.0)

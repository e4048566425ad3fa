"""How much each head counts: the routed gates of mixture-of-head attention, and checks of per-head options."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petground.models.blocks.contract import BlockInputError

__all__ = ["HeadGates", "check_heads", "load_balance", "per_head"]


def check_heads(block: str, q: Tensor, num_heads: int, head_channels: int | None = None) -> None:
    """Raises BlockInputError unless q [B, H, N, D] has the heads and their channels that the block has."""
    if q.shape[1] != num_heads:
        raise BlockInputError(block, "q", f"has {q.shape[1]} heads", f"the block was made with num_heads={num_heads}")
    if head_channels is not None and q.shape[3] != head_channels:
        what = f"has {q.shape[3]} channels a head"
        raise BlockInputError(block, "q", what, f"the block was made for {head_channels}: channels / num_heads")


def per_head(value: Sequence[float] | float, num_heads: int, name: str) -> list[float]:
    """One number for all heads, or one each -> one each. Raises ValueError."""
    numbers = [float(value)] * num_heads if isinstance(value, (int, float)) else [float(n) for n in value]
    if len(numbers) != num_heads or min(numbers) < 0:
        raise ValueError(f"{name}={value!r}: one number for all of the {num_heads} heads or one each, none negative")
    return numbers


class HeadGates(nn.Module):
    """Gates g_h of each token for each head (MoH, arXiv 2410.11842, section 3.3).

    g_h = a_1 softmax(W_s x)_h for the shared heads, a_2 softmax(W_r x)_h for the routed heads among the token's `top`
    best, 0 for the others, [a_1, a_2] = softmax(W_a x). With one kind of heads only, its a is 1.

    Args:
        channels: of x.
        num_heads: heads; the first `shared` are always on.
        shared: heads that every token uses.
        top: routed heads that a token uses.
        rescale: as the authors' code does beyond the paper: the routed gates are divided by their sum over the chosen
            heads, each kind is multiplied by its number of heads in use, and the a's by 2: gates of about one.
    """

    def __init__(self, channels: int, num_heads: int, shared: int, top: int, *, rescale: bool = False):
        super().__init__()
        routed = num_heads - shared
        if not 0 <= shared <= num_heads or not 0 <= top <= routed or shared + top < 1:
            raise ValueError(f"shared={shared}, top={top}: heads out of {num_heads}, at least one in use")
        self.shared, self.top, self.rescale = shared, top, rescale
        self.to_shared = nn.Linear(channels, shared, bias=False) if shared else None
        self.to_routed = nn.Linear(channels, routed, bias=False) if top else None
        self.to_kinds = nn.Linear(channels, 2, bias=False) if shared and top else None
        self.idle = routed if not top else 0

    def forward(self, x: Tensor) -> Tensor:
        """X [B, N, C] -> gates [B, N, H]."""
        parts = []
        kinds = None if self.to_kinds is None else self.to_kinds(x).softmax(dim=-1) * (2 if self.rescale else 1)
        if self.to_shared is not None:
            gates = self.to_shared(x).softmax(dim=-1) * (self.shared if self.rescale else 1)
            parts.append(gates if kinds is None else gates * kinds[..., :1])
        if self.to_routed is not None:
            scores, chosen = self.routes(x)
            gates = scores.masked_fill(~chosen, 0.0)
            if self.rescale:
                gates = gates / gates.sum(dim=-1, keepdim=True) * self.top
            parts.append(gates if kinds is None else gates * kinds[..., 1:])
        if self.idle:
            parts.append(x.new_zeros(*x.shape[:-1], self.idle))
        return torch.cat(parts, dim=-1)

    def routes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X [B, N, C] -> the routing scores [B, N, R], which sum to 1, and which heads are chosen, [B, N, R] bool."""
        if self.to_routed is None:
            raise ValueError("no head is routed: nothing to balance")
        scores = self.to_routed(x).softmax(dim=-1)
        best = scores.topk(self.top, dim=-1).indices
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, True)
        return scores, chosen


def load_balance(scores: Tensor, chosen: Tensor, mask: Tensor | None = None) -> Tensor:
    """sum_h f_h P_h over the routed heads: f the share of tokens that choose a head, P its mean score (equation 8).

    Scores and chosen [B, N, R] as `HeadGates.routes` gives them, mask [B, N] bool True = real -> [B], each entry by
    itself: thousands of voxels are enough to be even over. Uniform routing gives top / R.
    """
    real = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device) if mask is None else mask
    weight = real[..., None].to(torch.promote_types(scores.dtype, torch.float32))  # counts leave 16 bits
    total = weight.sum(dim=1).clamp_min(1.0)
    share = (chosen * weight).sum(dim=1) / total
    mean = (scores * weight).sum(dim=1) / total
    return (share * mean).sum(dim=-1)

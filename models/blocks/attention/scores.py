"""Parts of scored attention: how a query scores a key, how sharp its row is, how scores become shares."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["Additive", "Selective", "dot", "length_scale", "reweight", "softplus_shares"]


def dot(q: Tensor, k: Tensor) -> Tensor:
    """Q k^T / sqrt(D) -> [B, H, N, M]."""
    return (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # scaled first: half precision overflows later


class Additive(nn.Module):
    """u_ij = w . tanh(W_1 k_j + W_2 q_i), per head (Bahdanau et al. 2014; Pointer Networks, arXiv 1506.03134, 2.3)."""

    def __init__(self, num_heads: int, dim: int):
        super().__init__()
        self.of_k = nn.Parameter(torch.randn(num_heads, dim, dim) * dim**-0.5)
        self.of_q = nn.Parameter(torch.randn(num_heads, dim, dim) * dim**-0.5)
        self.weight = nn.Parameter(torch.randn(num_heads, dim, 1) * dim**-0.5)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """-> [B, H, N, M]; holds D times as much in between."""
        keys = k @ self.of_k.to(k.dtype).transpose(-1, -2)
        queries = q @ self.of_q.to(q.dtype).transpose(-1, -2)
        hidden = torch.tanh(queries[:, :, :, None] + keys[:, :, None])
        return (hidden @ self.weight.to(q.dtype)[:, None]).squeeze(-1)


def length_scale(count: Tensor, dim: int, factor: float) -> Tensor:
    """Factor log(D) log(n), n the keys that a row sees: entropy stays where it is as n grows (arXiv 2501.13428)."""
    return factor * math.log(max(dim, 2)) * count.clamp(min=1).log()


class Selective(nn.Module):
    """Inverse temperature tau_i = 1 + exp(-exp(beta)) log(n_i) + tanh(f . q_i + c); values times 1 + tanh(g . v + e).

    Selective Self-Attention, arXiv 2411.12892, section 3: the position term as in its code (beta 2 at the start), the
    token terms zero at the start. f and g are shared by the heads; tau is always positive.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(2.0))
        self.of_q = nn.Parameter(torch.zeros(dim))
        self.of_v = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, q: Tensor, count: Tensor) -> Tensor:
        """Q [B, H, N, D], count broadcastable to [B, 1, N, 1] -> tau [B, H, N, 1]."""
        position = torch.exp(-torch.exp(self.beta)) * count.clamp(min=1).log()
        return 1.0 + position.to(q.dtype) + self._token(q, self.of_q, 0)

    def values(self, v: Tensor) -> Tensor:
        """V [B, H, M, D], each token times its own gate in 0..2."""
        return v * (1.0 + self._token(v, self.of_v, 1))

    def _token(self, x: Tensor, weight: Tensor, which: int) -> Tensor:
        return torch.tanh((x * weight.to(x.dtype)).sum(dim=-1, keepdim=True) + self.shift[which].to(x.dtype))


def softplus_shares(scores: Tensor, mask: Tensor | None) -> Tensor:
    """softplus(s) / row sum; a row without keys is zero.

    Where all scores of a row are so low that softplus is exp in this type, the row is shifted up: its shares stay, and
    the sum is never zero, however low the scores.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    exact_below = math.log(torch.finfo(scores.dtype).eps)
    top = scores.detach().amax(dim=-1, keepdim=True)
    low = (top - exact_below).clamp(max=0.0)
    raw = softplus(scores - low.masked_fill(low == float("-inf"), 0.0))
    total = raw.sum(dim=-1, keepdim=True, dtype=torch.promote_types(raw.dtype, torch.float32))
    return (raw / total.masked_fill(total == 0, 1.0)).to(raw.dtype)


def reweight(shares: Tensor, count: Tensor, power: float, offset: float) -> Tensor:
    """relu(n a - offset)^power, normalised again; a row of which nothing stays is kept as it was.

    Order stays, the largest share never falls (power >= 1, offset >= 0). Divided by the row's largest first, which
    changes nothing in the end, or n^power would overflow.
    """
    if power == 1.0 and offset == 0.0:
        return shares
    above = (shares * count - offset).relu()  # in the type of the count: it leaves 16 bits
    top = above.detach().amax(dim=-1, keepdim=True)
    none = top <= 0
    raised = (above / top.masked_fill(none, 1.0)) ** power
    total = raised.sum(dim=-1, keepdim=True).masked_fill(none, 1.0)
    return torch.where(none, shares, (raised * total.reciprocal()).to(shares.dtype))

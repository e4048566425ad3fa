"""Routing attention: tokens attend within clusters of like content, found by online spherical k-means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from petground.models.blocks.attention.grouping import BoxBackend, box_attention, in_chunks, lattice
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.attention.windows import triple
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import Grid, check_attention

__all__ = ["RoutingAttention"]


class RoutingAttention(nn.Module):
    """Attention within clusters (Routing Transformer, arXiv 2003.05997, section 4.1, algorithm 1).

    q and k are layer-normalised without scale and shift. Each of the `clusters` unit centroids m_c of a head takes the
    w = ceil(N / clusters) queries and the w keys of the largest products with it (both sets, as in the noncausal case);
    within a cluster out = softmax(q k^T / sqrt(D)) v. A query that several clusters take gets the mean of their
    answers, one that none takes zero. In training the centroids follow the tokens nearest to them, m_c <- decay m_c +
    (1 - decay) / 2 (mean of queries + mean of keys), tokens as unit vectors, and are made unit vectors again. The means
    are of all exams of the batch, as in the released code; the paper writes sums, whose steps would grow with N. Where
    no query (or key) is nearest, m_c itself stands for their mean. This happens once a step, at the first forward after
    a backward, so that a forward and its second run under gradient checkpointing see one set. The first `local_heads`
    heads see the box of `radius` voxels around the query instead (without a grid: `span` tokens to either side).

    The causal pattern is not served: a later token can displace an earlier one from a cluster, so that what the paper
    trains with a causal mask inside clusters still looks ahead.

    Clusters about sqrt(N) give the paper's N^1.5 d. Their number is that of the centroids, which are kept with the
    weights, and does not follow N: `clusters` of them cost N^2 d / clusters in time. Each cluster's map is worked out
    some rows at a time, so that memory is linear in N.

    Args:
        channels: of all heads together.
        num_heads: heads.
        clusters: centroids of a head.
        decay: of the moving average of centroids, 1 leaves them.
        local_heads: heads that are local; half of them by default.
        radius: of the local heads' box, voxels along z, y, x.
        span: of the local heads in an order without a grid.
        backend: of the local heads' kernel; "auto" takes PyTorch's attention on copied tiles on the CPU.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        *,
        clusters: int = 32,
        decay: float = 0.999,
        local_heads: int | None = None,
        radius: Sequence[int] = (4, 4, 4),
        span: int = 128,
        backend: BoxBackend = "auto",
    ):
        super().__init__()
        local = num_heads // 2 if local_heads is None else local_heads
        if clusters < 1 or not 0 <= local <= num_heads or not 0.0 <= decay <= 1.0 or span < 0:
            raise ValueError(f"clusters={clusters}, local_heads={local}, decay={decay}, span={span}: out of range")
        self.num_heads, self.head_channels = num_heads, channels // num_heads
        self.clusters, self.decay, self.local, self.span = clusters, decay, local, span
        self.radius = triple("radius", radius, least=0)
        means = torch.randn(num_heads - local, clusters, channels // num_heads)
        self.register_buffer("centroids", normalize(means, dim=-1))
        self.aim: Tensor | None = None
        self.backend = backend
        self.free = False

    @tells_backend("routing")
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        grid: Grid | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q, k [B, H, N, D], v [B, H, N, E], mask [B, N] bool True = real -> [B, H, N, E] and the map [B, H, N, N]."""
        check_attention(
            "routing",
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            patterns=("self",),
            takes_bias=False,
        )
        check_heads("routing", q, self.num_heads, self.head_channels)
        learning = self.training and self.local < self.num_heads
        first = learning and not _again()
        if first:
            self._follow()
        out = self._out(q, k, v, mask, grid)
        weights = None
        if need_weights:
            unit = torch.eye(k.shape[2], dtype=v.dtype, device=v.device).expand(*k.shape[:2], -1, -1)
            weights = self._out(q, k, unit, mask, grid)  # linear in v: applied to the unit vectors
        if first:
            near = slice(self.local, None)
            self.aim = self._aim(_plain_norm(q[:, near].detach()), _plain_norm(k[:, near].detach()), mask)
            self.free = torch.compiler.is_compiling() or not out.requires_grad
            if not self.free:
                out.register_hook(self._passed)  # type: ignore[no-untyped-call]
        return out, weights

    def _out(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grid: Grid | None) -> Tensor:
        parts = []
        if self.local:
            shape, radius = lattice(q.shape[2], grid), (0, 0, self.span) if grid is None else self.radius
            near = slice(self.local)
            local = q[:, near], k[:, near], v[:, near]
            out = box_attention(*local, shape, radius, mask=mask, block="routing", backend=self.backend)
            parts.append(out)
        if self.local < self.num_heads:
            q, k = _plain_norm(q[:, self.local :]), _plain_norm(k[:, self.local :])
            parts.append(self._routed(q, k, v[:, self.local :], mask))
        return torch.cat(parts, dim=1)

    def members(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Layer-normalised tokens [B, H, N, D] -> each centroid's tokens [B, H, c, w] and whether they are real."""
        scores = self._centroids(x) @ normalize(x.detach(), dim=-1).transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        best = scores.topk(-(-x.shape[2] // self.clusters), dim=-1)
        return best.indices, best.values > float("-inf")

    def _centroids(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.centroids).to(x.dtype)

    def _routed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        asking, asks = self.members(q, mask)
        asked, there = self.members(k, mask)
        queries, keys, values = _pick(q, asking), _pick(k, asked), _pick(v, asked)  # [B, H, c, w, D]

        def some(first: int, last: int) -> Tensor:
            scores = queries[:, :, :, first:last] @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5
            return masked_softmax(scores, there[..., None, :]) @ values

        width = asking.shape[-1]
        answers = in_chunks(some, width, asking[..., 0].numel() * max(width, v.shape[-1]), dim=3)
        counted = asks[..., None].to(v.dtype)
        places = asking.flatten(2)[..., None]
        total = torch.zeros_like(v).scatter_add(
            2, places.expand(-1, -1, -1, v.shape[-1]), (answers * counted).flatten(2, 3)
        )
        count = v.new_zeros(*v.shape[:3], 1).scatter_add(2, places, counted.flatten(2, 3))
        return total / count.clamp_min(1.0)

    @torch.no_grad()
    def _aim(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Half the means of the queries and of the keys nearest to each centroid [H, c, D]; itself without any.

        Not made unit vectors: the more a centroid's tokens differ, the less they move it.
        """
        means, drawn = cast(Tensor, self.centroids), []
        for x in (q, k):
            unit = normalize(x.to(means.dtype), dim=-1)
            nearest = (means @ unit.transpose(-1, -2)).argmax(dim=-2)  # [B, H, N]
            one_hot = nearest[..., None] == torch.arange(self.clusters, device=x.device)
            if mask is not None:
                one_hot = one_hot & mask[:, None, :, None]
            count = one_hot.sum(dim=(0, 2))  # [H, c]
            share = one_hot.to(means.dtype) / count.clamp_min(1)[:, None]  # a sum over all tokens would leave float16
            mean = torch.einsum("bhnc,bhnd->hcd", share, unit)
            drawn.append(torch.where((count > 0)[..., None], mean, means))
        return (drawn[0] + drawn[1]) / 2

    def _passed(self, grad: Tensor) -> None:
        """The backward has come by: the centroids may move."""
        self.free = True

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the centroids as the last forward found, once its backward, which may run it again, has come by."""
        if self.aim is not None and self.free:
            means = cast(Tensor, self.centroids)
            means.copy_(normalize(self.decay * means + (1.0 - self.decay) * self.aim.to(means), dim=-1))
            self.aim = None


def _again() -> bool:
    """Inside a backward pass: gradient checkpointing runs a forward a second time."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _plain_norm(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """[B, H, N, D] by [B, H, c, w] -> [B, H, c, w, D]."""
    flat = index.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
    return torch.unflatten(x.gather(2, flat), 2, index.shape[2:])

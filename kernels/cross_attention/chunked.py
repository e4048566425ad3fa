"""Cross-attention on the CPU with any activation: some queries at a time, scores computed again in the backward.

Memory is (queries of a block) x (keys) whatever N is; the products are PyTorch's batched matrix products, written to
buffers that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._shared.activations import elementwise_, slope
from petground.kernels.cross_attention.layout import empty_answer, empty_features, empty_queries

__all__ = ["backward_chunked", "forward_chunked"]

_BLOCK_SCORES = 1 << 17  # scores of a head at a time: 512 KiB of float32 stay in the cache


def _blocks(batch: int, rows: int, cols: int) -> Iterator[tuple[slice, slice]]:
    """(batch entries, queries) of each block: part of one entry, or several whole entries where these are small."""
    step = max(1, _BLOCK_SCORES // cols)
    if rows >= step:
        yield from ((slice(b, b + 1), slice(n, n + step)) for b in range(batch) for n in range(0, rows, step))
    else:
        group = step // rows
        yield from ((slice(b, b + group), slice(0, rows)) for b in range(0, batch, group))


class _Block:
    """One block's operands as [b H, rows, width], in the type that is computed in."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, where: tuple[slice, slice]):
        entries, rows = where
        # float16 products are a hundred times slower than float32 ones on CPUs, bfloat16 scores too coarse
        self.kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.heads = q.shape[1]
        self.q = self.flat(q[entries, :, rows])
        self.k = self.flat(k[entries])
        self.v = self.flat(v[entries])
        self.factor = scale.to(self.kind).repeat(self.k.shape[0] // self.heads)[:, None, None]
        self.scaled = self.k * self.factor
        self.drop: Tensor | None = None
        if mask is not None:
            self.drop = ~mask[entries].repeat_interleave(self.heads, 0)[:, None, :]

    def flat(self, tensor: Tensor) -> Tensor:
        return tensor.flatten(0, 1).to(self.kind)

    def back(self, tensor: Tensor) -> Tensor:
        return tensor.view(-1, self.heads, *tensor.shape[1:])

    def scores(self) -> Tensor:
        return torch.bmm(self.q, self.scaled.transpose(1, 2))

    def weights(self, stat: Tensor | None, activation: str, shift: float) -> tuple[Tensor, Tensor]:
        """(scores, weights); scores are those shifted, or for softmax the weights again (they are one buffer)."""
        scores = self.scores()
        if activation == "softmax":
            assert stat is not None
            found = scores.sub_(stat.unsqueeze(-1)).exp_()
            scores = found
        else:
            scores = scores.add_(shift)
            found = elementwise_(scores.clone(), activation)
        if self.drop is not None:
            found.masked_fill_(self.drop, 0.0)
        return scores, found


def forward_chunked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The answer [B, H, N, E] and log-sum-exp [B H N] (of size 0 where the activation is not softmax)."""
    batch, heads, rows, _ = q.shape
    out = empty_answer(q, v, x)
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    stat = q.new_empty((batch, heads, rows) if activation == "softmax" else (0, 0, 0), dtype=kind)
    for where in _blocks(batch, rows, k.shape[2]):
        one = _Block(q, k, v, mask, scale, where)
        if activation == "softmax":
            scores = one.scores()
            if one.drop is not None:
                scores.masked_fill_(one.drop, float("-inf"))
            peak = scores.amax(-1, keepdim=True)
            empty = torch.isneginf(peak)
            peak.masked_fill_(empty, 0.0)
            found = scores.sub_(peak).exp_()
            total = found.sum(-1, keepdim=True).masked_fill_(empty, 1.0)
            answer = torch.bmm(found, one.v).div_(total)
            stat[where[0], :, where[1]] = one.back((peak + total.log_()).squeeze(-1))
        else:
            answer = torch.bmm(one.weights(None, activation, shift)[1], one.v)
        block = one.back(answer)
        if x is not None:
            t = torch.tanh(block)
            given = x[where[0], :, where[1]].to(kind)
            block = given * t if gate == "tanh" else given * (1.0 + t) + block
        out[where[0], :, where[1]] = block
    return out, stat.flatten()


def backward_chunked(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    out: Tensor | None, stat: Tensor, activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v, scale, x; `out` is not read."""
    batch, heads, rows, _ = q.shape
    dq = empty_queries(q)
    dx = None if x is None else empty_features(x)
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    dk, dv = (one.new_zeros(one.shape, dtype=kind) for one in (k, v))  # not in the layout of k: see the fake form
    levels = stat.view(batch, heads, rows) if activation == "softmax" else None
    for where in _blocks(batch, rows, k.shape[2]):
        one = _Block(q, k, v, mask, scale, where)
        level = None if levels is None else levels[where[0], :, where[1]].flatten(0, 1)
        scores, found = one.weights(level, activation, shift)
        above = one.flat(grad[where[0], :, where[1]])
        if x is not None and dx is not None:
            answer = torch.bmm(found, one.v)
            t = torch.tanh(answer)
            given = one.flat(x[where[0], :, where[1]])
            dx[where[0], :, where[1]] = one.back(above * (t if gate == "tanh" else 1.0 + t))
            above = above * (given * (1.0 - t * t) + (0.0 if gate == "tanh" else 1.0))
        steep = torch.bmm(above, one.v.transpose(1, 2))
        if activation == "softmax":
            balance = torch.linalg.vecdot(found, steep).unsqueeze(-1)
            steep = steep.sub_(balance).mul_(found)
        else:
            steep = steep.mul_(slope(scores, found, activation))
            if one.drop is not None:
                steep.masked_fill_(one.drop, 0.0)
        dv[where[0]] += one.back(torch.bmm(found.transpose(1, 2), above))
        dk[where[0]] += one.back(torch.bmm(steep.transpose(1, 2), one.q))
        dq[where[0], :, where[1]] = one.back(torch.bmm(steep, one.scaled))
    dscale = (dk * k.to(kind)).sum((0, 2, 3))
    factor = scale.to(kind)[:, None, None]
    return dq, (dk * factor).to(k.dtype), dv.to(v.dtype), dscale.to(scale.dtype), dx

"""Cross-attention on the CPU with any activation: some queries at a time, scores computed again in the backward.

Memory is (queries of a block) x (keys) whatever N is. Scores lie keys first, [keys, queries]: what is taken over the
few keys of each of many queries then runs along the memory (`benchmarks/cpu_attention.py` measures it).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._shared.activations import elementwise_, slope
from petground.kernels.cross_attention.layout import empty_answer, empty_features, empty_queries

__all__ = ["backward_chunked", "forward_chunked"]

_FEWEST = 128  # queries at a time where keys are many: narrower products are slow
_BLOCK_SCORES = 1 << 19  # scores at a time, of all heads: 2 MiB of float32 stay in the cache


def _blocks(batch: int, heads: int, rows: int, cols: int) -> Iterator[tuple[slice, slice]]:
    """(batch entries, queries) of each block: part of one entry, or several whole entries where these are small."""
    step = max(_BLOCK_SCORES // (heads * cols), min(_FEWEST, _BLOCK_SCORES // cols), 1)
    if rows >= step:
        yield from ((slice(b, b + 1), slice(n, n + step)) for b in range(batch) for n in range(0, rows, step))
    else:
        group = step // rows
        yield from ((slice(b, b + group), slice(0, rows)) for b in range(0, batch, group))


def _real_keys(mask: Tensor | None, entries: slice) -> tuple[slice | Tensor, Tensor | None]:
    """Keys that these entries take part with, and of them those that are dropped [b, keys]; None: none is."""
    if mask is None:
        return slice(None), None
    if len(mask[entries]) == 1:  # padding costs nothing then
        real = mask[entries][0].nonzero()[:, 0]
        if len(real):
            return real, None
    return slice(None), ~mask[entries]


class _Block:
    """One block's operands as [b H, rows, width], in the type that is computed in; scores [b H, keys, queries]."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, where: tuple[slice, slice]):
        entries, rows = where
        # float16 products are a hundred times slower than float32 ones on CPUs, bfloat16 scores too coarse
        self.kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.heads = q.shape[1]
        self.q = self.flat(q[entries, :, rows])
        self.keys, self.drop = _real_keys(mask, entries)
        self.k, self.v = (self.flat(one[entries][:, :, self.keys]) for one in (k, v))
        self.factor = scale.to(self.kind).repeat(self.k.shape[0] // self.heads)[:, None, None]
        self.scaled = self.k * self.factor
        if self.drop is not None:
            self.drop = self.drop.repeat_interleave(self.heads, 0)[:, :, None]

    def flat(self, tensor: Tensor) -> Tensor:
        return tensor.flatten(0, 1).to(self.kind)

    def back(self, tensor: Tensor) -> Tensor:
        return torch.unflatten(tensor, 0, (-1, self.heads))

    def scores(self) -> Tensor:
        return torch.bmm(self.scaled, self.q.mT)

    def answer(self, found: Tensor) -> Tensor:
        """[b H, queries, E], as a view of [b H, E, queries]."""
        return torch.bmm(self.v.mT, found).mT

    def weights(self, stat: Tensor | None, activation: str, shift: float) -> tuple[Tensor, Tensor]:
        """(scores, weights); scores are those shifted, or for softmax the weights again (they are one buffer)."""
        scores = self.scores()
        if activation == "softmax":
            assert stat is not None
            found = scores.sub_(stat.unsqueeze(1)).exp_()
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
    for where in _blocks(batch, heads, rows, k.shape[2]):
        one = _Block(q, k, v, mask, scale, where)
        if activation == "softmax":
            scores = one.scores()
            if one.drop is not None:
                scores.masked_fill_(one.drop, float("-inf"))
            peak = scores.amax(1, keepdim=True)
            empty = torch.isneginf(peak)
            peak.masked_fill_(empty, 0.0)
            found = scores.sub_(peak).exp_()
            total = found.sum(1, keepdim=True).masked_fill_(empty, 1.0)
            answer = one.answer(found).div_(total.mT)
            stat[where[0], :, where[1]] = one.back((peak + total.log_()).squeeze(1))
        else:
            answer = one.answer(one.weights(None, activation, shift)[1])
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
    for where in _blocks(batch, heads, rows, k.shape[2]):
        one = _Block(q, k, v, mask, scale, where)
        level = None if levels is None else levels[where[0], :, where[1]].flatten(0, 1)
        scores, found = one.weights(level, activation, shift)
        above = one.flat(grad[where[0], :, where[1]])
        if x is not None and dx is not None:
            answer = one.answer(found)
            t = torch.tanh(answer)
            given = one.flat(x[where[0], :, where[1]])
            dx[where[0], :, where[1]] = one.back(above * (t if gate == "tanh" else 1.0 + t))
            above = above * (given * (1.0 - t * t) + (0.0 if gate == "tanh" else 1.0))
        steep = torch.bmm(one.v, above.mT)
        if activation == "softmax":
            steep = steep.sub_((found * steep).sum(1, keepdim=True)).mul_(found)
        else:
            steep = steep.mul_(slope(scores, found, activation))
            if one.drop is not None:
                steep.masked_fill_(one.drop, 0.0)
        dv[where[0]][:, :, one.keys] += one.back(torch.bmm(found, above))
        dk[where[0]][:, :, one.keys] += one.back(torch.bmm(steep, one.q))
        dq[where[0], :, where[1]] = one.back(torch.bmm(one.scaled.mT, steep).mT)
    dscale = (dk * k.to(kind)).sum((0, 2, 3))
    factor = scale.to(kind)[:, None, None]
    return dq, (dk * factor).to(k.dtype), dv.to(v.dtype), dscale.to(scale.dtype), dx

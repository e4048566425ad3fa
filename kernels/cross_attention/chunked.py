"""Cross-attention on the CPU with any activation: some queries at a time, scores computed again in the backward.

Memory is (queries of a block) x (keys) whatever N is; a block grows with the threads, and with it the last bits change.
Scores lie keys first, [keys, queries]: what is taken over the few keys of each of many queries then runs along the
memory (`benchmarks/cpu_attention.py` measures it).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from petground.kernels._shared.activations import elementwise_, slope
from petground.kernels.cross_attention.layout import empty_answer, empty_features, empty_queries

__all__ = ["backward_chunked", "forward_chunked"]

_FEWEST = 128  # queries at a time where keys are many: narrower products are slow
_BLOCK_SCORES = 1 << 19  # scores at a time, of all heads, for each thread: 2 MiB of float32 stay in its cache


def _blocks(batch: int, heads: int, rows: int, cols: int) -> Iterator[tuple[slice, list[slice]]]:
    """Batch entries and the blocks of their queries: parts of one entry, or several small entries whole."""
    scores = _BLOCK_SCORES * min(torch.get_num_threads(), 8)
    step = max(scores // (heads * cols), min(_FEWEST, scores // cols), 1)
    if rows >= step:
        parts = [slice(n, n + step) for n in range(0, rows, step)]
        yield from ((slice(b, b + 1), parts) for b in range(batch))
    else:
        group = step // rows
        yield from ((slice(b, b + group), [slice(0, rows)]) for b in range(0, batch, group))


def _real_keys(mask: Tensor | None, entries: slice) -> tuple[slice | Tensor, Tensor | None]:
    """Keys that these entries take part with, and of them those that are dropped [b, keys]; None: none is."""
    if mask is None:
        return slice(None), None
    if len(mask[entries]) == 1:  # padding costs nothing then
        real = mask[entries][0].nonzero()[:, 0]
        if len(real):
            return real, None
    return slice(None), ~mask[entries]


def _kind(tensor: Tensor) -> torch.dtype:
    """What is computed in: float16 products are much slower than float32 ones on CPUs, bfloat16 scores too coarse."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


class _Entries:
    """The key side of some batch entries: keys and values [b H, keys, width] in the type that is computed in."""

    def __init__(self, entries: slice, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor):
        self.entries, self.heads = entries, k.shape[1]
        self.kind = _kind(k)
        self.keys, drop = _real_keys(mask, entries)
        self.k, self.v = (self.flat(one[entries][:, :, self.keys]) for one in (k, v))
        self.scaled = self.k * scale.to(self.kind).repeat(self.k.shape[0] // self.heads)[:, None, None]
        self.drop = None if drop is None else drop.repeat_interleave(self.heads, 0)[:, :, None]

    def flat(self, tensor: Tensor) -> Tensor:
        """[b, H, rows, width] -> [b H, rows, width], computed in."""
        return tensor.flatten(0, 1).to(self.kind)

    def rows(self, tensor: Tensor, rows: slice) -> Tensor:
        """These entries' rows of [B, H, N, width], as `flat` gives them."""
        return self.flat(tensor[self.entries, :, rows])

    def back(self, tensor: Tensor) -> Tensor:
        return torch.unflatten(tensor, 0, (-1, self.heads))

    def scores(self, q: Tensor) -> Tensor:
        """[b H, keys, queries] of q [b H, queries, width]."""
        return torch.bmm(self.scaled, q.mT)

    def answer(self, found: Tensor) -> Tensor:
        """[b H, queries, E], as a view of [b H, E, queries]."""
        return torch.bmm(self.v.mT, found).mT

    def weights(self, q: Tensor, stat: Tensor | None, activation: str, shift: float) -> tuple[Tensor, Tensor]:
        """(scores, weights); scores are those shifted, or for softmax the weights again (they are one buffer)."""
        scores = self.scores(q)
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
    out, kind = empty_answer(q, v, x, "chunked"), _kind(q)
    stat = q.new_empty((batch, heads, rows) if activation == "softmax" else (0, 0, 0), dtype=kind)
    for entries, parts in _blocks(batch, heads, rows, k.shape[2]):
        side = _Entries(entries, k, v, mask, scale)
        for part in parts:
            queries = side.rows(q, part)
            if activation == "softmax":
                answer, level = _softmax(side, queries)
                stat[entries, :, part] = side.back(level)
            else:
                answer = side.answer(side.weights(queries, None, activation, shift)[1])
            block = side.back(answer)
            if x is not None:
                t = torch.tanh(block)
                given = x[entries, :, part].to(kind)
                block = given * t if gate == "tanh" else given * (1.0 + t) + block
            out[entries, :, part] = block
    return out, stat.flatten()


def _softmax(side: _Entries, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The answer [b H, queries, E] and log-sum-exp [b H, queries]."""
    scores = side.scores(queries)
    if side.drop is not None:
        scores.masked_fill_(side.drop, float("-inf"))
    peak = scores.amax(1, keepdim=True)
    empty = None if side.drop is None else torch.isneginf(peak)
    if empty is not None:
        peak.masked_fill_(empty, 0.0)
    found = scores.sub_(peak).exp_()
    total = found.sum(1, keepdim=True)
    if empty is not None:
        total.masked_fill_(empty, 1.0)
    return side.answer(found).div_(total.mT), (peak + total.log_()).squeeze(1)


def backward_chunked(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor, x: Tensor | None,
    out: Tensor | None, stat: Tensor, activation: str, gate: str, shift: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v, scale, x; `out` is not read."""
    batch, heads, rows, _ = q.shape
    dq, kind = empty_queries(q, "chunked"), _kind(q)
    dx = None if x is None else empty_features(x)
    dk, dv = (one.new_zeros(one.shape, dtype=kind) for one in (k, v))  # not in the layout of k: see the fake form
    levels = stat.view(batch, heads, rows) if activation == "softmax" else None
    for entries, parts in _blocks(batch, heads, rows, k.shape[2]):
        side = _Entries(entries, k, v, mask, scale)
        for_k, for_v = torch.zeros_like(side.k), torch.zeros_like(side.v)
        for part in parts:
            queries, above = side.rows(q, part), side.rows(grad, part)
            level = None if levels is None else levels[entries, :, part].flatten(0, 1)
            scores, found = side.weights(queries, level, activation, shift)
            if x is not None and dx is not None:
                answer = side.answer(found)
                t = torch.tanh(answer)
                given = side.rows(x, part)
                dx[entries, :, part] = side.back(above * (t if gate == "tanh" else 1.0 + t))
                above = above * (given * (1.0 - t * t) + (0.0 if gate == "tanh" else 1.0))
            steep = torch.bmm(side.v, above.mT)
            if activation == "softmax":
                steep = steep.sub_((found * steep).sum(1, keepdim=True)).mul_(found)
            else:
                steep = steep.mul_(slope(scores, found, activation))
                if side.drop is not None:
                    steep.masked_fill_(side.drop, 0.0)
            for_v += torch.bmm(found, above)
            for_k += torch.bmm(steep, queries)
            dq[entries, :, part] = side.back(torch.bmm(side.scaled.mT, steep).mT)
        dv[entries][:, :, side.keys] = side.back(for_v)
        dk[entries][:, :, side.keys] = side.back(for_k)
    dscale = (dk * k.to(kind)).sum((0, 2, 3))
    factor = scale.to(kind)[:, None, None]
    return dq, (dk * factor).to(k.dtype), dv.to(v.dtype), dscale.to(scale.dtype), dx

"""Linear attention by Triton kernels. Its gradients are linear attention again, with the roles exchanged.

With o_i = sum_j lambda^|i-j| (q_i . k_j) v_j and g = d loss / d o:

    dq_i = sum_j lambda^|i-j| (g_i . v_j) k_j        over the same j as the forward
    dk_j = sum_i lambda^|i-j| (v_j . g_i) q_i        over the i that saw j: causal turned round
    dv_j = sum_i lambda^|i-j| (k_j . q_i) g_i        likewise

A row's sum of weights (normalize) is the answer to a further column of v that is all ones; kernels make that column up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from petground.kernels._shared.grids import empty_heads
from petground.kernels._triton.attention import parts_of, side_by_side, strides
from petground.kernels._triton.runtime import architecture, interpreting, launch
from petground.kernels.linear_attention.plans import plan, tile_width
from petground.kernels.linear_attention.triton_kernels import chunk_answers, chunk_states

__all__ = ["backward_triton", "cases", "forward_triton"]


@dataclass(frozen=True)
class _Role:
    """[B, H, length, width] and how it gets its further column: 0 none, 1 ones, 2 from `more` [B, H, length]."""

    tensor: Tensor
    extra: int = 0
    more: Tensor | None = None

    @property
    def width(self) -> int:
        return self.tensor.shape[3] + (self.extra > 0)


def forward_triton(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None, causal: bool, ones: bool
) -> tuple[Tensor, Tensor]:
    """The answer [B, H, N, E]; with `ones` in float32, beside it the sums of weights [B, H, N] (else of size 0)."""
    values = _Role(side_by_side(v), int(ones))
    kind = torch.float32 if ones else v.dtype
    return _Sum(mask, log_decay, causal, q.dtype)(_Role(side_by_side(q)), _Role(side_by_side(k)), values, kind)


def backward_triton(
    grad: Tensor, grad_total: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, log_decay: Tensor | None,
    causal: bool, ones: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v."""
    q, k, v, grad = side_by_side(q), side_by_side(k), side_by_side(v), side_by_side(grad)
    above = _Role(grad, 2, grad_total.contiguous()) if ones else _Role(grad)
    values = _Role(v, int(ones))
    sums = _Sum(mask, log_decay, causal, q.dtype)
    dq, _ = sums(above, values, _Role(k), q.dtype)
    dk, _ = sums(values, above, _Role(q), k.dtype, late=True)
    dv, _ = sums(_Role(k), _Role(q), _Role(grad), v.dtype, late=True)
    return dq, dk, dv


@dataclass(frozen=True)
class _Sum:
    """o_i = sum_j lambda^|i-j| (a_i . b_j) c_j; the mask is of b and c, or of a where `late`."""

    mask: Tensor | None
    log_decay: Tensor | None
    causal: bool
    dtype: torch.dtype  # of q, k and v

    def __call__(self, a: _Role, b: _Role, c: _Role, kind: torch.dtype, late: bool = False) -> tuple[Tensor, Tensor]:
        """The sum over all j; causal: over j <= i, `late`: over j >= i. In `kind`, and its extra column in float32."""
        if self.log_decay is None and not self.causal:
            return self._pass(a, b, c, kind, late, order=0, reverse=False, before=None)
        if self.causal:
            return self._pass(a, b, c, kind, late, order=1, reverse=late, before=None)
        # both directions: in the second no token meets itself again
        before = self._pass(a, b, c, torch.float32, late, order=1, reverse=False, before=None)
        return self._pass(a, b, c, kind, late, order=2, reverse=True, before=before)

    def _pass(
        self, a: _Role, b: _Role, c: _Role, kind: torch.dtype, late: bool, *,
        order: int, reverse: bool, before: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        like = a.tensor
        batch, heads, rows, _ = like.shape
        cols = b.tensor.shape[2]
        half = self.dtype == torch.bfloat16 and not (interpreting() and like.device.type == "cpu")
        p, of_answers = plan(half, architecture(like.device))
        blocks = tile_width(b.width, p.block), tile_width(c.width, p.block)
        chunks = -(-cols // p.tokens)
        tiles = batch * heads * -(-b.width // blocks[0]) * -(-c.width // blocks[1])
        segments, length = parts_of(cols, p.tokens, tiles, like.device)
        plain = self.dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32
        keep = None if self.mask is None else side_by_side(self.mask).view(torch.uint8)
        rate: Tensor | None = None
        if order > 0:
            given = like.new_zeros(heads) if self.log_decay is None else self.log_decay
            rate = given.to(torch.float32).contiguous()
        shared: dict[str, Any] = {
            "b": b.tensor if order > 0 else None, "c": c.tensor if order > 0 else None, "b_extra": b.more, "keep": keep,
            "decay": rate, "heads": heads, "segment_chunks": length // p.tokens, "segments": segments,
            "width_c": c.tensor.shape[3], "deep": b.width, "wide": c.width,
            "keep_b": 0 if keep is None else keep.stride(0), "REVERSE": reverse, "EXTRA_B": b.extra, "EXTRA_C": c.extra,
            "HALF": half, "PRECISION": "tf32" if plain else "tf32x3",
            "TOKENS": p.tokens, "BLOCK_B": blocks[0], "BLOCK_C": blocks[1],
        }  # fmt: skip
        shared |= strides("b", b.tensor) | strides("c", c.tensor)
        states = like.new_empty(batch, heads, chunks if order > 0 else 0, b.width, c.width, dtype=torch.float32)
        totals = like.new_empty(batch, heads, segments, b.width, c.width, dtype=torch.float32)
        arguments = shared | {"b": b.tensor, "c": c.tensor, "states": states, "totals": totals, "length": cols}
        arguments |= {"chunks": chunks, "width_b": b.tensor.shape[3]}
        arguments |= {"ORDERED": order > 0, "MASKED": keep is not None and not late}
        launch(chunk_states, tiles * segments, arguments, num_warps=p.num_warps, num_stages=p.num_stages)

        carry = totals.sum(2) if rate is None else _before(totals, rate, length)
        chunks = -(-rows // p.tokens)
        out = empty_heads(like, c.tensor.shape[3], kind)
        total = like.new_empty((batch, heads, rows) if c.extra else (0,), dtype=torch.float32)
        arguments = shared | {"a": a.tensor, "a_extra": a.more, "states": states, "carry": carry, "length": rows}
        arguments |= {"before": None, "before_total": None, "out": out, "total": total, "chunks": chunks}
        if before is not None:
            # laid out as empty_heads gives it; the kernel reads it as [B, H, N, E]
            arguments |= {"before": before[0], "before_total": before[1]}
        arguments |= strides("a", a.tensor) | strides("out", out) | strides("before", before and before[0])
        arguments |= {"width_a": a.tensor.shape[3], "ORDER": order, "ADD": before is not None, "EXTRA_A": a.extra}
        arguments |= {"MASK_ROWS": keep is not None and late, "MASK_COLS": keep is not None and not late}
        programs = batch * heads * chunks * -(-c.width // blocks[1])
        launch(chunk_answers, programs, arguments, num_warps=of_answers.num_warps, num_stages=of_answers.num_stages)
        return out, total


def _before(totals: Tensor, rate: Tensor, length: int) -> Tensor:
    """State before each segment: the earlier segments' sums [B, H, S, ., .], faded by the tokens in between."""
    steps = torch.arange(totals.shape[2], device=totals.device)
    gone = steps[:, None] - 1 - steps  # whole segments between the end of one and the start of another
    weights = torch.exp(rate[:, None, None] * gone.clamp(min=0) * length) * (gone >= 0)
    return (weights @ totals.flatten(3)).view_as(totals)


def cases() -> Iterator[str]:
    """Runs forward and backward on meta tensors of every kind that has kernels of its own; yields what it was."""
    kinds = [
        (torch.bfloat16, 32, 32), (torch.bfloat16, 64, 64), (torch.float16, 64, 64), (torch.float32, 64, 64),
    ]  # fmt: skip
    for dtype, deep, wide in kinds:
        name = str(dtype).removeprefix("torch.")
        for decayed, causal, ones in ((False, False, False), (False, True, False), (True, False, True)):
            if causal and dtype != torch.bfloat16:
                continue  # a part of what the last one needs
            q = torch.empty(2, 4096, 8, deep, dtype=dtype, device="meta").transpose(1, 2)
            v = torch.empty(2, 4096, 8, wide, dtype=dtype, device="meta").transpose(1, 2)
            mask = torch.empty(2, 4096, dtype=torch.bool, device="meta")
            decay = torch.empty(8, device="meta") if decayed else None
            out, total = forward_triton(q, q, v, mask, decay, causal, ones)
            backward_triton(out, total, q, q, v, mask, decay, causal, ones)
            yield f"linear_attention {name} D={deep} E={wide} causal={causal} ones={ones}"

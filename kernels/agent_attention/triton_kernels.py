"""The gradient of a bias of each score, for both halves of agent attention; the rest is _triton.attention_*.

As there no product takes the transpose of another product's result. Scores are in units of log 2.
"""

import triton
import triton.language as tl

from petground.kernels._triton.maths import load_tile, with_bias

__all__ = ["biased_backward_bias"]


@triton.jit
def biased_backward_bias(
    q, k, v, keep, bias, scale, stat, delta, grad, dbias,
    heads, rows, cols, width_qk, width_v, bias_batch, bias_heads, shared_batch, shared_heads,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p, grad_b, grad_h, grad_n,
    dbias_b, dbias_h, dbias_n, dbias_p,
    MASKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One tile of dbias [bias_batch, bias_heads, N, P]: the sum over the entries and heads that share the bias."""
    blocks_p = tl.cdiv(cols, COLS)
    blocks_n = tl.cdiv(rows, ROWS)
    program = tl.program_id(0)
    col = program % blocks_p * COLS + tl.arange(0, COLS)
    row = program // blocks_p % blocks_n * ROWS + tl.arange(0, ROWS)
    which = program // (blocks_p * blocks_n)
    first_b = which // bias_heads
    first_h = which % bias_heads
    real = row < rows
    exists = col < cols
    along = (row.to(tl.int64) * bias_n)[:, None] + (col.to(tl.int64) * bias_p)[None, :]
    answer = tl.zeros([ROWS, COLS], tl.float32)
    for step in range(0, shared_batch * shared_heads):
        b = (first_b + step // shared_heads).to(tl.int64)
        h = (first_h + step % shared_heads).to(tl.int64)
        valid = exists
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + col, mask=exists, other=0) != 0)
        both = real[:, None] & valid[None, :]
        queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
        keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, row, real, grad_n, width_v, WIDTH_V, UPCAST)
        stats = (b * heads + h) * rows + row
        level = tl.load(stat + stats, mask=real, other=0.0)
        balance = tl.load(delta + stats, mask=real, other=0.0)
        factor = tl.load(scale + h) * 1.4426950408889634
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
        score = with_bias(score, bias + b * bias_b + h * bias_h + along, both, "softmax")
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION)
        answer += tl.where(both, tl.exp2(score - level[:, None]) * (steep - balance[:, None]), 0.0)
    place = dbias + first_b.to(tl.int64) * dbias_b + first_h.to(tl.int64) * dbias_h
    place += (row.to(tl.int64) * dbias_n)[:, None] + (col.to(tl.int64) * dbias_p)[None, :]
    tl.store(place, answer.to(dbias.dtype.element_ty), mask=real[:, None] & exists[None, :])

"""Backward of attention in one kernel, for few keys: they stay in the program while the queries stream past once."""

import triton
import triton.language as tl

from petground.kernels._triton.maths import load_tile, slope, weight

__all__ = ["attention_backward_resident"]


@triton.jit(do_not_specialize=["batch_heads", "heads"])
def attention_backward_resident(
    q, k, v, keep, scale, stat, grad, dq, dk, dv,
    batch_heads, heads, rows, cols, width_qk, width_v, part_rows, shift,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, grad_b, grad_h, grad_n, dq_b, dq_h, dq_n,
    ACTIVATION: tl.constexpr, MASKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """All keys (at most COLS) of one head, one part of the queries.

    Each query and its gradient are read once, neither the answer nor delta is needed: with all keys at hand delta is
    the sum over keys of weight * dP. Seven products instead of five, so that no product takes the transpose of
    another's result (see attention_backward.py); with 64 keys memory is the limit all the same.
    dq [B, H, N, D] is the gradient; dk [S, B H, P, D], dv [S, B H, P, E] are float32 parts, dk without the factor.
    """
    program = tl.program_id(0)
    batch_head = program % batch_heads
    part = program // batch_heads
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)

    col = tl.arange(0, COLS)
    exists = col < cols
    valid = exists
    if MASKED:
        valid = valid & (tl.load(keep + b * keep_b + col, mask=exists, other=0) != 0)
    keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
    values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
    raw = tl.load(scale + h)
    factor = raw
    if ACTIVATION == "softmax":
        factor = raw * 1.4426950408889634
    found_dk = tl.zeros([COLS, WIDTH_QK], tl.float32)
    found_dv = tl.zeros([COLS, WIDTH_V], tl.float32)
    channel = tl.arange(0, WIDTH_QK)
    first = part * part_rows
    last = tl.minimum(first + part_rows, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < last
        queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, row, real, grad_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION)
        if ACTIVATION == "softmax":
            level = tl.load(stat + batch_head.to(tl.int64) * rows + row, mask=real, other=0.0)
            found = tl.where(valid[None, :], tl.exp2(score - level[:, None]), 0.0)
            balance = tl.sum(found * steep, 1)
            steep = found * (steep - balance[:, None])
        else:
            found = weight(score + shift, ACTIVATION)
            steep = tl.where(valid[None, :], steep * slope(score + shift, found, ACTIVATION), 0.0)
        found_dq = tl.dot(steep.to(keys.dtype), keys, input_precision=PRECISION) * raw
        place = dq + b * dq_b + h * dq_h + (row.to(tl.int64) * dq_n)[:, None] + channel[None, :]
        inside = real[:, None] & (channel < width_qk)[None, :]
        tl.store(place, found_dq.to(dq.dtype.element_ty), mask=inside)

        score = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * factor
        steep = tl.dot(values, tl.trans(above), input_precision=PRECISION)
        if ACTIVATION == "softmax":
            found = tl.exp2(score - level[None, :])
            steep = found * (steep - balance[None, :])
        else:
            found = weight(score + shift, ACTIVATION)
            steep = steep * slope(score + shift, found, ACTIVATION)
        both = valid[:, None] & real[None, :]
        found = tl.where(both, found, 0.0)
        steep = tl.where(both, steep, 0.0)
        found_dv += tl.dot(found.to(above.dtype), above, input_precision=PRECISION)
        found_dk += tl.dot(steep.to(queries.dtype), queries, input_precision=PRECISION)

    place = (part * batch_heads + batch_head).to(tl.int64) * cols + col
    inside = exists[:, None] & (channel < width_qk)[None, :]
    tl.store(dk + (place * width_qk)[:, None] + channel[None, :], found_dk, mask=inside)
    channel = tl.arange(0, WIDTH_V)
    inside = exists[:, None] & (channel < width_v)[None, :]
    tl.store(dv + (place * width_v)[:, None] + channel[None, :], found_dv, mask=inside)

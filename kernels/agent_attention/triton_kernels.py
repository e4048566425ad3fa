"""Softmax attention with a bias of each score, as both halves of agent attention need it; the bias learns, too.

As in _triton.attention_backward no product takes the transpose of another product's result, and sums over the other
side are stored in parts, without atomics. Scores are in units of log 2.
"""

import triton
import triton.language as tl

from petground.kernels._triton.maths import load_tile

__all__ = ["biased_backward_bias", "biased_backward_keys", "biased_backward_queries", "biased_forward"]


@triton.jit
def biased_forward(
    q, k, v, keep, bias, out, stat, total,
    batch_heads, heads, rows, cols, width_qk, width_v, part_cols, factor,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p, out_b, out_h, out_n,
    PARTS: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of queries against one part of the keys: out = softmax(factor q k^T + bias) v.

    Without PARTS: out [B, H, N, E], stat [B H, N] = log2-sum-exp of the scores (0 without keys). With PARTS: values
    [S, B H, N, E], the largest score stat and the sum total [S, B H, N] of each part, in float32.
    """
    blocks = tl.cdiv(rows, ROWS)
    program = tl.program_id(0)
    block = program % blocks
    batch_head = (program // blocks) % batch_heads
    part = program // (blocks * batch_heads)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)

    row = block * ROWS + tl.arange(0, ROWS)
    real = row < rows
    queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
    along = row.to(tl.int64) * bias_n
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    answer = tl.zeros([ROWS, WIDTH_V], tl.float32)
    first = part * part_cols
    last = tl.minimum(first + part_cols, cols)
    for start in range(first, last, COLS):
        col = start + tl.arange(0, COLS)
        valid = col < last
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + col, mask=valid, other=0) != 0)
        keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (factor * 1.4426950408889634)
        if BIASED:
            place = bias + b * bias_b + h * bias_h + along[:, None] + (col.to(tl.int64) * bias_p)[None, :]
            more = tl.load(place, mask=real[:, None] & valid[None, :], other=0.0).to(tl.float32)
            score += more * 1.4426950408889634
        score = tl.where(valid[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)  # no key yet: exp2(-inf - 0) is 0, not NaN
        found = tl.exp2(score - level[:, None])
        shrink = tl.exp2(peak - level)
        mass = mass * shrink + tl.sum(found, 1)
        answer = answer * shrink[:, None]
        peak = higher
        answer += tl.dot(found.to(values.dtype), values, input_precision=PRECISION)

    channel = tl.arange(0, WIDTH_V)
    inside = real[:, None] & (channel < width_v)[None, :]
    stats = (part * batch_heads + batch_head).to(tl.int64) * rows + row
    if PARTS:
        tl.store(stat + stats, peak, mask=real)
        tl.store(total + stats, mass, mask=real)
        tl.store(out + (stats * width_v)[:, None] + channel[None, :], answer, mask=inside)
    else:
        some = mass > 0.0
        safe = tl.where(some, mass, 1.0)
        answer = answer / safe[:, None]
        tl.store(stat + stats, tl.where(some, peak + tl.log2(safe), 0.0), mask=real)
        place = out + b * out_b + h * out_h + (row.to(tl.int64) * out_n)[:, None] + channel[None, :]
        tl.store(place, answer.to(out.dtype.element_ty), mask=inside)


@triton.jit
def biased_backward_queries(
    q, k, v, keep, bias, stat, delta, grad, dq,
    batch_heads, heads, rows, cols, width_qk, width_v, part_cols, factor,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p, grad_b, grad_h, grad_n,
    dq_b, dq_h, dq_n,
    PARTS: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """Dq of one block of queries over one part of the keys; with PARTS [S, B H, N, D] float32."""
    blocks = tl.cdiv(rows, ROWS)
    program = tl.program_id(0)
    block = program % blocks
    batch_head = (program // blocks) % batch_heads
    part = program // (blocks * batch_heads)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)

    row = block * ROWS + tl.arange(0, ROWS)
    real = row < rows
    stats = batch_head.to(tl.int64) * rows + row
    queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
    above = load_tile(grad + b * grad_b + h * grad_h, row, real, grad_n, width_v, WIDTH_V, UPCAST)
    level = tl.load(stat + stats, mask=real, other=0.0)
    balance = tl.load(delta + stats, mask=real, other=0.0)
    along = row.to(tl.int64) * bias_n
    answer = tl.zeros([ROWS, WIDTH_QK], tl.float32)
    first = part * part_cols
    last = tl.minimum(first + part_cols, cols)
    for start in range(first, last, COLS):
        col = start + tl.arange(0, COLS)
        valid = col < last
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + col, mask=valid, other=0) != 0)
        keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (factor * 1.4426950408889634)
        if BIASED:
            place = bias + b * bias_b + h * bias_h + along[:, None] + (col.to(tl.int64) * bias_p)[None, :]
            more = tl.load(place, mask=real[:, None] & valid[None, :], other=0.0).to(tl.float32)
            score += more * 1.4426950408889634
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION)
        steep = tl.exp2(score - level[:, None]) * (steep - balance[:, None])
        steep = tl.where(valid[None, :], steep, 0.0)
        answer += tl.dot(steep.to(keys.dtype), keys, input_precision=PRECISION)

    answer *= factor
    channel = tl.arange(0, WIDTH_QK)
    inside = real[:, None] & (channel < width_qk)[None, :]
    if PARTS:
        stats = (part * batch_heads + batch_head).to(tl.int64) * rows + row
        tl.store(dq + (stats * width_qk)[:, None] + channel[None, :], answer, mask=inside)
    else:
        place = dq + b * dq_b + h * dq_h + (row.to(tl.int64) * dq_n)[:, None] + channel[None, :]
        tl.store(place, answer.to(dq.dtype.element_ty), mask=inside)


@triton.jit
def biased_backward_keys(
    q, k, v, keep, bias, stat, delta, grad, dk, dv,
    batch_heads, heads, rows, cols, width_qk, width_v, part_rows, factor,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p, grad_b, grad_h, grad_n,
    dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    PARTS: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """Dk and dv of one block of keys over one part of the queries; with PARTS [S, B H, P, D or E] float32."""
    blocks = tl.cdiv(cols, COLS)
    program = tl.program_id(0)
    block = program % blocks
    batch_head = (program // blocks) % batch_heads
    part = program // (blocks * batch_heads)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)

    col = block * COLS + tl.arange(0, COLS)
    exists = col < cols
    valid = exists
    if MASKED:
        valid = valid & (tl.load(keep + b * keep_b + col, mask=exists, other=0) != 0)
    keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
    values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
    along = col.to(tl.int64) * bias_p
    found_dk = tl.zeros([COLS, WIDTH_QK], tl.float32)
    found_dv = tl.zeros([COLS, WIDTH_V], tl.float32)
    first = part * part_rows
    last = tl.minimum(first + part_rows, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < last
        both = valid[:, None] & real[None, :]
        stats = batch_head.to(tl.int64) * rows + row
        queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, row, real, grad_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * (factor * 1.4426950408889634)
        if BIASED:
            place = bias + b * bias_b + h * bias_h + along[:, None] + (row.to(tl.int64) * bias_n)[None, :]
            more = tl.load(place, mask=both, other=0.0).to(tl.float32)
            score += more * 1.4426950408889634
        level = tl.load(stat + stats, mask=real, other=0.0)
        balance = tl.load(delta + stats, mask=real, other=0.0)
        steep = tl.dot(values, tl.trans(above), input_precision=PRECISION)
        found = tl.where(both, tl.exp2(score - level[None, :]), 0.0)
        steep = tl.where(both, found * (steep - balance[None, :]), 0.0)
        found_dv += tl.dot(found.to(above.dtype), above, input_precision=PRECISION)
        found_dk += tl.dot(steep.to(queries.dtype), queries, input_precision=PRECISION)

    found_dk *= factor
    channel_qk = tl.arange(0, WIDTH_QK)
    channel_v = tl.arange(0, WIDTH_V)
    inside_qk = exists[:, None] & (channel_qk < width_qk)[None, :]
    inside_v = exists[:, None] & (channel_v < width_v)[None, :]
    if PARTS:
        place = (part * batch_heads + batch_head).to(tl.int64) * cols + col
        tl.store(dk + (place * width_qk)[:, None] + channel_qk[None, :], found_dk, mask=inside_qk)
        tl.store(dv + (place * width_v)[:, None] + channel_v[None, :], found_dv, mask=inside_v)
    else:
        wide = col.to(tl.int64)
        place = dk + b * dk_b + h * dk_h + (wide * dk_n)[:, None] + channel_qk[None, :]
        tl.store(place, found_dk.to(dk.dtype.element_ty), mask=inside_qk)
        place = dv + b * dv_b + h * dv_h + (wide * dv_n)[:, None] + channel_v[None, :]
        tl.store(place, found_dv.to(dv.dtype.element_ty), mask=inside_v)


@triton.jit
def biased_backward_bias(
    q, k, v, keep, bias, stat, delta, grad, dbias,
    heads, rows, cols, width_qk, width_v, factor, bias_batch, bias_heads, shared_batch, shared_heads,
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
        more = tl.load(bias + b * bias_b + h * bias_h + along, mask=both, other=0.0).to(tl.float32)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (factor * 1.4426950408889634)
        score += more * 1.4426950408889634
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION)
        answer += tl.where(both, tl.exp2(score - level[:, None]) * (steep - balance[:, None]), 0.0)
    place = dbias + first_b.to(tl.int64) * dbias_b + first_h.to(tl.int64) * dbias_h
    place += (row.to(tl.int64) * dbias_n)[:, None] + (col.to(tl.int64) * dbias_p)[None, :]
    tl.store(place, answer.to(dbias.dtype.element_ty), mask=real[:, None] & exists[None, :])

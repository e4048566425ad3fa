"""Backward of attention in two kernels: one over queries (dQ, and the gate), one over keys (dK, dV).

No product has the transpose of another product's result as an operand: Triton 3.4 and later miscompile that on Hopper
(flash-linear-attention issues 640 and 1262). Over keys the scores are computed transposed, S^T = K Q^T; over queries
they are computed again as S = Q K^T. Sums over the other side are stored in parts, without atomics: deterministic.
"""

import triton
import triton.language as tl

from petground.kernels._triton.maths import load_tile, slope, tanh, weight, with_bias

__all__ = ["attention_backward_keys", "attention_backward_queries"]


@triton.jit(do_not_specialize=["batch_heads", "heads"])
def attention_backward_queries(
    q, k, v, keep, bias, scale, stat, delta, grad, x, inner, dx, dq,
    batch_heads, heads, rows, cols, width_qk, width_v, part_cols, shift,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p,
    grad_b, grad_h, grad_n, grad_e, x_b, x_h, x_n, x_e, dx_b, dx_h, dx_n, dx_e, dq_b, dq_h, dq_n,
    ACTIVATION: tl.constexpr, GATE: tl.constexpr, PARTS: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head, over one part of the keys.

    Reads stat [B H, N] and, without a gate, delta [B H, N] = sum_e grad * out (softmax only). With a gate the answer a
    is computed again, and written: dx [B, H, N, E], inner [B H, N, E] = d loss / d a, and delta.
    With PARTS dq is [S, B H, N, D] float32 and lacks the factor of the scores; without it is the gradient.
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
    stats = batch_head.to(tl.int64) * rows + row
    queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
    raw = tl.load(scale + h)
    factor = raw
    if ACTIVATION == "softmax":
        factor = raw * 1.4426950408889634
        level = tl.load(stat + stats, mask=real, other=0.0)
    channel = tl.arange(0, WIDTH_V)
    inside = real[:, None] & (channel < width_v)[None, :]
    place = grad + b * grad_b + h * grad_h + (row.to(tl.int64) * grad_n)[:, None]
    above = tl.load(place + (channel.to(tl.int64) * grad_e)[None, :], mask=inside, other=0.0)
    if UPCAST:
        above = above.to(tl.float32)
    first = part * part_cols
    last = tl.minimum(first + part_cols, cols)

    if GATE > 0:
        answer = tl.zeros([ROWS, WIDTH_V], tl.float32)
        for start in range(first, last, COLS):
            col = start + tl.arange(0, COLS)
            valid = col < last
            if MASKED:
                valid = valid & (tl.load(keep + b * keep_b + col, mask=valid, other=0) != 0)
            keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
            values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
            score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
            if BIASED:
                places = bias + b * bias_b + h * bias_h + (row.to(tl.int64) * bias_n)[:, None]
                places += (col.to(tl.int64) * bias_p)[None, :]
                score = with_bias(score, places, real[:, None] & valid[None, :], ACTIVATION)
            if ACTIVATION == "softmax":
                found = tl.where(valid[None, :], tl.exp2(score - level[:, None]), 0.0)
            else:
                found = tl.where(valid[None, :], weight(score + shift, ACTIVATION), 0.0)
            answer += tl.dot(found.to(values.dtype), values, input_precision=PRECISION)
        places = b * x_b + h * x_h + (row.to(tl.int64) * x_n)[:, None] + (channel.to(tl.int64) * x_e)[None, :]
        gated = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
        given = above.to(tl.float32)
        t = tanh(answer)
        places = b * dx_b + h * dx_h + (row.to(tl.int64) * dx_n)[:, None] + (channel.to(tl.int64) * dx_e)[None, :]
        if GATE == 1:
            tl.store(dx + places, (given * t).to(dx.dtype.element_ty), mask=inside)
            given = given * gated * (1.0 - t * t)
        else:
            tl.store(dx + places, (given * (1.0 + t)).to(dx.dtype.element_ty), mask=inside)
            given = given * (gated * (1.0 - t * t) + 1.0)
        above = given.to(queries.dtype)
        tl.store(inner + (stats * width_v)[:, None] + channel[None, :], above.to(inner.dtype.element_ty), mask=inside)
        if ACTIVATION == "softmax":
            balance = tl.sum(above.to(tl.float32) * answer, 1)
            tl.store(delta + stats, balance, mask=real)
    elif ACTIVATION == "softmax":
        balance = tl.load(delta + stats, mask=real, other=0.0)

    found_dq = tl.zeros([ROWS, WIDTH_QK], tl.float32)
    for start in range(first, last, COLS):
        col = start + tl.arange(0, COLS)
        valid = col < last
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + col, mask=valid, other=0) != 0)
        keys = load_tile(k + b * k_b + h * k_h, col, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, col, valid, v_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
        if BIASED:
            places = bias + b * bias_b + h * bias_h + (row.to(tl.int64) * bias_n)[:, None]
            places += (col.to(tl.int64) * bias_p)[None, :]
            score = with_bias(score, places, real[:, None] & valid[None, :], ACTIVATION)
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION)
        if ACTIVATION == "softmax":
            steep = tl.exp2(score - level[:, None]) * (steep - balance[:, None])
        else:
            found = weight(score + shift, ACTIVATION)
            steep = steep * slope(score + shift, found, ACTIVATION)
        steep = tl.where(valid[None, :], steep, 0.0)
        found_dq += tl.dot(steep.to(keys.dtype), keys, input_precision=PRECISION)

    channel = tl.arange(0, WIDTH_QK)
    inside = real[:, None] & (channel < width_qk)[None, :]
    if PARTS:
        stats = (part * batch_heads + batch_head).to(tl.int64) * rows + row
        tl.store(dq + (stats * width_qk)[:, None] + channel[None, :], found_dq, mask=inside)
    else:
        place = dq + b * dq_b + h * dq_h + (row.to(tl.int64) * dq_n)[:, None] + channel[None, :]
        tl.store(place, (found_dq * raw).to(dq.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["batch_heads", "heads"])
def attention_backward_keys(
    q, k, v, keep, bias, scale, stat, delta, grad, dk, dv,
    batch_heads, heads, rows, cols, width_qk, width_v, part_rows, shift,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p,
    grad_b, grad_h, grad_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    ACTIVATION: tl.constexpr, PARTS: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of keys of one head, over one part of the queries; grad is d loss / d answer, unit stride along E.

    With PARTS dk [S, B H, P, D] and dv [S, B H, P, E] are float32 sums of each part, dk without the factor of the
    scores; without they are the gradients.
    """
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
    raw = tl.load(scale + h)
    factor = raw
    if ACTIVATION == "softmax":
        factor = raw * 1.4426950408889634
    found_dk = tl.zeros([COLS, WIDTH_QK], tl.float32)
    found_dv = tl.zeros([COLS, WIDTH_V], tl.float32)
    first = part * part_rows
    last = tl.minimum(first + part_rows, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < last
        queries = load_tile(q + b * q_b + h * q_h, row, real, q_n, width_qk, WIDTH_QK, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, row, real, grad_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * factor
        both = valid[:, None] & real[None, :]
        if BIASED:
            places = bias + b * bias_b + h * bias_h + (col.to(tl.int64) * bias_p)[:, None]
            places += (row.to(tl.int64) * bias_n)[None, :]
            score = with_bias(score, places, both, ACTIVATION)
        steep = tl.dot(values, tl.trans(above), input_precision=PRECISION)
        if ACTIVATION == "softmax":
            stats = batch_head.to(tl.int64) * rows + row
            level = tl.load(stat + stats, mask=real, other=0.0)
            balance = tl.load(delta + stats, mask=real, other=0.0)
            found = tl.exp2(score - level[None, :])
            steep = found * (steep - balance[None, :])
        else:
            found = weight(score + shift, ACTIVATION)
            steep = steep * slope(score + shift, found, ACTIVATION)
        found = tl.where(both, found, 0.0)
        steep = tl.where(both, steep, 0.0)
        found_dv += tl.dot(found.to(above.dtype), above, input_precision=PRECISION)
        found_dk += tl.dot(steep.to(queries.dtype), queries, input_precision=PRECISION)

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
        tl.store(place, (found_dk * raw).to(dk.dtype.element_ty), mask=inside_qk)
        place = dv + b * dv_b + h * dv_h + (wide * dv_n)[:, None] + channel_v[None, :]
        tl.store(place, found_dv.to(dv.dtype.element_ty), mask=inside_v)

"""Forward of attention, for operators with many queries and few keys and for those with few queries and many keys."""

import triton
import triton.language as tl

from petground.kernels._triton.maths import load_tile, tanh, weight, with_bias

__all__ = ["attention_forward"]


@triton.jit(do_not_specialize=["batch_heads", "heads"])
def attention_forward(
    q, k, v, keep, bias, scale, x, out, stat, total,
    batch_heads, heads, rows, cols, width_qk, width_v, part_cols, shift,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, bias_b, bias_h, bias_n, bias_p,
    x_b, x_h, x_n, x_e, out_b, out_h, out_n, out_e,
    ACTIVATION: tl.constexpr, GATE: tl.constexpr, PARTS: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head against one part of the keys; bias [B, H, N, P] is added to the scores.

    Without PARTS (one part): out [B, H, N, E] = sum_j w_j v_j, gated by x where GATE is not 0, and for softmax
    stat [B H, N] = log2-sum-exp of the scores (0 where there is no key). With PARTS: out [S, B H, N, E], stat and
    total [S, B H, N] are the values, the largest score (in units of log 2) and the sum of each part, in float32.
    GATE: 1 x tanh(a), 2 x (1 + tanh(a)) + a.
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
    factor = tl.load(scale + h)
    if ACTIVATION == "softmax":
        factor *= 1.4426950408889634  # exp2 is what the hardware has
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
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
        if BIASED:
            places = bias + b * bias_b + h * bias_h + (row.to(tl.int64) * bias_n)[:, None]
            places += (col.to(tl.int64) * bias_p)[None, :]
            score = with_bias(score, places, real[:, None] & valid[None, :], ACTIVATION)
        if ACTIVATION == "softmax":
            score = tl.where(valid[None, :], score, float("-inf"))
            higher = tl.maximum(peak, tl.max(score, 1))
            level = tl.where(higher == float("-inf"), 0.0, higher)  # no key yet: exp2(-inf - 0) is 0, not NaN
            found = tl.exp2(score - level[:, None])
            shrink = tl.exp2(peak - level)
            mass = mass * shrink + tl.sum(found, 1)
            answer = answer * shrink[:, None]
            peak = higher
        else:
            found = tl.where(valid[None, :], weight(score + shift, ACTIVATION), 0.0)
        answer += tl.dot(found.to(values.dtype), values, input_precision=PRECISION)

    channel = tl.arange(0, WIDTH_V)
    inside = real[:, None] & (channel < width_v)[None, :]
    stats = (part * batch_heads + batch_head).to(tl.int64) * rows + row
    if PARTS:
        if ACTIVATION == "softmax":
            tl.store(stat + stats, peak, mask=real)
            tl.store(total + stats, mass, mask=real)
        tl.store(out + (stats * width_v)[:, None] + channel[None, :], answer, mask=inside)
    else:
        if ACTIVATION == "softmax":
            some = mass > 0.0
            safe = tl.where(some, mass, 1.0)
            answer = answer / safe[:, None]
            tl.store(stat + stats, tl.where(some, peak + tl.log2(safe), 0.0), mask=real)
        if GATE > 0:
            place = x + b * x_b + h * x_h + (row.to(tl.int64) * x_n)[:, None] + (channel.to(tl.int64) * x_e)[None, :]
            gated = tl.load(place, mask=inside, other=0.0).to(tl.float32)
            if GATE == 1:
                answer = gated * tanh(answer)
            else:
                answer = gated * (1.0 + tanh(answer)) + answer
        place = out + b * out_b + h * out_h + (row.to(tl.int64) * out_n)[:, None]
        tl.store(place + (channel.to(tl.int64) * out_e)[None, :], answer.to(out.dtype.element_ty), mask=inside)

"""Backward of attention over windows and neighbourhoods: over queries (dQ), over keys (dK, dV), over pairs (dB).

No product has the transpose of another product's result as an operand (see `attention_backward`): over keys the scores
are computed transposed, S^T = K Q^T. Every number is finished by one program, or is a sum of parts: no atomics.
"""

import triton
import triton.language as tl

from petground.kernels._triton.boxes import keys_of, place_in, queries_of, start_of, steps_inside, tile_at
from petground.kernels._triton.maths import load_tile

__all__ = ["window_attention_backward_keys", "window_attention_backward_queries"]


@triton.jit
def window_attention_backward_queries(
    q, k, v, keep, bias, scale, grad, out, stat, delta, dq,
    heads, width_qk, width_v, blocks, bias_h,
    size_z, size_y, size_x, tile_z, tile_y, tile_x, tiles_z, tiles_y, tiles_x,
    window_z, window_y, window_x, span_z, span_y, span_x, back_z, back_y, back_x,
    step_z, step_y, step_x, origin_z, origin_y, origin_x, reach_z, reach_y, reach_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, grad_b, grad_h, grad_n, out_b, out_h, out_n, dq_b, dq_h, dq_n,
    KIND: tl.constexpr, CHECK: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of the queries of one tile of one head: dq [B, H, N, D], and delta [B H, N] = sum_e grad * out."""
    program = tl.program_id(0)
    batch_head, pz, py, px, tz, ty, tx = tile_at(program // blocks, tiles_z, tiles_y, tiles_x, step_z, step_y, step_x)
    low_z, high_z, low_y, high_y, low_x, high_x = steps_inside(
        size_z, size_y, size_x, step_z, step_y, step_x, origin_z, origin_y, origin_x, pz, py, px
    )
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)

    row = program % blocks * ROWS + tl.arange(0, ROWS)
    uz, uy, ux = place_in(row, tile_y, tile_x)
    uz += tz * tile_z
    uy += ty * tile_y
    ux += tx * tile_x
    real = (row < tile_z * tile_y * tile_x) & (uz >= low_z) & (uz < high_z)
    real = real & (uy >= low_y) & (uy < high_y) & (ux >= low_x) & (ux < high_x)
    voxel = (
        ((uz * step_z + pz - origin_z) * size_y + uy * step_y + py - origin_y) * size_x + ux * step_x + px - origin_x
    )
    queries = load_tile(q + b * q_b + h * q_h, voxel, real, q_n, width_qk, WIDTH_QK, UPCAST)
    above = load_tile(grad + b * grad_b + h * grad_h, voxel, real, grad_n, width_v, WIDTH_V, UPCAST)
    answer = load_tile(out + b * out_b + h * out_h, voxel, real, out_n, width_v, WIDTH_V, UPCAST)
    statistics = batch_head.to(tl.int64) * size_z * size_y * size_x
    level = tl.load(stat + statistics + voxel, mask=real, other=0.0)
    balance = tl.sum(above.to(tl.float32) * answer.to(tl.float32), 1)
    tl.store(delta + statistics + voxel, balance, mask=real)
    raw = tl.load(scale + h)
    entries_y = 2 * reach_y + 1
    entries_x = 2 * reach_x + 1
    if BIASED:
        entry = ((uz + reach_z) * entries_y + uy + reach_y) * entries_x + ux + reach_x
    if CHECK:
        start_z = start_of(uz, high_z, window_z, back_z, span_z, KIND)
        start_y = start_of(uy, high_y, window_y, back_y, span_y, KIND)
        start_x = start_of(ux, high_x, window_x, back_x, span_x, KIND)

    first_z, count_z = keys_of(tz * tile_z, tile_z, low_z, high_z, window_z, back_z, span_z, KIND)
    first_y, count_y = keys_of(ty * tile_y, tile_y, low_y, high_y, window_y, back_y, span_y, KIND)
    first_x, count_x = keys_of(tx * tile_x, tile_x, low_x, high_x, window_x, back_x, span_x, KIND)
    total = count_z * count_y * count_x
    found_dq = tl.zeros([ROWS, WIDTH_QK], tl.float32)
    for start in range(0, total, COLS):
        col = start + tl.arange(0, COLS)
        valid = col < total
        wz, wy, wx = place_in(col, count_y, count_x)
        wz += first_z
        wy += first_y
        wx += first_x
        other = ((wz * step_z + pz - origin_z) * size_y + wy * step_y + py - origin_y) * size_x
        other += wx * step_x + px - origin_x
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + other, mask=valid, other=0) != 0)
        keys = load_tile(k + b * k_b + h * k_h, other, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, other, valid, v_n, width_v, WIDTH_V, UPCAST)
        seen = real[:, None] & valid[None, :]
        if CHECK:
            dz = wz[None, :] - start_z[:, None]
            dy = wy[None, :] - start_y[:, None]
            dx = wx[None, :] - start_x[:, None]
            seen = seen & (dz >= 0) & (dz < span_z) & (dy >= 0) & (dy < span_y) & (dx >= 0) & (dx < span_x)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (raw * 1.4426950408889634)
        if BIASED:
            places = entry[:, None] - ((wz * entries_y + wy) * entries_x + wx)[None, :]
            score += tl.load(bias + h * bias_h + places, mask=seen, other=0.0).to(tl.float32) * 1.4426950408889634
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION) - balance[:, None]
        steep = tl.where(seen, tl.exp2(score - level[:, None]) * steep, 0.0)
        found_dq += tl.dot(steep.to(keys.dtype), keys, input_precision=PRECISION)

    channel = tl.arange(0, WIDTH_QK)
    place = dq + b * dq_b + h * dq_h + (voxel.to(tl.int64) * dq_n)[:, None] + channel[None, :]
    tl.store(place, (found_dq * raw).to(dq.dtype.element_ty), mask=real[:, None] & (channel < width_qk)[None, :])


@triton.jit
def window_attention_backward_keys(
    q, k, v, keep, bias, scale, grad, stat, delta, dk, dv,
    heads, width_qk, width_v, blocks, bias_h,
    size_z, size_y, size_x, tile_z, tile_y, tile_x, tiles_z, tiles_y, tiles_x,
    window_z, window_y, window_x, span_z, span_y, span_x, back_z, back_y, back_x,
    step_z, step_y, step_x, origin_z, origin_y, origin_x, reach_z, reach_y, reach_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, grad_b, grad_h, grad_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    KIND: tl.constexpr, CHECK: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of the keys of one tile of one head: dk [B, H, N, D], dv [B, H, N, E], from all queries that see it."""
    program = tl.program_id(0)
    batch_head, pz, py, px, tz, ty, tx = tile_at(program // blocks, tiles_z, tiles_y, tiles_x, step_z, step_y, step_x)
    low_z, high_z, low_y, high_y, low_x, high_x = steps_inside(
        size_z, size_y, size_x, step_z, step_y, step_x, origin_z, origin_y, origin_x, pz, py, px
    )
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)

    col = program % blocks * COLS + tl.arange(0, COLS)
    wz, wy, wx = place_in(col, tile_y, tile_x)
    wz += tz * tile_z
    wy += ty * tile_y
    wx += tx * tile_x
    exists = (col < tile_z * tile_y * tile_x) & (wz >= low_z) & (wz < high_z)
    exists = exists & (wy >= low_y) & (wy < high_y) & (wx >= low_x) & (wx < high_x)
    other = (
        ((wz * step_z + pz - origin_z) * size_y + wy * step_y + py - origin_y) * size_x + wx * step_x + px - origin_x
    )
    valid = exists
    if MASKED:
        valid = valid & (tl.load(keep + b * keep_b + other, mask=exists, other=0) != 0)
    keys = load_tile(k + b * k_b + h * k_h, other, valid, k_n, width_qk, WIDTH_QK, UPCAST)
    values = load_tile(v + b * v_b + h * v_h, other, valid, v_n, width_v, WIDTH_V, UPCAST)
    raw = tl.load(scale + h)
    entries_y = 2 * reach_y + 1
    entries_x = 2 * reach_x + 1
    if BIASED:
        entry = (wz * entries_y + wy) * entries_x + wx
    statistics = batch_head.to(tl.int64) * size_z * size_y * size_x

    first_z, count_z = queries_of(tz * tile_z, tile_z, low_z, high_z, window_z, back_z, span_z, KIND)
    first_y, count_y = queries_of(ty * tile_y, tile_y, low_y, high_y, window_y, back_y, span_y, KIND)
    first_x, count_x = queries_of(tx * tile_x, tile_x, low_x, high_x, window_x, back_x, span_x, KIND)
    total = count_z * count_y * count_x
    found_dk = tl.zeros([COLS, WIDTH_QK], tl.float32)
    found_dv = tl.zeros([COLS, WIDTH_V], tl.float32)
    for start in range(0, total, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < total
        uz, uy, ux = place_in(row, count_y, count_x)
        uz += first_z
        uy += first_y
        ux += first_x
        voxel = ((uz * step_z + pz - origin_z) * size_y + uy * step_y + py - origin_y) * size_x
        voxel += ux * step_x + px - origin_x
        queries = load_tile(q + b * q_b + h * q_h, voxel, real, q_n, width_qk, WIDTH_QK, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, voxel, real, grad_n, width_v, WIDTH_V, UPCAST)
        level = tl.load(stat + statistics + voxel, mask=real, other=0.0)
        balance = tl.load(delta + statistics + voxel, mask=real, other=0.0)
        seen = valid[:, None] & real[None, :]
        if CHECK:
            dz = wz[:, None] - start_of(uz, high_z, window_z, back_z, span_z, KIND)[None, :]
            dy = wy[:, None] - start_of(uy, high_y, window_y, back_y, span_y, KIND)[None, :]
            dx = wx[:, None] - start_of(ux, high_x, window_x, back_x, span_x, KIND)[None, :]
            seen = seen & (dz >= 0) & (dz < span_z) & (dy >= 0) & (dy < span_y) & (dx >= 0) & (dx < span_x)
        score = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * (raw * 1.4426950408889634)
        if BIASED:
            places = (((uz + reach_z) * entries_y + uy + reach_y) * entries_x + ux + reach_x)[None, :] - entry[:, None]
            score += tl.load(bias + h * bias_h + places, mask=seen, other=0.0).to(tl.float32) * 1.4426950408889634
        steep = tl.dot(values, tl.trans(above), input_precision=PRECISION) - balance[None, :]
        found = tl.where(seen, tl.exp2(score - level[None, :]), 0.0)
        steep = found * steep
        found_dv += tl.dot(found.to(above.dtype), above, input_precision=PRECISION)
        found_dk += tl.dot(steep.to(queries.dtype), queries, input_precision=PRECISION)

    channel_qk = tl.arange(0, WIDTH_QK)
    channel_v = tl.arange(0, WIDTH_V)
    wide = other.to(tl.int64)
    place = dk + b * dk_b + h * dk_h + (wide * dk_n)[:, None] + channel_qk[None, :]
    tl.store(place, (found_dk * raw).to(dk.dtype.element_ty), mask=exists[:, None] & (channel_qk < width_qk)[None, :])
    place = dv + b * dv_b + h * dv_h + (wide * dv_n)[:, None] + channel_v[None, :]
    tl.store(place, found_dv.to(dv.dtype.element_ty), mask=exists[:, None] & (channel_v < width_v)[None, :])

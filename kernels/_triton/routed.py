"""Attention of each region of a grid to the regions of its list: keys are read where they lie, nothing is gathered.

No product has the transpose of another product's result as an operand (see `attention_backward`): over keys the scores
are computed transposed, S^T = K Q^T. Every number is finished by one program: no atomics.
"""

import triton
import triton.language as tl

from petground.kernels._triton.boxes import place_in
from petground.kernels._triton.maths import load_tile

__all__ = ["routed_attention_backward_keys", "routed_attention_backward_queries", "routed_attention_forward"]


@triton.jit
def _voxel(region, within, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x):
    """(voxel, whether the grid has it) of places within regions; both numbers in C order."""
    z, y, x = place_in(region, count_y, count_x)
    inner_z, inner_y, inner_x = place_in(within, region_y, region_x)
    z = z * region_z + inner_z
    y = y * region_y + inner_y
    x = x * region_x + inner_x
    return (z * size_y + y) * size_x + x, (z < size_z) & (y < size_y) & (x < size_x)


@triton.jit
def _listed(start, each, BLOCK: tl.constexpr):
    """Numbers start, start + 1, ... of places in regions of `each` -> (which of the list, place within it)."""
    first = start // each
    place = start - first * each + tl.arange(0, BLOCK)
    more = ((place.to(tl.float32) + 0.5) * (1.0 / (each * 1.0))).to(tl.int32)
    return first + more, place - more * each


@triton.jit
def routed_attention_forward(
    q, k, v, keep, scale, table, out, stat,
    heads, width_qk, width_v, blocks, regions, top, table_b, table_h,
    region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, out_b, out_h, out_n,
    MASKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of the queries of one region of one head, against the `top` regions of its list.

    table [B, H or 1, regions, top] int32, entries outside 0 .. regions - 1 empty; out [B, H, N, E]; stat [B H, N] =
    log2-sum-exp of the scores (0 without keys).
    """
    program = tl.program_id(0)
    own = program // blocks % regions
    batch_head = program // (blocks * regions)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)
    each = region_z * region_y * region_x

    row = program % blocks * ROWS + tl.arange(0, ROWS)
    voxel, inside = _voxel(own, row, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x)
    real = (row < each) & inside
    queries = load_tile(q + b * q_b + h * q_h, voxel, real, q_n, width_qk, WIDTH_QK, UPCAST)
    factor = tl.load(scale + h) * 1.4426950408889634  # exp2 is what the hardware has
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    answer = tl.zeros([ROWS, WIDTH_V], tl.float32)
    chosen = table + b * table_b + h * table_h + own * top
    for start in range(0, top * each, COLS):
        number, within = _listed(start, each, COLS)
        region = tl.load(chosen + number, mask=number < top, other=-1)
        valid = (region >= 0) & (region < regions)
        other, there = _voxel(region, within, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x)
        valid = valid & there
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + other, mask=valid, other=0) != 0)
        keys = load_tile(k + b * k_b + h * k_h, other, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, other, valid, v_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
        score = tl.where(valid[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)  # no key yet: exp2(-inf - 0) is 0, not NaN
        found = tl.exp2(score - level[:, None])
        shrink = tl.exp2(peak - level)
        mass = mass * shrink + tl.sum(found, 1)
        answer = answer * shrink[:, None]
        peak = higher
        answer += tl.dot(found.to(values.dtype), values, input_precision=PRECISION)

    some = mass > 0.0
    safe = tl.where(some, mass, 1.0)
    answer = answer / safe[:, None]
    statistics = batch_head.to(tl.int64) * size_z * size_y * size_x
    tl.store(stat + statistics + voxel, tl.where(some, peak + tl.log2(safe), 0.0), mask=real)
    channel = tl.arange(0, WIDTH_V)
    place = out + b * out_b + h * out_h + (voxel.to(tl.int64) * out_n)[:, None] + channel[None, :]
    tl.store(place, answer.to(out.dtype.element_ty), mask=real[:, None] & (channel < width_v)[None, :])


@triton.jit
def routed_attention_backward_queries(
    q, k, v, keep, scale, table, grad, out, stat, delta, dq,
    heads, width_qk, width_v, blocks, regions, top, table_b, table_h,
    region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, grad_b, grad_h, grad_n, out_b, out_h, out_n, dq_b, dq_h, dq_n,
    MASKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of the queries of one region of one head: dq [B, H, N, D], and delta [B H, N] = sum_e grad * out."""
    program = tl.program_id(0)
    own = program // blocks % regions
    batch_head = program // (blocks * regions)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)
    each = region_z * region_y * region_x

    row = program % blocks * ROWS + tl.arange(0, ROWS)
    voxel, inside = _voxel(own, row, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x)
    real = (row < each) & inside
    queries = load_tile(q + b * q_b + h * q_h, voxel, real, q_n, width_qk, WIDTH_QK, UPCAST)
    above = load_tile(grad + b * grad_b + h * grad_h, voxel, real, grad_n, width_v, WIDTH_V, UPCAST)
    answer = load_tile(out + b * out_b + h * out_h, voxel, real, out_n, width_v, WIDTH_V, UPCAST)
    statistics = batch_head.to(tl.int64) * size_z * size_y * size_x
    level = tl.load(stat + statistics + voxel, mask=real, other=0.0)
    balance = tl.sum(above.to(tl.float32) * answer.to(tl.float32), 1)
    tl.store(delta + statistics + voxel, balance, mask=real)
    raw = tl.load(scale + h)
    found_dq = tl.zeros([ROWS, WIDTH_QK], tl.float32)
    chosen = table + b * table_b + h * table_h + own * top
    for start in range(0, top * each, COLS):
        number, within = _listed(start, each, COLS)
        region = tl.load(chosen + number, mask=number < top, other=-1)
        valid = (region >= 0) & (region < regions)
        other, there = _voxel(region, within, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x)
        valid = valid & there
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + other, mask=valid, other=0) != 0)
        keys = load_tile(k + b * k_b + h * k_h, other, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, other, valid, v_n, width_v, WIDTH_V, UPCAST)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (raw * 1.4426950408889634)
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION) - balance[:, None]
        steep = tl.where(valid[None, :], tl.exp2(score - level[:, None]) * steep, 0.0)
        found_dq += tl.dot(steep.to(keys.dtype), keys, input_precision=PRECISION)

    channel = tl.arange(0, WIDTH_QK)
    place = dq + b * dq_b + h * dq_h + (voxel.to(tl.int64) * dq_n)[:, None] + channel[None, :]
    tl.store(place, (found_dq * raw).to(dq.dtype.element_ty), mask=real[:, None] & (channel < width_qk)[None, :])


@triton.jit
def routed_attention_backward_keys(
    q, k, v, keep, scale, askers, starts, grad, stat, delta, dk, dv,
    heads, width_qk, width_v, blocks, regions, askers_b, askers_h, starts_b, starts_h,
    region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, grad_b, grad_h, grad_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    MASKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of the keys of one region of one head: dk [B, H, N, D], dv [B, H, N, E], from the regions that list it.

    The regions that list region r are askers[starts[r] : starts[r + 1]], int32.
    """
    program = tl.program_id(0)
    own = program // blocks % regions
    batch_head = program // (blocks * regions)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)
    each = region_z * region_y * region_x

    col = program % blocks * COLS + tl.arange(0, COLS)
    other, inside = _voxel(own, col, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x)
    exists = (col < each) & inside
    valid = exists
    if MASKED:
        valid = valid & (tl.load(keep + b * keep_b + other, mask=exists, other=0) != 0)
    keys = load_tile(k + b * k_b + h * k_h, other, valid, k_n, width_qk, WIDTH_QK, UPCAST)
    values = load_tile(v + b * v_b + h * v_h, other, valid, v_n, width_v, WIDTH_V, UPCAST)
    raw = tl.load(scale + h)
    statistics = batch_head.to(tl.int64) * size_z * size_y * size_x
    first = tl.load(starts + b * starts_b + h * starts_h + own)
    count = tl.load(starts + b * starts_b + h * starts_h + own + 1) - first
    asking = askers + b * askers_b + h * askers_h + first
    found_dk = tl.zeros([COLS, WIDTH_QK], tl.float32)
    found_dv = tl.zeros([COLS, WIDTH_V], tl.float32)
    for start in range(0, count * each, ROWS):
        number, within = _listed(start, each, ROWS)
        region = tl.load(asking + number, mask=number < count, other=0)
        voxel, there = _voxel(region, within, region_z, region_y, region_x, count_y, count_x, size_z, size_y, size_x)
        real = (number < count) & there
        queries = load_tile(q + b * q_b + h * q_h, voxel, real, q_n, width_qk, WIDTH_QK, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, voxel, real, grad_n, width_v, WIDTH_V, UPCAST)
        level = tl.load(stat + statistics + voxel, mask=real, other=0.0)
        balance = tl.load(delta + statistics + voxel, mask=real, other=0.0)
        score = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * (raw * 1.4426950408889634)
        steep = tl.dot(values, tl.trans(above), input_precision=PRECISION) - balance[None, :]
        found = tl.where(valid[:, None] & real[None, :], tl.exp2(score - level[None, :]), 0.0)
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

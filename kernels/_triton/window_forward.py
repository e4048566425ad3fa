"""Forward of attention over windows and neighbourhoods of a grid: keys are read where they lie, nothing is gathered."""

import triton
import triton.language as tl

from petground.kernels._triton.boxes import keys_of, place_in, start_of, steps_inside, tile_at
from petground.kernels._triton.maths import load_tile

__all__ = ["window_attention_forward"]


@triton.jit
def window_attention_forward(
    q, k, v, keep, bias, scale, out, stat,
    heads, width_qk, width_v, blocks, bias_h,
    size_z, size_y, size_x, tile_z, tile_y, tile_x, tiles_z, tiles_y, tiles_x,
    window_z, window_y, window_x, span_z, span_y, span_x, back_z, back_y, back_x,
    step_z, step_y, step_x, origin_z, origin_y, origin_x, reach_z, reach_y, reach_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, out_b, out_h, out_n,
    KIND: tl.constexpr, CHECK: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One block of the queries of one tile of one head, against all keys that the tile sees.

    out [B, H, N, E] = softmax(scale q k^T + bias) v, stat [B H, N] = log2-sum-exp of the scores (0 without keys).
    CHECK: whether queries of one tile differ in what they see.
    """
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
    factor = tl.load(scale + h) * 1.4426950408889634  # exp2 is what the hardware has
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
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    answer = tl.zeros([ROWS, WIDTH_V], tl.float32)
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
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * factor
        if BIASED:
            places = entry[:, None] - ((wz * entries_y + wy) * entries_x + wx)[None, :]
            score += tl.load(bias + h * bias_h + places, mask=seen, other=0.0).to(tl.float32) * 1.4426950408889634
        score = tl.where(seen, score, float("-inf"))
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

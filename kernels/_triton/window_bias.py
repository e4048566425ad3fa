"""Gradient of the bias: each pair of places within a tile summed over all tiles, to be folded into offsets."""

import triton
import triton.language as tl

from petground.kernels._triton.boxes import place_in, start_of, steps_inside, tile_at
from petground.kernels._triton.maths import load_tile

__all__ = ["window_attention_backward_bias"]


@triton.jit
def window_attention_backward_bias(
    q, k, v, keep, bias, scale, grad, stat, delta, dpairs,
    heads, first_head, some_heads, width_qk, width_v, bias_h, items, part_items,
    size_z, size_y, size_x, tile_z, tile_y, tile_x, tiles_z, tiles_y, tiles_x,
    window_z, window_y, window_x, span_z, span_y, span_x, back_z, back_y, back_x,
    step_z, step_y, step_x, origin_z, origin_y, origin_x, reach_z, reach_y, reach_x,
    box_z, box_y, box_x, before_z, before_y, before_x,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, keep_b, grad_b, grad_h, grad_n,
    KIND: tl.constexpr, CHECK: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH_QK: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """Some rows by some columns of one head, over one part of the tiles: dpairs [S, heads, tile, box].

    These are d loss / d score. The box begins `before` steps before its tile: row and column keep their offset.
    """
    program = tl.program_id(0)
    rows = tile_z * tile_y * tile_x
    cols = box_z * box_y * box_x
    col_blocks = tl.cdiv(cols, COLS)
    row_blocks = tl.cdiv(rows, ROWS)
    row = program // col_blocks % row_blocks * ROWS + tl.arange(0, ROWS)
    col = program % col_blocks * COLS + tl.arange(0, COLS)
    head = program // (col_blocks * row_blocks) % some_heads
    part = program // (col_blocks * row_blocks * some_heads)
    h = (first_head + head).to(tl.int64)
    rz, ry, rx = place_in(row, tile_y, tile_x)
    cz, cy, cx = place_in(col, box_y, box_x)
    raw = tl.load(scale + h)
    inner = tl.zeros([ROWS, COLS], tl.float32)
    if BIASED:
        entries_y = 2 * reach_y + 1
        entries_x = 2 * reach_x + 1
        entry = ((rz + before_z + reach_z) * entries_y + ry + before_y + reach_y) * entries_x + rx + before_x + reach_x
        places = entry[:, None] - ((cz * entries_y + cy) * entries_x + cx)[None, :]
        # offsets beyond the table occur in the box, but not among pairs that see each other
        known = (places >= 0) & (places < (2 * reach_z + 1) * entries_y * entries_x)
        known = known & (row < rows)[:, None] & (col < cols)[None, :]
        inner = tl.load(bias + h * bias_h + places, mask=known, other=0.0).to(tl.float32) * 1.4426950408889634

    found = tl.zeros([ROWS, COLS], tl.float32)
    for item in range(part * part_items, tl.minimum((part + 1) * part_items, items)):
        batch, pz, py, px, tz, ty, tx = tile_at(item, tiles_z, tiles_y, tiles_x, step_z, step_y, step_x)
        b = batch.to(tl.int64)
        low_z, high_z, low_y, high_y, low_x, high_x = steps_inside(
            size_z, size_y, size_x, step_z, step_y, step_x, origin_z, origin_y, origin_x, pz, py, px
        )
        uz = rz + tz * tile_z
        uy = ry + ty * tile_y
        ux = rx + tx * tile_x
        real = (row < rows) & (uz >= low_z) & (uz < high_z) & (uy >= low_y) & (uy < high_y) & (ux >= low_x)
        real = real & (ux < high_x)
        wz = cz + tz * tile_z - before_z
        wy = cy + ty * tile_y - before_y
        wx = cx + tx * tile_x - before_x
        valid = (col < cols) & (wz >= low_z) & (wz < high_z) & (wy >= low_y) & (wy < high_y) & (wx >= low_x)
        valid = valid & (wx < high_x)
        voxel = ((uz * step_z + pz - origin_z) * size_y + uy * step_y + py - origin_y) * size_x
        voxel += ux * step_x + px - origin_x
        other = ((wz * step_z + pz - origin_z) * size_y + wy * step_y + py - origin_y) * size_x
        other += wx * step_x + px - origin_x
        if MASKED:
            valid = valid & (tl.load(keep + b * keep_b + other, mask=valid, other=0) != 0)
        queries = load_tile(q + b * q_b + h * q_h, voxel, real, q_n, width_qk, WIDTH_QK, UPCAST)
        above = load_tile(grad + b * grad_b + h * grad_h, voxel, real, grad_n, width_v, WIDTH_V, UPCAST)
        keys = load_tile(k + b * k_b + h * k_h, other, valid, k_n, width_qk, WIDTH_QK, UPCAST)
        values = load_tile(v + b * v_b + h * v_h, other, valid, v_n, width_v, WIDTH_V, UPCAST)
        statistics = (b * heads + h) * size_z * size_y * size_x
        level = tl.load(stat + statistics + voxel, mask=real, other=0.0)
        balance = tl.load(delta + statistics + voxel, mask=real, other=0.0)
        seen = real[:, None] & valid[None, :]
        if CHECK:
            dz = wz[None, :] - start_of(uz, high_z, window_z, back_z, span_z, KIND)[:, None]
            dy = wy[None, :] - start_of(uy, high_y, window_y, back_y, span_y, KIND)[:, None]
            dx = wx[None, :] - start_of(ux, high_x, window_x, back_x, span_x, KIND)[:, None]
            seen = seen & (dz >= 0) & (dz < span_z) & (dy >= 0) & (dy < span_y) & (dx >= 0) & (dx < span_x)
        score = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (raw * 1.4426950408889634) + inner
        steep = tl.dot(above, tl.trans(values), input_precision=PRECISION) - balance[:, None]
        found += tl.where(seen, tl.exp2(score - level[:, None]) * steep, 0.0)

    place = (part * some_heads + head).to(tl.int64) * rows + row
    inside = (row < rows)[:, None] & (col < cols)[None, :]
    tl.store(dpairs + (place * cols)[:, None] + col[None, :], found, mask=inside)

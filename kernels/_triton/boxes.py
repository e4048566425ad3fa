"""Boxes of voxels inside kernels: from a number to a place and back, and who sees whom along one axis.

The rule of a pattern is that of `petground.kernels.window_attention.pattern`, where its terms are explained.
"""

import triton
import triton.language as tl

__all__ = ["keys_of", "place_in", "queries_of", "start_of", "steps_inside", "tile_at"]


@triton.jit
def place_in(flat, size_y, size_x):
    """Number `flat` of a box in C order, a block of them from 0 to 2^20 -> (z, y, x).

    By reciprocals, since integer division is slow on GPUs; exact in this range.
    """
    rows = ((flat.to(tl.float32) + 0.5) * (1.0 / (size_x * 1.0))).to(tl.int32)
    z = ((rows.to(tl.float32) + 0.5) * (1.0 / (size_y * 1.0))).to(tl.int32)
    return z, rows - z * size_y, flat - rows * size_x


@triton.jit
def tile_at(number, tiles_z, tiles_y, tiles_x, step_z, step_y, step_x):
    """(batch and head, phase z, y, x, tile z, y, x) of a number that counts tiles of x fastest."""
    tile_x = number % tiles_x
    tile_y = number // tiles_x % tiles_y
    tile_z = number // (tiles_y * tiles_x) % tiles_z
    phases = number // (tiles_z * tiles_y * tiles_x)
    phase_z = phases // (step_y * step_x) % step_z
    rest = phases // (step_z * step_y * step_x)
    return rest, phase_z, phases // step_x % step_y, phases % step_x, tile_z, tile_y, tile_x


@triton.jit
def steps_inside(size_z, size_y, size_x, step_z, step_y, step_x, origin_z, origin_y, origin_x, pz, py, px):
    """[low, high) along z, y and x: the steps of a phase that lie in the grid."""
    low_z = tl.maximum(origin_z - pz + step_z - 1, 0) // step_z
    low_y = tl.maximum(origin_y - py + step_y - 1, 0) // step_y
    low_x = tl.maximum(origin_x - px + step_x - 1, 0) // step_x
    high_z = (size_z - 1 + origin_z - pz + step_z) // step_z
    high_y = (size_y - 1 + origin_y - py + step_y) // step_y
    high_x = (size_x - 1 + origin_x - px + step_x) // step_x
    return low_z, high_z, low_y, high_y, low_x, high_x


@triton.jit
def start_of(u, high, window, back, span, KIND: tl.constexpr):
    """The first key that each query of a block of steps u, from 0 to 2^20, sees."""
    if KIND == 0:
        start = ((u.to(tl.float32) + 0.5) * (1.0 / (window * 1.0))).to(tl.int32) * window - back
    elif KIND == 1:
        start = u - back
    else:
        start = tl.maximum(tl.minimum(u - back, high - span), 0)
    return start


@triton.jit
def keys_of(first, count, low, high, window, back, span, KIND: tl.constexpr):
    """(from, how many) of the keys that `count` queries from step `first` on see; none where these lie outside."""
    last = tl.minimum(first + count, high) - 1
    if KIND == 0:
        begin = first // window * window - back
        end = tl.maximum(last, 0) // window * window - back + span
    elif KIND == 1:
        begin = first - back
        end = last - back + span
    else:
        begin = tl.minimum(first - back, high - span)
        end = tl.maximum(tl.minimum(last - back, high - span), 0) + span
    begin = tl.maximum(begin, low)
    return begin, tl.where(last < tl.maximum(first, low), 0, tl.maximum(tl.minimum(end, high) - begin, 0))


@triton.jit
def queries_of(first, count, low, high, window, back, span, KIND: tl.constexpr):
    """(from, how many) of the queries that see one of `count` keys from step `first` on; none outside."""
    last = tl.minimum(first + count, high) - 1
    if KIND == 0:
        begin = tl.maximum(first - back, 0) // window * window
        end = ((tl.maximum(last, 0) + back) // window + 1) * window
    else:
        begin = first + back - span + 1
        end = last + back + 1
        if KIND == 2:
            begin = tl.where(first < span, 0, begin)
            end = tl.where(last >= high - span, high, end)
    begin = tl.maximum(begin, low)
    return begin, tl.where(last < tl.maximum(first, low), 0, tl.maximum(tl.minimum(end, high) - begin, 0))

"""Small functions inside kernels. Written out, since Triton's interpreter has no libdevice (tanh, log1p)."""

import triton
import triton.language as tl

__all__ = ["load_tile", "slope", "tanh", "weight", "with_bias"]


@triton.jit
def tanh(x):
    """Tanh of float32; near 0 by its series, where 2 sigmoid(2 x) - 1 would cancel."""
    square = x * x
    near = x * (1.0 - square * (0.33333334 - square * (0.13333334 - square * 0.05396825)))
    return tl.where(tl.abs(x) < 0.1, near, 2.0 * tl.sigmoid(2.0 * x) - 1.0)


@triton.jit
def weight(score, ACTIVATION: tl.constexpr):
    """Sigmoid or softplus of float32 scores; softplus(s) = max(s, 0) + log1p(exp(-|s|)), log1p by series near 0."""
    if ACTIVATION == "sigmoid":
        return tl.sigmoid(score)
    e = tl.exp(-tl.abs(score))
    series = e * (1.0 - e * (0.5 - e * (0.33333334 - e * 0.25)))
    return tl.maximum(score, 0.0) + tl.where(e < 0.03, series, tl.log(1.0 + e))


@triton.jit
def slope(score, found, ACTIVATION: tl.constexpr):
    """D weight / d score, `found` being the weight."""
    if ACTIVATION == "sigmoid":
        return found * (1.0 - found)
    return tl.sigmoid(score)


@triton.jit
def with_bias(score, places, inside, ACTIVATION: tl.constexpr):
    """Scores and what lies at `places` of a bias, 0 where not inside; softmax counts in units of log 2."""
    more = tl.load(places, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "softmax":
        more *= 1.4426950408889634
    return score + more


@triton.jit
def load_tile(base, rows, valid, stride, width, WIDTH: tl.constexpr, UPCAST: tl.constexpr):
    """Rows `rows` [R] int of a matrix with unit stride along its `width` columns -> [R, WIDTH], 0 where not valid.

    Row offsets are int64: a few million voxels times all channels pass 2^31.
    UPCAST: to float32 at once; the interpreter's bfloat16 products are silently wrong.
    """
    columns = tl.arange(0, WIDTH)
    inside = valid[:, None] & (columns < width)[None, :]
    tile = tl.load(base + (rows.to(tl.int64) * stride)[:, None] + columns[None, :], mask=inside, other=0.0)
    if UPCAST:
        tile = tile.to(tl.float32)
    return tile

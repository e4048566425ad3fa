"""Kernels that move and add up tokens. All are limited by memory; none uses atomics, so that sums are always the same.

Sums over groups: tokens are sorted by group (by PyTorch), each group is cut into pieces of LENGTH tokens, every piece
is added up by its own program, and pieces of one group are added in their order. One group of all tokens and many
groups of two thus take about as long.
"""

import triton
import triton.language as tl

__all__ = ["copy_rows", "merge_backward", "piece_sums", "sum_pieces", "sum_weights"]


@triton.jit
def copy_rows(
    source, places, out,
    rows, targets, width, source_b, source_n, source_c, places_b, places_n,
    SCATTER: tl.constexpr, ZEROS: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gather: out [B, rows, C] row n = source row places[n], zeros where that is negative.

    SCATTER: out [B, targets, C] row places[n] = source row n (ZEROS: zeros), nothing where that is negative.
    """
    blocks_c = tl.cdiv(width, BLOCK_C)
    blocks_n = tl.cdiv(rows, ROWS)
    program = tl.program_id(0)
    column = program % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    row = program // blocks_c % blocks_n * ROWS + tl.arange(0, ROWS)
    batch = (program // (blocks_c * blocks_n)).to(tl.int64)
    real = row < rows
    place = tl.load(places + batch * places_b + row.to(tl.int64) * places_n, mask=real, other=-1)
    there = real & (place >= 0)
    inside = column < width
    across = column.to(tl.int64) * source_c
    if SCATTER:
        tile = tl.zeros([ROWS, BLOCK_C], out.dtype.element_ty)
        if not ZEROS:
            along = source + batch * source_b + row.to(tl.int64) * source_n
            tile = tl.load(along[:, None] + across[None, :], mask=there[:, None] & inside[None, :], other=0.0)
        along = out + (batch * targets + place) * width
        tl.store(along[:, None] + column[None, :], tile, mask=there[:, None] & inside[None, :])
    else:
        along = source + batch * source_b + place * source_n
        tile = tl.load(along[:, None] + across[None, :], mask=there[:, None] & inside[None, :], other=0.0)
        along = out + (batch * rows + row) * width
        tl.store(along[:, None] + column[None, :], tile, mask=real[:, None] & inside[None, :])


@triton.jit
def sum_weights(weights, order, starts, sizes, groups, weights_b, weights_n, length, BLOCK: tl.constexpr):
    """Sizes [B, groups] float32: sums of the weights of each group. order [B, N], starts [B, groups + 1] int64."""
    program = tl.program_id(0)
    group = program % groups
    batch = (program // groups).to(tl.int64)
    first = tl.load(starts + batch * (groups + 1) + group)
    last = tl.load(starts + batch * (groups + 1) + group + 1)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(first, last, BLOCK):
        number = start + tl.arange(0, BLOCK)
        member = tl.load(order + batch * length + number, mask=number < last, other=0)
        total += tl.load(weights + batch * weights_b + member * weights_n, mask=number < last, other=0.0).to(tl.float32)
    tl.store(sizes + batch * groups + group, tl.sum(total, 0))


@triton.jit
def piece_sums(
    tokens, weights, sizes, order, starts, ends, groups_of, partial, out,
    groups, pieces, length, width, tokens_b, tokens_n, tokens_c, weights_b, weights_n,
    MEAN: tl.constexpr, LENGTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One piece: the sum of its tokens; MEAN: of weight / size of the group times token, weight 1 without `weights`.

    ends [B, groups]: pieces up to the end of each group; groups_of [B, pieces]: the group of each piece, `groups` for
    pieces that are not needed. A group's only piece goes to out [B, groups, C], others to partial [B, pieces, C].
    """
    blocks_c = tl.cdiv(width, BLOCK_C)
    program = tl.program_id(0)
    column = program % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    piece = program // blocks_c % pieces
    batch = (program // (blocks_c * pieces)).to(tl.int64)
    group = tl.load(groups_of + batch * pieces + piece)
    if group < groups:
        first = tl.load(starts + batch * (groups + 1) + group)
        last = tl.load(starts + batch * (groups + 1) + group + 1)
        many = tl.cdiv(last - first, LENGTH)
        number = first + (piece - (tl.load(ends + batch * groups + group) - many)) * LENGTH + tl.arange(0, LENGTH)
        real = number < last
        member = tl.load(order + batch * length + number, mask=real, other=0)
        inside = column < width
        along = tokens + batch * tokens_b + member * tokens_n
        across = column.to(tl.int64) * tokens_c
        tile = tl.load(along[:, None] + across[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        tile = tile.to(tl.float32)
        if MEAN:
            weight = tl.full([LENGTH], 1.0, tl.float32)
            if weights is not None:
                weight = tl.load(weights + batch * weights_b + member * weights_n, mask=real, other=0.0).to(tl.float32)
            size = tl.zeros([LENGTH], tl.float32) + tl.load(sizes + batch * groups + group)
            share = tl.div_rn(weight, tl.where(size > 0.0, size, 1.0))
            share = tl.where(real & (size > 0.0), share, 0.0)
            tile = tile * share[:, None]
        total = tl.sum(tile, 0)
        if many == 1:
            tl.store(out + (batch * groups + group) * width + column, total.to(out.dtype.element_ty), mask=inside)
        else:
            tl.store(partial + (batch * pieces + piece) * width + column, total, mask=inside)


@triton.jit
def sum_pieces(
    starts, ends, partial, out, groups, pieces, width,
    LENGTH: tl.constexpr, PIECES: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Out [B, groups, C] of the groups with several pieces: their sum; of groups without tokens: zeros."""
    blocks_c = tl.cdiv(width, BLOCK_C)
    program = tl.program_id(0)
    column = program % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    group = program // blocks_c % groups
    batch = (program // (blocks_c * groups)).to(tl.int64)
    first = tl.load(starts + batch * (groups + 1) + group)
    last = tl.load(starts + batch * (groups + 1) + group + 1)
    many = tl.cdiv(last - first, LENGTH)
    if many != 1:
        inside = column < width
        end = tl.load(ends + batch * groups + group)
        total = tl.zeros([PIECES, BLOCK_C], tl.float32)
        for start in range(end - many, end, PIECES):
            number = start + tl.arange(0, PIECES)
            rows = partial + (batch * pieces + number) * width
            mask = (number < end)[:, None] & inside[None, :]
            total += tl.load(rows[:, None] + column[None, :], mask=mask, other=0.0)
        answer = tl.sum(total, 0)
        tl.store(out + (batch * groups + group) * width + column, answer.to(out.dtype.element_ty), mask=inside)


@triton.jit
def merge_backward(
    tokens, assignment, weights, means, sizes, grad, grad_sizes, dtokens, dweights,
    length, groups, width, tokens_b, tokens_n, tokens_c, assignment_b, assignment_n, weights_b, weights_n,
    grad_b, grad_n, grad_c, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of tokens: dx_n = w_n / size g, dw_n = g (x_n - mean) / size + the gradient of the size."""
    blocks = tl.cdiv(length, ROWS)
    program = tl.program_id(0)
    row = program % blocks * ROWS + tl.arange(0, ROWS)
    batch = (program // blocks).to(tl.int64)
    real = row < length
    wide = row.to(tl.int64)
    group = tl.load(assignment + batch * assignment_b + wide * assignment_n, mask=real, other=-1)
    member = group >= 0
    spot = batch * groups + group
    size = tl.load(sizes + spot, mask=member, other=0.0)
    counts = size > 0.0
    safe = tl.where(counts, size, 1.0)
    share = tl.where(counts, 1.0 / safe, 0.0)
    if weights is not None:
        share *= tl.load(weights + batch * weights_b + wide * weights_n, mask=member, other=0.0).to(tl.float32)
    slope = tl.zeros([ROWS], tl.float32)
    for start in range(0, width, BLOCK_C):
        column = start + tl.arange(0, BLOCK_C)
        inside = column < width
        mask = member[:, None] & inside[None, :]
        along = grad + batch * grad_b + group * grad_n
        above = tl.load(along[:, None] + (column.to(tl.int64) * grad_c)[None, :], mask=mask, other=0.0).to(tl.float32)
        rows = dtokens + (batch * length + wide) * width
        found = (above * share[:, None]).to(dtokens.dtype.element_ty)
        tl.store(rows[:, None] + column[None, :], found, mask=real[:, None] & inside[None, :])
        if weights is not None:
            along = tokens + batch * tokens_b + wide * tokens_n
            x = tl.load(along[:, None] + (column.to(tl.int64) * tokens_c)[None, :], mask=mask, other=0.0)
            mean = tl.load((means + spot * width)[:, None] + column[None, :], mask=mask, other=0.0)
            slope += tl.sum(above * (x.to(tl.float32) - mean.to(tl.float32)), 1)
    if weights is not None:
        slope = tl.where(counts, slope / safe, 0.0) + tl.load(grad_sizes + spot, mask=member, other=0.0)
        tl.store(dweights + batch * length + wide, tl.where(member, slope, 0.0), mask=real)

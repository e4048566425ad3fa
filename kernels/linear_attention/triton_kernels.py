"""Kernels of linear attention: states before each chunk of tokens, then the answers of all chunks at the same time.

They compute o_i = sum_j lambda^|i-j| (a_i . b_j) c_j, over j <= i, over j < i, or over all j without decay. The roles
are called a, b, c and not q, k, v because the gradients are the same sum with the roles exchanged. No product takes the
transpose of another product's result: decay goes onto c, so that only what was loaded is transposed.
"""

import triton
import triton.language as tl

__all__ = ["chunk_answers", "chunk_states"]


@triton.jit
def load_tile(
    base, row, valid, stride, first, width, extra,
    EXTRA: tl.constexpr, WIDTH: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Columns first..first+WIDTH of rows `row` [R] of a matrix with `width` columns -> [R, WIDTH], 0 where not valid.

    EXTRA gives the matrix one column more: 1 all ones, 2 from `extra`. HALF: bfloat16, else float32: sums of float16
    products leave its range, and the interpreter's bfloat16 products are silently wrong.
    """
    column = first + tl.arange(0, WIDTH)
    inside = valid[:, None] & (column < width)[None, :]
    tile = tl.load(base + (row.to(tl.int64) * stride)[:, None] + column[None, :], mask=inside, other=0.0)
    if HALF:
        tile = tile.to(tl.bfloat16)
    else:
        tile = tile.to(tl.float32)
    if EXTRA == 1:
        tile = tl.where(valid[:, None] & (column == width)[None, :], 1.0, tile).to(tile.dtype)
    if EXTRA == 2:
        more = tl.load(extra + row, mask=valid, other=0.0).to(tile.dtype)
        tile = tl.where((column == width)[None, :], more[:, None], tile)
    return tile


@triton.jit
def chunk_states(
    b, c, b_extra, keep, decay, states, totals,
    heads, length, chunks, segment_chunks, segments, width_b, width_c, deep, wide,
    b_b, b_h, b_n, c_b, c_h, c_n, keep_b,
    ORDERED: tl.constexpr, REVERSE: tl.constexpr, MASKED: tl.constexpr, EXTRA_B: tl.constexpr, EXTRA_C: tl.constexpr,
    HALF: tl.constexpr, PRECISION: tl.constexpr,
    TOKENS: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One segment (some chunks in turn) of one head, one block of the state sum_j lambda^.. b_j^T c_j.

    ORDERED: states [B H, chunks, deep, wide] before each chunk, counted from the segment's start. Always: totals
    [B H, segments, deep, wide] at its end. Both float32; deep and wide are the widths with extra columns.
    """
    blocks_c = tl.cdiv(wide, BLOCK_C)
    blocks_b = tl.cdiv(deep, BLOCK_B)
    program = tl.program_id(0)
    block_c = program % blocks_c
    block_b = program // blocks_c % blocks_b
    segment = program // (blocks_c * blocks_b) % segments
    batch_head = (program // (blocks_c * blocks_b * segments)).to(tl.int64)
    batch = batch_head // heads
    head = batch_head % heads

    local = tl.arange(0, TOKENS)
    if ORDERED:
        rate = tl.load(decay + head) * 1.4426950408889634
        fade = tl.exp2(rate * (TOKENS - 1 - local).to(tl.float32))
        whole = tl.exp2(rate * TOKENS)
    row_b = block_b * BLOCK_B + tl.arange(0, BLOCK_B)
    row_c = block_c * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (row_b < deep)[:, None] & (row_c < wide)[None, :]
    offset = row_b.to(tl.int64)[:, None] * wide + row_c[None, :]
    state = tl.zeros([BLOCK_B, BLOCK_C], tl.float32)
    first = segment * segment_chunks
    last = tl.minimum(first + segment_chunks, chunks)
    for chunk in range(first, last):
        if ORDERED:
            tl.store(states + (batch_head * chunks + chunk) * deep * wide + offset, state, mask=inside)
        step = chunk * TOKENS + local
        place = step
        if REVERSE:
            place = length - 1 - step
        valid = step < length
        if MASKED:
            valid = valid & (tl.load(keep + batch * keep_b + place, mask=valid, other=0) != 0)
        extra = b
        if EXTRA_B == 2:
            extra = b_extra + batch_head * length
        keys = load_tile(
            b + batch * b_b + head * b_h, place, valid, b_n, block_b * BLOCK_B, width_b, extra, EXTRA_B, BLOCK_B, HALF
        )
        values = load_tile(
            c + batch * c_b + head * c_h, place, valid, c_n, block_c * BLOCK_C, width_c, c, EXTRA_C, BLOCK_C, HALF
        )
        if ORDERED:
            values = (values * fade[:, None]).to(keys.dtype)
            state = state * whole
        state += tl.dot(tl.trans(keys), values, input_precision=PRECISION)
    tl.store(totals + (batch_head * segments + segment) * deep * wide + offset, state, mask=inside)


@triton.jit
def chunk_answers(
    a, b, c, a_extra, b_extra, keep, decay, states, carry, before, before_total, out, total,
    heads, length, chunks, segment_chunks, segments, width_a, width_c, deep, wide,
    a_b, a_h, a_n, b_b, b_h, b_n, c_b, c_h, c_n, keep_b, before_b, before_h, before_n, out_b, out_h, out_n,
    ORDER: tl.constexpr, REVERSE: tl.constexpr, ADD: tl.constexpr, MASK_ROWS: tl.constexpr, MASK_COLS: tl.constexpr,
    EXTRA_A: tl.constexpr, EXTRA_B: tl.constexpr, EXTRA_C: tl.constexpr,
    HALF: tl.constexpr, PRECISION: tl.constexpr,
    TOKENS: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One chunk of one head, one block of the answer's columns: out [B, H, N, C], its extra column in total [B H, N].

    ORDER: 0 all tokens, which stand in carry [B H, deep, wide]; 1 up to the token itself; 2 only before it. Then carry
    [B H, segments, deep, wide] is the state before each segment. ADD: `before` (float32) is added: the other direction.
    MASK_ROWS: rows of padding are zero; MASK_COLS: padding enters no sum.
    """
    blocks_c = tl.cdiv(wide, BLOCK_C)
    program = tl.program_id(0)
    block_c = program % blocks_c
    chunk = program // blocks_c % chunks
    batch_head = (program // (blocks_c * chunks)).to(tl.int64)
    batch = batch_head // heads
    head = batch_head % heads

    local = tl.arange(0, TOKENS)
    step = chunk * TOKENS + local
    place = step
    if REVERSE:
        place = length - 1 - step
    exists = step < length
    real = exists
    if MASK_ROWS or MASK_COLS:
        real = exists & (tl.load(keep + batch * keep_b + place, mask=exists, other=0) != 0)
    row_valid = exists
    if MASK_ROWS:
        row_valid = real
    col_valid = exists
    if MASK_COLS:
        col_valid = real
    row_c = block_c * BLOCK_C + tl.arange(0, BLOCK_C)
    if ORDER > 0:
        rate = tl.load(decay + head) * 1.4426950408889634
        segment = chunk // segment_chunks
        carry += (batch_head * segments + segment) * deep * wide
        states += (batch_head * chunks + chunk) * deep * wide
        since = tl.exp2(rate * ((chunk - segment * segment_chunks) * TOKENS).to(tl.float32))
    else:
        carry += batch_head * deep * wide
    extra_a = a
    if EXTRA_A == 2:
        extra_a = a_extra + batch_head * length
    extra_b = a
    if EXTRA_B == 2:
        extra_b = b_extra + batch_head * length

    answer = tl.zeros([TOKENS, BLOCK_C], tl.float32)
    score = tl.zeros([TOKENS, TOKENS], tl.float32)
    for first in range(0, deep, BLOCK_B):
        queries = load_tile(
            a + batch * a_b + head * a_h, place, row_valid, a_n, first, width_a, extra_a, EXTRA_A, BLOCK_B, HALF
        )
        row_b = first + tl.arange(0, BLOCK_B)
        inside = (row_b < deep)[:, None] & (row_c < wide)[None, :]
        offset = row_b.to(tl.int64)[:, None] * wide + row_c[None, :]
        state = tl.load(carry + offset, mask=inside, other=0.0)
        if ORDER > 0:
            state = state * since + tl.load(states + offset, mask=inside, other=0.0)
            keys = load_tile(
                b + batch * b_b + head * b_h, place, col_valid, b_n, first, width_a, extra_b, EXTRA_B, BLOCK_B, HALF
            )
            score += tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
        answer += tl.dot(queries, state.to(queries.dtype), input_precision=PRECISION)
    if ORDER > 0:
        distance = local[:, None] - local[None, :]
        seen = distance >= 0
        if ORDER == 2:
            seen = distance > 0
        score = tl.where(seen, score * tl.exp2(rate * tl.maximum(distance, 0).to(tl.float32)), 0.0)
        answer = answer * tl.exp2(rate * (local + 1).to(tl.float32))[:, None]
        values = load_tile(
            c + batch * c_b + head * c_h, place, col_valid, c_n, block_c * BLOCK_C, width_c, c, EXTRA_C, BLOCK_C, HALF
        )
        answer += tl.dot(score.to(values.dtype), values, input_precision=PRECISION)

    inside = exists[:, None] & (row_c < width_c)[None, :]
    spot = batch_head * length + place
    if ADD:
        rows = before + batch * before_b + head * before_h + (place.to(tl.int64) * before_n)[:, None]
        answer += tl.load(rows + row_c[None, :], mask=inside, other=0.0)
    rows = out + batch * out_b + head * out_h + (place.to(tl.int64) * out_n)[:, None]
    tl.store(rows + row_c[None, :], answer.to(out.dtype.element_ty), mask=inside)
    if EXTRA_C == 1:  # noqa: SIM102  (known when compiling; the next is not)
        if width_c // BLOCK_C == block_c:
            mass = tl.sum(tl.where((row_c == width_c)[None, :], answer, 0.0), 1)
            if ADD:
                mass += tl.load(before_total + spot, mask=exists, other=0.0)
            tl.store(total + spot, mass, mask=exists)

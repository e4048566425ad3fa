"""Selection by digits: scores become whole numbers of the same order, and eight bits at a time are looked at.

Each pass counts, for every part of a row, how often each digit follows the digits found so far; from the sums over the
parts (PyTorch's, between the passes) the next one knows the digit of the k-th highest score. No sort, no atomics; the
last pass numbers what is chosen by running sums over the parts before its own, so that places come out ascending and
equal scores go to the lower place. What is read grows with the scores: no part looks at the counts of all others.
"""

import triton
import triton.language as tl

__all__ = ["count_digits", "write_chosen"]


@triton.jit
def ranked(scores, keep, row, column, columns, scores_b, scores_n, keep_b, keep_n, lowest, MASKED: tl.constexpr):
    """Scores as unsigned numbers that order alike, and which are real; NaN and -inf become the lowest finite one."""
    real = column < columns
    if MASKED:
        real = real & (tl.load(keep + row * keep_b + column.to(tl.int64) * keep_n, mask=real, other=0) != 0)
    value = tl.load(scores + row * scores_b + column.to(tl.int64) * scores_n, mask=real, other=0.0).to(tl.float32)
    value = tl.where(value >= lowest, value, lowest)  # not so: NaN
    value = tl.where(value == 0.0, 0.0, value)  # -0 is 0
    bits = value.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, ~bits, bits ^ -2147483648)
    return key.to(tl.uint32, bitcast=True), real


@triton.jit
def narrow(totals, wanted):
    """The digit of the wanted-th highest, and how many of that digit are wanted.

    totals [256]: how often each digit is there. With nothing wanted: digit 0 and nothing.
    """
    digit = tl.arange(0, 256)
    found = tl.load(totals + digit)
    there = tl.sum(found, 0)
    wanted = tl.minimum(wanted, there)
    above = there - tl.cumsum(found, 0)
    here = (above < wanted) & (wanted <= above + found)
    return tl.sum(tl.where(here, digit, 0), 0), wanted - tl.sum(tl.where(here, above, 0), 0)


@triton.jit
def count_digits(
    scores, keep, wanted, counts, totals, state,
    rows, columns, parts, k, scores_b, scores_n, keep_b, keep_n, lowest,
    PASS: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Digits of one part of a row among those that share the PASS digits found: counts [passes, rows, parts, 256].

    wanted [rows] int64, or None: k for all. totals [passes, rows, 256]: the counts of earlier passes over all parts.
    state [passes, rows, 2] int64: digits found, how many still wanted.
    """
    program = tl.program_id(0)
    part = program % parts
    row = (program // parts).to(tl.int64)
    column = part * BLOCK + tl.arange(0, BLOCK)
    key, real = ranked(scores, keep, row, column, columns, scores_b, scores_n, keep_b, keep_n, lowest, MASKED)
    if PASS > 0:
        if PASS == 1:
            prefix = tl.full([], 0, tl.int64)
            number = tl.full([], k, tl.int64)
            if wanted is not None:
                number = tl.load(wanted + row)
        else:
            before = state + ((PASS - 1) * rows + row) * 2
            prefix = tl.load(before)
            number = tl.load(before + 1)
        number = tl.minimum(tl.maximum(number, 0), k).to(tl.int32)
        digit, number = narrow(totals + ((PASS - 1) * rows + row) * 256, number)
        prefix = prefix * 256 + digit
        if part == 0:
            tl.store(state + (PASS * rows + row) * 2, prefix)
            tl.store(state + (PASS * rows + row) * 2 + 1, number.to(tl.int64))
        real = real & ((key >> (32 - 8 * PASS)).to(tl.int64) == prefix)
    digit = ((key >> (24 - 8 * PASS)) & 255).to(tl.int32)
    found = tl.histogram(tl.where(real, digit, 0), 256)
    place = tl.arange(0, 256)
    found = found - tl.where(place == 0, BLOCK - tl.sum(real.to(tl.int32), 0), 0)
    tl.store(counts + ((PASS * rows + row) * parts + part) * 256 + place, found)


@triton.jit
def write_chosen(
    scores, keep, before, totals, state, out,
    rows, columns, parts, size, scores_b, scores_n, keep_b, keep_n, lowest,
    PASSES: tl.constexpr, PLACES: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One part of a row. PLACES: its chosen places go to out [rows, size] int64; else out [rows, columns] is 1 or 0.

    before [passes, rows, parts, 256]: the counts of all earlier parts together.
    """
    program = tl.program_id(0)
    part = program % parts
    row = (program // parts).to(tl.int64)
    column = part * BLOCK + tl.arange(0, BLOCK)
    key, real = ranked(scores, keep, row, column, columns, scores_b, scores_n, keep_b, keep_n, lowest, MASKED)
    last: tl.constexpr = PASSES - 1
    found = state + (last * rows + row) * 2
    digit, asked = narrow(totals + (last * rows + row) * 256, tl.load(found + 1).to(tl.int32))
    prefix = tl.load(found) * 256 + digit

    # what earlier parts choose: all above the last chosen score, and of those equal to it as many as are wanted
    higher = tl.full([], 0, tl.int32)
    equal = tl.full([], 0, tl.int32)
    place = tl.arange(0, 256)
    for step in tl.static_range(PASSES):
        digit = ((prefix >> (8 * (last - step))) & 255).to(tl.int32)
        earlier = tl.load(before + ((step * rows + row) * parts + part) * 256 + place)
        higher += tl.sum(tl.where(place > digit, earlier, 0), 0)
        if step == last:
            equal += tl.sum(tl.where(place == digit, earlier, 0), 0)
    rank = (key >> (32 - 8 * PASSES)).to(tl.int64)
    tied = (real & (rank == prefix)).to(tl.int32)
    mine = equal + tl.cumsum(tied, 0) - tied
    # nothing is wanted: no score is the last chosen one, and none is above it
    limit = tl.zeros([BLOCK], tl.int32) + asked
    chosen = (rank > prefix) | ((tied > 0) & (mine < limit))
    took = tl.where(real & (limit > 0) & chosen, 1, 0)
    if PLACES:
        number = higher + tl.minimum(equal, asked) + tl.cumsum(took, 0) - took
        tl.store(out + row * size + number, column.to(tl.int64), mask=(took > 0) & (number < size))
    else:
        tl.store(out + row * columns + column, took.to(tl.uint8), mask=column < columns)

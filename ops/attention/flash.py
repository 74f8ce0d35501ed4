"""Attention on the GPU: one Triton source for AMD and NVIDIA, launched by portable.py.

The softmax is taken online, so that scores live in registers only (Milakov and Gimelshein 2018,
arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691). A program takes
BLOCK_M queries and walks the keys in blocks of BLOCK_N: first those that every query of the block
sees, then those on the causal diagonal and at the end. Exponentials are powers of two: log2(e) is
folded into the scale, except beside a mask, whose finite numbers it could make infinite. Weights
are divided by a power of two, so that sums of values do not overflow where their mean is finite. Of
few queries and many keys, as in decoding, a program takes one of PARTS parts of the keys, and
`combine` weighs their results (Dao, Haziza, Massa and Sizov 2023, "Flash-Decoding for long-context
inference"). How many keys there are may lie in memory: then PARTS share those that are seen, and
others are not read. Needs Triton; nobody imports this module where there is none.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def attention(
    q, k, v, out, scale, headroom, M, N, extents,
    q_batch, q_m, q_d, k_batch, k_n, k_d, v_batch, v_n, v_d, out_batch, out_m, out_d, out_part,
    mask, mask_batch, mask_m, mask_n, length, length_batch, start, start_batch,
    HEAD: tl.constexpr, VALUE: tl.constexpr,
    BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, RANK: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, ONE_MASK: tl.constexpr,
    SCALE_LAST: tl.constexpr,
    BLIND_ROWS: tl.constexpr, EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, PARTS: tl.constexpr,
    LIMITED: tl.constexpr, ONE_PLACE: tl.constexpr, HAS_LENGTH: tl.constexpr, IS_AT: tl.constexpr,
    HAS_START: tl.constexpr, FOLLOWS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """out = softmax(scale · q @ kᵀ + mask) @ v, for one block of queries of one batch entry.

    q is (batch, M, HEAD), k (batch, N, HEAD), v (batch, N, VALUE), mask (batch, M, N), each with
    strides of its own; with ONE_MASK it is the same for all queries. `extents` are those of the
    RANK batch axes, `..._batch` the strides. Weights are divided by two to the power `headroom`.
    With several PARTS out is (batch, PARTS, M, VALUE + 2 or more): a row of the result is followed
    by its largest logit, -inf where the part has no key for the query, and by the sum of its
    weights.

    If LIMITED, numbers in memory say which keys are seen: those before `length`, or, with IS_AT,
    `length` plus the number of queries; with FOLLOWS up to the query's own place, and WINDOW of
    them if that is not 0. The first query is at `start`, else the last at the end. With ONE_PLACE
    the rows are heads of a single query.
    """
    program = tl.program_id(0)
    part = program % PARTS
    program = program // PARTS
    blocks = tl.cdiv(M, BLOCK_M)
    block = program % blocks
    rest = program // blocks
    if CAUSAL or FOLLOWS:  # the blocks with the most keys first
        block = blocks - 1 - block
    for axis in tl.static_range(RANK - 1, -1, -1):
        index = (rest % extents[axis]).to(tl.int64)
        rest = rest // extents[axis]
        q += index * q_batch[axis]
        k += index * k_batch[axis]
        v += index * v_batch[axis]
        out += index * out_batch[axis]
        if HAS_MASK:
            mask += index * mask_batch[axis]
        if HAS_LENGTH:
            length += index * length_batch[axis]
        if HAS_START:
            start += index * start_batch[axis]

    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    head = tl.arange(0, BLOCK_HEAD)
    value = tl.arange(0, BLOCK_VALUE)
    q += rows[:, None] * q_m + head[None, :] * q_d
    if EVEN_M and HEAD == BLOCK_HEAD:
        queries = tl.load(q)
    else:
        queries = tl.load(q, mask=(rows < M)[:, None] & (head < HEAD)[None, :], other=0.0)

    low = 0
    high = N
    first = 0
    last = 0
    if LIMITED:
        first, last, high = _limits(
            length, start, M, N, ONE_PLACE, HAS_LENGTH, IS_AT, HAS_START, WINDOW
        )
        if not ONE_PLACE:  # those of the first query of the block
            first += block * BLOCK_M
            last += block * BLOCK_M
        if FOLLOWS:
            rest_of_block = 0 if ONE_PLACE else BLOCK_M - 1
            high = tl.maximum(tl.minimum(high, last + rest_of_block + 1), 0)
        if WINDOW > 0:
            low = tl.minimum(tl.maximum(first, 0), high) // BLOCK_N * BLOCK_N
    end = high
    if PARTS > 1:  # blocks of keys are dealt out evenly
        begin = low
        count = tl.cdiv(end - begin, BLOCK_N)
        low = begin + part * count // PARTS * BLOCK_N
        high = tl.minimum(begin + (part + 1) * count // PARTS * BLOCK_N, end)
    seen_by_all = high
    if FOLLOWS:
        seen_by_all = tl.maximum(tl.minimum(high, last + 1), low)
    if WINDOW > 0:
        seen_by_all = low
    if CAUSAL:
        seen_by_all = tl.maximum(tl.minimum(high, block * BLOCK_M + N - M + 1), low)
        high = tl.maximum(tl.minimum(high, (block + 1) * BLOCK_M + N - M), low)
    seen_by_all = seen_by_all // BLOCK_N * BLOCK_N

    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_VALUE), tl.float32)
    acc, total, top = _keys(
        acc, total, top, queries, k, v, mask, low, seen_by_all, rows, head, value, scale, headroom,
        M, N, first, last, end,
        k_n, k_d, v_n, v_d, mask_m, mask_n, HEAD, VALUE, BLOCK_HEAD, BLOCK_VALUE, BLOCK_N,
        CAUSAL, HAS_MASK, ONE_MASK, SCALE_LAST, BLIND_ROWS, EVEN_M, False,
        ONE_PLACE, FOLLOWS, WINDOW,
    )  # fmt: skip
    if CAUSAL or not EVEN_N:
        acc, total, top = _keys(
            acc, total, top, queries, k, v, mask, seen_by_all, high, rows, head, value, scale,
            headroom, M, N, first, last, end,
            k_n, k_d, v_n, v_d, mask_m, mask_n, HEAD, VALUE, BLOCK_HEAD, BLOCK_VALUE, BLOCK_N,
            CAUSAL, HAS_MASK, ONE_MASK, SCALE_LAST, BLIND_ROWS, EVEN_M, True,
            ONE_PLACE, FOLLOWS, WINDOW,
        )  # fmt: skip
    if BLIND_ROWS:
        total = tl.where(total == 0.0, 1.0, total)
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    if PARTS > 1:
        out += part.to(tl.int64) * out_part
        if not HAS_MASK:
            top = top / LOG2E
        tl.store(out + rows * out_m + VALUE, top, mask=rows < M)
        tl.store(out + rows * out_m + VALUE + 1, total, mask=rows < M)
    out += rows[:, None] * out_m + value[None, :] * out_d
    if EVEN_M and VALUE == BLOCK_VALUE:
        tl.store(out, result)
    else:
        tl.store(out, result, mask=(rows < M)[:, None] & (value < VALUE)[None, :])


@triton.jit
def _limits(
    length, start, M, N, ONE_PLACE: tl.constexpr, HAS_LENGTH: tl.constexpr, IS_AT: tl.constexpr,
    HAS_START: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """The first and the last key that the first query sees, and the end of all that are seen.

    Numbers of 64 bits, until they are cut to those that differ in what they hide.
    """
    queries = 1 if ONE_PLACE else M
    end = tl.cast(N, tl.int64)
    if HAS_LENGTH:
        given = tl.load(length).to(tl.int64)
        if IS_AT:
            given += queries
        end = tl.minimum(given, end)
    place = end - queries
    if HAS_START:
        place = tl.load(start).to(tl.int64)
    first = tl.maximum(tl.minimum(place - WINDOW + 1, N), -queries).to(tl.int32)
    last = tl.maximum(tl.minimum(place, N), -queries).to(tl.int32)
    return first, last, tl.maximum(end, 0).to(tl.int32)


@triton.jit
def _keys(
    acc, total, top, queries, k, v, mask, low, high, rows, head, value, scale, headroom, M, N,
    first, last, end,
    k_n, k_d, v_n, v_d, mask_m, mask_n,
    HEAD: tl.constexpr, VALUE: tl.constexpr,
    BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, ONE_MASK: tl.constexpr,
    SCALE_LAST: tl.constexpr,
    BLIND_ROWS: tl.constexpr, EVEN_M: tl.constexpr, EDGE: tl.constexpr,
    ONE_PLACE: tl.constexpr, FOLLOWS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Take the keys `low` to `high` into acc, total and top; with EDGE, some may be hidden.

    `top` is the largest logit beside a mask; else it is that times log2(e) plus headroom.
    Keys from `end` on are not read; the first row sees those from `first` to `last`, with ONE_PLACE
    as the others.
    """
    ahead = tl.arange(0, rows.shape[0])
    if ONE_PLACE:
        ahead = tl.zeros_like(ahead)
    factor = scale if HAS_MASK else scale * LOG2E
    keys = tl.arange(0, BLOCK_N)
    for start in range(low, high, BLOCK_N):
        start = tl.multiple_of(start, BLOCK_N)
        column = start + keys
        k_at = k + column[None, :] * k_n + head[:, None] * k_d
        if EDGE:
            block = tl.load(k_at, mask=(column < end)[None, :] & (head < HEAD)[:, None], other=0.0)
        elif HEAD != BLOCK_HEAD:
            block = tl.load(k_at, mask=(head < HEAD)[:, None], other=0.0)
        else:
            block = tl.load(k_at)
        z = tl.dot(queries, block)
        if not SCALE_LAST:
            z = z * factor
        if HAS_MASK:
            if ONE_MASK:
                added = tl.load(mask + column * mask_n, mask=column < end, other=0.0)[None, :]
            elif EDGE or not EVEN_M:
                inside = (rows < M)[:, None] & (column < end)[None, :]
                mask_at = mask + rows[:, None] * mask_m + column[None, :] * mask_n
                added = tl.load(mask_at, mask=inside, other=0.0)
            else:
                added = tl.load(mask + rows[:, None] * mask_m + column[None, :] * mask_n)
            if added.dtype == tl.uint8:  # a bool: whether the key is seen
                z += tl.where(added != 0, 0.0, float("-inf"))
            else:
                z += added.to(tl.float32)
        if EDGE:
            visible = (column < end)[None, :]
            if CAUSAL:
                visible = visible & (column[None, :] <= (rows + (N - M))[:, None])
            if FOLLOWS:
                visible = visible & (column[None, :] <= (ahead + last)[:, None])
            if WINDOW > 0:
                visible = visible & (column[None, :] >= (ahead + first)[:, None])
            z = tl.where(visible, z, float("-inf"))
        if SCALE_LAST:
            highest = tl.maximum(top, tl.max(z, 1) * factor + headroom)
        elif HAS_MASK:
            highest = tl.maximum(top, tl.max(z, 1))
        else:
            highest = tl.maximum(top, tl.max(z, 1) + headroom)
        base = highest
        if BLIND_ROWS:
            base = tl.where(highest == float("-inf"), 0.0, highest)
        if SCALE_LAST:
            p = tl.math.exp2(z * factor - base[:, None])
        elif HAS_MASK:
            p = tl.math.exp2((z - base[:, None]) * LOG2E - headroom)
        else:
            p = tl.math.exp2(z - base[:, None])
        keep = tl.math.exp2((top - base) * LOG2E if HAS_MASK else top - base)
        total = total * keep + tl.sum(p, 1)
        acc = acc * keep[:, None]
        v_at = v + column[:, None] * v_n + value[None, :] * v_d
        if EDGE:
            block = tl.load(
                v_at, mask=(column < end)[:, None] & (value < VALUE)[None, :], other=0.0
            )
        elif VALUE != BLOCK_VALUE:
            block = tl.load(v_at, mask=(value < VALUE)[None, :], other=0.0)
        else:
            block = tl.load(v_at)
        acc = tl.dot(p.to(block.dtype), block, acc)
        top = highest
    return acc, total, top


@triton.jit
def combine(
    parts, out, M, extents, parts_batch, parts_part, parts_m, out_batch, out_m, out_d,
    VALUE: tl.constexpr, BLOCK_VALUE: tl.constexpr, PARTS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """A row of the result of one batch entry, from the `parts` that `attention` wrote."""
    program = tl.program_id(0)
    row = (program % M).to(tl.int64)
    rest = program // M
    for axis in tl.static_range(RANK - 1, -1, -1):
        index = (rest % extents[axis]).to(tl.int64)
        rest = rest // extents[axis]
        parts += index * parts_batch[axis]
        out += index * out_batch[axis]
    which = tl.arange(0, BLOCK_PARTS)
    value = tl.arange(0, BLOCK_VALUE)
    parts += row * parts_m + which * parts_part
    tops = tl.load(parts + VALUE, mask=which < PARTS, other=float("-inf"))
    totals = tl.load(parts + VALUE + 1, mask=which < PARTS, other=0.0)
    top = tl.max(tops, 0)
    weights = totals * tl.math.exp2((tops - tl.where(top == float("-inf"), 0.0, top)) * LOG2E)
    total = tl.sum(weights, 0)
    weights = weights / tl.where(total == 0.0, 1.0, total)
    inside = (which < PARTS)[:, None] & (value < VALUE)[None, :]
    results = tl.load(parts[:, None] + value[None, :], mask=inside, other=0.0)
    result = tl.sum(results * weights[:, None], 0)
    at = out + row * out_m + value * out_d
    tl.store(at, result.to(out.dtype.element_ty), mask=value < VALUE)

"""Attention on NVIDIA's Hopper, in Gluon: one warp loads tiles, two warpgroups multiply them.

As in FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608), the tensor memory accelerator fills a
ring of blocks of keys and values. While one product of a warpgroup runs, it computes the softmax of
the previous one. A program stays on its multiprocessor and walks tiles of 128 queries, so that
descriptors and barriers are set up once and the next tile's blocks arrive while this tile's result
is stored. Keys are walked from the last to the first: hidden ones come first.

hopper.py states the requirements. The barriers `full` (of q, k, v) are passed when a tile has
arrived, `free` when both warpgroups have read it. Needs Triton; without it, this module is not
imported.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

GROUPS = gl.constexpr(2)  # warpgroups that multiply, of four warps each
ROWS = gl.constexpr(64)  # queries of a warpgroup
BLOCK_M = gl.constexpr(128)
BLOCK_N = gl.constexpr(128)
STAGES = gl.constexpr(2)  # blocks of keys and of values in shared memory
LOG2E = gl.constexpr(1.4426950408889634)


@gluon.jit
def attention(
    q, k, v, out, scale, headroom, M, N, outer, middle, inner,
    q_outer, q_middle, q_inner, q_m, k_outer, k_middle, k_inner, k_n,
    v_outer, v_middle, v_inner, v_n, out_outer, out_middle, out_inner, out_m,
    HEAD: gl.constexpr, ORDER: gl.constexpr, HIDES: gl.constexpr,
):  # fmt: skip
    """out = softmax(scale · q @ kᵀ) @ v over outer × middle × inner batch entries.

    q and out are (outer, middle, inner, M, HEAD), k and v (outer, middle, inner, N, HEAD),
    neighbours along HEAD. Weights are divided by two to the power `headroom`, so that sums of
    values do not overflow where their mean is finite. The other strides are those of tensors that
    have an axis of extent 1 where they are 0. ORDER is that of the tiles and tells of causality
    (see _tile), HIDES that some queries of a tile do not see all of its last block of keys.
    """
    # Parameters that are 1 are constants.
    extents = (gl.to_tensor(outer), gl.to_tensor(middle), gl.to_tensor(inner))
    dtype: gl.constexpr = q.dtype.element_ty
    q_tile: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, HEAD], dtype)
    k_tile: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_N, HEAD], dtype)
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    tensors = (
        _described(q, extents, (q_outer, q_middle, q_inner), M, q_m, ROWS, HEAD),
        _described(k, extents, (k_outer, k_middle, k_inner), N, k_n, BLOCK_N, HEAD),
        _described(v, extents, (v_outer, v_middle, v_inner), N, v_n, BLOCK_N, HEAD),
    )
    steps = (
        (q_outer != 0, q_middle != 0, q_inner != 0),
        (k_outer != 0, k_middle != 0, k_inner != 0),
        (v_outer != 0, v_middle != 0, v_inner != 0),
    )
    tiles = (
        gl.allocate_shared_memory(dtype, [GROUPS, ROWS, HEAD], q_tile),
        gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, HEAD], k_tile),
        gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, HEAD], k_tile),
    )
    full = (
        gl.allocate_shared_memory(gl.int64, [1, 1], barrier),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier),
    )
    free = (
        gl.allocate_shared_memory(gl.int64, [1, 1], barrier),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier),
        gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier),
    )
    for n in gl.static_range(3):
        for stage in gl.static_range(1 if n == 0 else STAGES):
            mbarrier.init(full[n].index(stage), 1)
            mbarrier.init(free[n].index(stage), GROUPS)
    fence_async_shared()

    sizes = (M, N, extents[0] * extents[1] * extents[2], extents)
    target = (out, (out_outer, out_middle, out_inner), out_m)
    factor = (scale * LOG2E, headroom)
    gl.warp_specialize(
        [
            (_multiply, (0, tiles, full, free, target, factor, sizes, HEAD, ORDER, HIDES)),
            (_multiply, (1, tiles, full, free, target, factor, sizes, HEAD, ORDER, HIDES)),
            (_load, (tensors, steps, tiles, full, free, sizes, HEAD, ORDER)),
        ],
        [4, 1],  # warps of the last two
        [240, 24],  # and their registers; the first has what is left: 240
    )


@gluon.jit
def _described(x, extents, strides, length, stride, BLOCK: gl.constexpr, HEAD: gl.constexpr):
    """The descriptor of a tensor, for blocks of (1, 1, 1, BLOCK, HEAD); rows past its end are 0."""
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for(
        [1, 1, 1, BLOCK, HEAD], x.dtype.element_ty
    )
    # An axis that is broadcast has one entry; a stride is wanted all the same.
    return tma.make_tensor_descriptor(
        x,
        [
            gl.where(strides[0] == 0, 1, extents[0]),
            gl.where(strides[1] == 0, 1, extents[1]),
            gl.where(strides[2] == 0, 1, extents[2]),
            length,
            HEAD,
        ],
        [
            gl.where(strides[0] == 0, HEAD, strides[0]),
            gl.where(strides[1] == 0, HEAD, strides[1]),
            gl.where(strides[2] == 0, HEAD, strides[2]),
            stride,
            1,
        ],
        [1, 1, 1, BLOCK, HEAD],
        layout,
    )


@gluon.jit
def _tile(turn, sizes, ORDER: gl.constexpr):
    """Of this program's turn: whether there is one; first query; batch entry; how many blocks of
    keys it sees, 0 for a turn without a tile; how many of these, the first ones, every query sees.

    ORDER is "" where every query sees every key: the blocks of queries of an entry are neighbours
    in time, so that its keys are read from memory once. "causal": those that see the most keys
    first, dealt out there and back, so that all programs get as much to do. "causal pairs": as "",
    but a program takes a block counted from the end and then the same from the start, which
    together see as many keys as any other two; less even where pairs are few.
    """
    M, N, batch, _extents = sizes
    program, programs = gl.program_id(0), gl.num_programs(0)
    blocks = (M + BLOCK_M - 1) // BLOCK_M
    if ORDER == "causal pairs":
        pairs = (blocks + 1) // 2
        number = turn // 2 * programs + program
        entry = number // pairs
        more = entry < batch
        block = gl.where(turn % 2 == 0, blocks - 1 - number % pairs, number % pairs)
        twice = (turn % 2 == 1) & (block == blocks - 1 - block)
    elif ORDER == "causal":
        number = turn * programs + gl.where(turn % 2 == 0, program, programs - 1 - program)
        more = number < blocks * batch
        block = blocks - 1 - number // batch
        entry = number % batch
        twice = False
    else:
        number = turn * programs + program
        entry = number // blocks
        more = entry < batch
        block = number % blocks
        twice = False
    row = block * BLOCK_M
    seen = N
    by_all = N
    if ORDER != "":
        seen = gl.where(twice, 0, gl.minimum(N, row + BLOCK_M + N - M))
        by_all = gl.minimum(N, row + N - M + 1)
    return more, row, entry, (seen + BLOCK_N - 1) // BLOCK_N, by_all // BLOCK_N


@gluon.jit
def _load(
    tensors, steps, tiles, full, free, sizes, HEAD: gl.constexpr, ORDER: gl.constexpr
):  # fmt: skip
    """Fetch queries, keys and values in the order in which they are multiplied."""
    count = 0  # blocks of keys so far
    done = 0  # tiles so far
    turn = 0
    more, row, entry, blocks, _by_all = _tile(turn, sizes, ORDER)
    while more:
        if blocks > 0:
            batch = _indices(entry, sizes[3])
            mbarrier.wait(free[0].index(0), (done & 1) ^ 1)
            mbarrier.expect(full[0].index(0), BLOCK_M * HEAD * 2)
            for group in gl.static_range(GROUPS):
                tile = tiles[0].index(group)
                _fetch(tensors[0], steps[0], batch, row + group * ROWS, full[0].index(0), tile)
            done += 1
        for back in range(blocks):
            batch, key = _indices(entry, sizes[3]), (blocks - 1 - back) * BLOCK_N
            stage, passed = count % STAGES, (count // STAGES & 1) ^ 1
            for n in gl.static_range(1, 3):
                mbarrier.wait(free[n].index(stage), passed)
                mbarrier.expect(full[n].index(stage), BLOCK_N * HEAD * 2)
                tile = tiles[n].index(stage)
                _fetch(tensors[n], steps[n], batch, key, full[n].index(stage), tile)
            count += 1
        turn += 1
        more, row, entry, blocks, _by_all = _tile(turn, sizes, ORDER)


@gluon.jit
def _indices(entry, extents):
    """Of a batch entry, along the three axes."""
    rest = entry // extents[2]
    return rest // extents[1], rest % extents[1], entry % extents[2]


@gluon.jit
def _fetch(tensor, steps, batch, row, barrier, tile):
    """Have a tile filled with rows of a batch entry; `steps` is 0 along axes that are broadcast."""
    at = [steps[0] * batch[0], steps[1] * batch[1], steps[2] * batch[2], row, 0]
    wide = tile._reinterpret(tile.dtype, tensor.block_shape, tensor.layout)
    tma.async_copy_global_to_shared(tensor, at, barrier, wide)


@gluon.jit
def _multiply(
    group, tiles, full, free, target, factor, sizes, HEAD: gl.constexpr, ORDER: gl.constexpr,
    HIDES: gl.constexpr,
):  # fmt: skip
    """The work of a warpgroup: its 64 queries of every tile."""
    count = 0  # blocks of keys so far
    done = 0  # tiles so far
    turn = 0
    more, row, entry, blocks, by_all = _tile(turn, sizes, ORDER)
    while more:
        if blocks > 0:
            _attend(
                group, tiles, full, free, target, factor, sizes, count, done, row, entry, blocks,
                by_all, HEAD, ORDER, HIDES,
            )  # fmt: skip
            count += blocks
            done += 1
        turn += 1
        more, row, entry, blocks, by_all = _tile(turn, sizes, ORDER)


@gluon.jit
def _attend(
    group, tiles, full, free, target, factor, sizes, count, done, row, entry, blocks, by_all,
    HEAD: gl.constexpr, ORDER: gl.constexpr, HIDES: gl.constexpr,
):  # fmt: skip
    """Queries from `row` on, over all their keys, and the result stored."""
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    s_rows: gl.constexpr = gl.SliceLayout(1, s_layout)
    o_rows: gl.constexpr = gl.SliceLayout(1, o_layout)
    M, N = sizes[0], sizes[1]
    q, k, v = tiles[0].index(group), tiles[1], tiles[2]
    row += group * ROWS
    last = gl.full([ROWS], N - 1, gl.int32, s_rows)  # key that a query sees
    if ORDER != "":
        last = gl.minimum(last, row + gl.arange(0, ROWS, s_rows) + (N - M))
    mbarrier.wait(full[0].index(0), done & 1)
    stage, phase = count % STAGES, count // STAGES & 1
    mbarrier.wait(full[1].index(stage), phase)
    s = warpgroup_mma_wait(0, deps=[_scores(q, k.index(stage), s_layout)])
    mbarrier.arrive(free[1].index(stage))
    top = gl.full([ROWS], float("-inf"), gl.float32, s_rows)
    key = (blocks - 1) * BLOCK_N
    e, top, keep = _softmax(s, top, factor, key, last, HIDES)
    total = _partial_sums(e)
    p = gl.convert_layout(e.to(q.dtype), p_layout)
    acc = gl.full([ROWS, HEAD], 0.0, gl.float32, o_layout)
    mbarrier.wait(full[2].index(stage), phase)
    count += 1
    if ORDER != "":
        for back in range(1, blocks - by_all):
            key = (blocks - 1 - back) * BLOCK_N
            acc, p, keep, total, top = _step(
                q, k, v, full, free, count, acc, p, keep, total, top, factor, key, last, True
            )
            count += 1
        by_all = gl.minimum(by_all, blocks - 1)
    else:
        by_all = blocks - 1
    for _ in range(by_all):
        acc, p, keep, total, top = _step(
            q, k, v, full, free, count, acc, p, keep, total, top, factor, 0, last, False
        )
        count += 1
    mbarrier.arrive(free[0].index(0))
    stage = (count - 1) % STAGES
    acc = acc * gl.convert_layout(keep, o_rows)[:, None]
    o = warpgroup_mma(p, v.index(stage), acc, is_async=True)
    acc, p = warpgroup_mma_wait(0, deps=[o, p])
    mbarrier.arrive(free[2].index(stage))
    total = gl.convert_layout(gl.sum(total, 1), o_rows)
    acc = acc * (1.0 / total)[:, None]
    _store(acc, target, _indices(entry, sizes[3]), row, M, HEAD)


@gluon.jit
def _step(
    q, k, v, full, free, count, acc, p, keep, total, top, factor, key, last, HIDDEN: gl.constexpr
):  # fmt: skip
    """The scores of block `count` and their softmax, beside the product of the weights `p` of the
    block before with its values. `keep` is what `acc` shrinks by before that is added."""
    o_layout: gl.constexpr = acc.type.layout
    stage, phase = count % STAGES, count // STAGES & 1
    before = (count - 1) % STAGES
    mbarrier.wait(full[1].index(stage), phase)
    s = _scores(q, k.index(stage), gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16]))
    acc = acc * gl.convert_layout(keep, gl.SliceLayout(1, o_layout))[:, None]
    o = warpgroup_mma(p, v.index(before), acc, is_async=True)
    s = warpgroup_mma_wait(1, deps=[s])
    mbarrier.arrive(free[1].index(stage))
    e, top, keep = _softmax(s, top, factor, key, last, HIDDEN)
    total = total * gl.convert_layout(keep, gl.SliceLayout(1, total.type.layout))[:, None]
    total += _partial_sums(e)
    # Here, because ptxas moves the wait for the product before the softmax unless a loop, as a
    # barrier's is, lies between them.
    mbarrier.wait(full[2].index(stage), phase)
    weights = gl.convert_layout(e.to(q.dtype), p.type.layout)
    acc, p, weights = warpgroup_mma_wait(0, deps=[o, p, weights])
    mbarrier.arrive(free[2].index(before))
    return acc, weights, keep, total, top


@gluon.jit
def _scores(q, k, layout: gl.constexpr):
    """q @ kᵀ, still at work."""
    zero = gl.full([ROWS, BLOCK_N], 0.0, gl.float32, layout)
    return warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)


@gluon.jit
def _softmax(s, top, factor, key, last, HIDDEN: gl.constexpr):
    """Powers of two of the scores less the new maximum; it; and what older ones shrink by.

    `factor` is what scores are multiplied by, and what is added to their maximum.
    """
    if HIDDEN:
        keys = key + gl.arange(0, BLOCK_N, gl.SliceLayout(0, s.type.layout))
        s = gl.where(keys[None, :] <= last[:, None], s, float("-inf"))
    highest = gl.maximum(top, gl.max(s, 1) * factor[0] + factor[1])
    base = highest
    if HIDDEN:  # a whole block of keys may be
        base = gl.where(highest == float("-inf"), 0.0, highest)
    return gl.exp2(s * factor[0] - base[:, None]), highest, gl.exp2(top - base)


@gluon.jit
def _partial_sums(e):
    """(ROWS, 4): the sums of what each of the four threads of a row holds, which is two of every
    eight neighbours. They are added up at the end only."""
    return gl.sum(gl.sum(e.reshape([ROWS, BLOCK_N // 8, 4, 2]), 3), 1)


@gluon.jit
def _store(acc, target, batch, row, M, HEAD: gl.constexpr):
    """Store rows of a batch entry of the result, 16 bytes at a time."""
    out, strides, stride = target
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // HEAD, HEAD // 8], [4, 1], [1, 0])
    rows = row + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    columns = gl.arange(0, HEAD, gl.SliceLayout(0, layout))
    for axis in gl.static_range(3):
        out += batch[axis].to(gl.int64) * strides[axis]
    at = out + rows.to(gl.int64)[:, None] * stride + columns[None, :]
    result = gl.convert_layout(acc.to(out.dtype.element_ty), layout)
    gl.store(at, result, mask=(rows < M)[:, None])

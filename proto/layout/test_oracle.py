"""The C++ functions against NumPy (oracle.py): records, query codes, scores, selections, and their quality."""

from __future__ import annotations

import itertools
import os

import numpy as np
import oracle as o
import pytest

LIBRARY = o.Library(os.environ["MNEMO_LAYOUT_LIBRARY"])
SEED = int(os.environ.get("MNEMO_SEED", "20260101"))
FORMATS = [o.CODES2, o.CODES4, o.CODES8, o.BOUNDS, o.MEANS]


def rng(*words: int) -> np.random.Generator:
    print("seed", SEED, words)
    return np.random.default_rng([SEED, *words])


def realistic_keys(random: np.random.Generator, tokens: int, dim: int) -> np.ndarray:
    """Returns keys like those after rotary embedding: a drifting mean, some dims far larger, correlated tokens."""
    channel = np.exp(random.normal(0, 0.7, dim))
    channel[random.integers(0, dim, max(1, dim // 16))] *= 8
    drift = np.cumsum(random.normal(0, 0.05, (tokens, dim)), 0) + random.normal(0, 1, dim)
    return (channel * (drift + random.normal(0, 1, (tokens, dim)))).astype(np.float32)


def hard_keys(random: np.random.Generator, tokens: int, dim: int) -> np.ndarray:
    """Returns zeros, equal keys, single spikes, tiny and huge values, page by page."""
    keys = random.normal(0, 1, (tokens, dim)).astype(np.float32)
    for page, kind in zip(range(tokens // 64), itertools.cycle(range(7))):
        at = keys[page * 64 : page * 64 + 64]
        if kind == 0:
            at[:] = 0
        elif kind == 1:
            at[:] = at[0]
        elif kind == 2:
            at[:, 1:] = 0
        elif kind == 3:
            at *= 1e-7
        elif kind == 4:
            at *= 300
        elif kind == 5:
            at[5, 3] = 60000
        else:
            at[:] = np.sign(at)
    return keys


def stored(keys: np.ndarray, value_type: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the stored form, and its value as float64."""
    if value_type == o.F16:
        return keys.astype(np.float16), keys.astype(np.float16).astype(np.float64)
    if value_type == o.BF16:
        bits = (keys.view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return keys, keys.astype(np.float64)


@pytest.mark.parametrize("dim", [16, 32, 64, 128, 256, 512])
@pytest.mark.parametrize("value_type", [o.F16, o.BF16, o.F32])
def test_records(dim: int, value_type: int) -> None:
    random = rng(dim, value_type)
    pages = 7 if dim <= 64 else 2
    make = hard_keys if dim <= 64 else realistic_keys
    raw, keys = stored(make(random, pages * 64, dim), value_type)
    for format_ in FORMATS:
        parsed = o.parse(LIBRARY.make_records(raw, value_type, format_), format_, dim)
        for page in range(pages):
            check_record(keys[page * 64 : page * 64 + 64], parsed, page, format_, dim)


def check_record(keys: np.ndarray, records: o.Record, page: int, format_: int, dim: int) -> None:
    grid, exponent = o.on_grid(keys)
    step = exponent - 14
    if format_ == o.BOUNDS:
        for part in range(4):
            x = grid[part * 16 : part * 16 + 16]
            e = o.scale_for_largest(float(np.ldexp(np.abs(x).max(), step)), 127)
            assert records.row_scales[page, part] == e
            assert np.array_equal(records.rows[page, part, 0], o.code(x.min(0), step, e, 127, "down"))
            assert np.array_equal(records.rows[page, part, 1], o.code(x.max(0), step, e, 127, "up"))
        return
    x = grid @ o.hadamard(dim)

    def mean(first: int, last: int) -> tuple[np.ndarray, int]:
        total = x[first:last].sum(0)
        finer = step - (last - first).bit_length() + 1
        e = o.scale_for_largest(float(np.ldexp(np.abs(total).max(), finer)), 127)
        return o.code(total, finer, e, 127), e

    if format_ == o.MEANS:
        for row, (first, last) in enumerate([(0, 16), (16, 32), (32, 48), (48, 64), (0, 64)]):
            codes, e = mean(first, last)
            assert records.row_scales[page, row] == e and np.array_equal(records.rows[page, row], codes)
        return
    base, e = mean(0, 64)
    assert records.base_scale[page] == e and np.array_equal(records.base[page], base)
    residual = x - o.reconstruct(base, e, step)
    size = np.abs(residual)
    assert records.top_octave[page] == records.scales[page].max() >> 3
    for t in range(64):
        e = int(records.scales[page, t])
        if format_ == o.CODES2:
            large = size[t] * dim > size[t].sum()
            assert np.array_equal(records.codes[page, t], np.where(residual[t] >= 0, 1, -1) * np.where(large, 3, 1))
            check_ratio(e, (size[t] * np.where(large, 3, 1)).sum() / np.where(large, 9, 1).sum(), step)
        else:
            code_max = o.CODE_MAX[format_]
            assert e == o.scale_for_largest(float(np.ldexp(size[t].max(), step)), code_max)
            assert np.array_equal(records.codes[page, t], o.code(residual[t], step, e, code_max))
    if format_ == o.CODES2:
        check_ratio(int(records.sign_scale[page]), size.mean(), step)


def check_ratio(e: int, ratio: float, step: int) -> None:
    """Checks for the nearest scale; at the border between two, either is valid."""
    if ratio < 2**-16:
        assert e == 0
        return
    want = 8 * (np.log2(ratio) + step) + 128
    assert e == 0 and want < 0.51 or e == 255 and want > 254.49 or abs(e - want) < 0.51


def test_a_record_is_a_function_of_its_page_alone() -> None:
    random = rng(1)
    keys = realistic_keys(random, 256, 64).astype(np.float16)
    for format_ in FORMATS:
        together = LIBRARY.make_records(keys, o.F16, format_)
        alone = np.concatenate([LIBRARY.make_records(keys[p * 64 : p * 64 + 64], o.F16, format_) for p in (3, 1, 0, 2)])
        assert np.array_equal(together, alone[[2, 1, 3, 0]])


def test_values_that_are_not_finite() -> None:
    keys = rng(2).normal(0, 1, (64, 64)).astype(np.float32)
    odd, plain = keys.copy(), keys.copy()
    odd[3, 4], plain[3, 4] = np.nan, 0
    odd[5, 6], plain[5, 6] = -np.inf, -np.finfo(np.float32).max
    for format_ in FORMATS:
        assert np.array_equal(LIBRARY.make_records(odd, o.F32, format_), LIBRARY.make_records(plain, o.F32, format_))
    zeros = LIBRARY.make_queries(np.full((1, 1, 64), np.nan, np.float32), o.CODES2, 0.125)
    assert not zeros.any()


@pytest.mark.parametrize("dim", [16, 64, 512])
@pytest.mark.parametrize("format_", [o.CODES2, o.BOUNDS])
def test_query_codes(dim: int, format_: int) -> None:
    random = rng(dim, format_)
    queries = random.normal(0, 1, (40, 2, dim)) * 10.0 ** random.uniform(-6, 4, (40, 2, 1))
    queries = queries.astype(np.float32)
    weights = random.integers(-32768, 32768, (40, 2)).astype(np.int16)
    softmax_scale = np.float32(dim**-0.5)
    blocks = LIBRARY.make_queries(queries, format_, softmax_scale, weights)
    for n in range(40):
        codes, multiplier, shift, weight = o.parse_query(blocks[n], 2, dim)
        assert np.array_equal(weight, weights[n])
        for g in range(2):
            x, exponent = o.on_grid(queries[n, g])
            if format_ == o.CODES2:
                x = x @ o.hadamard(dim)
            largest = np.abs(x).max()
            assert np.array_equal(codes[g], np.sign(x) * ((2 * 127 * np.abs(x) + largest) // (2 * largest)))
            factor = 16 / np.log(2) * softmax_scale * largest / 127 * 2.0 ** (exponent - 14) / (dim if format_ == o.CODES2 else 1)
            assert 32768 <= multiplier[g] <= 65535
            assert abs(multiplier[g] * 2.0 ** (128 - shift[g]) / factor - 1) < 2**-15


def exact_scores(keys: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Returns q.k / sqrt(dim) in 1/16 log2 units: [group, tokens]."""
    return queries.astype(np.float64) @ keys.astype(np.float64).T * (16 / np.log(2) * queries.shape[1] ** -0.5)


@pytest.mark.parametrize("dim", [16, 64, 128, 512])
def test_scores_are_what_they_stand_for(dim: int) -> None:
    """8-bit codes give the true score within rounding: 1/16 log2 each for two floors, and half a code per dim."""
    random = rng(dim)
    keys = realistic_keys(random, 512, dim)
    queries = (random.normal(0, 1, (2, dim)) * 0.5).astype(np.float32)
    true = exact_scores(keys, queries)
    got = o.scores(
        o.parse(LIBRARY.make_records(keys, o.F32, o.CODES8), o.CODES8, dim), o.CODES8, dim, LIBRARY.make_queries(queries[None], o.CODES8, dim**-0.5)[0], 2, o.DOT
    )
    assert np.abs(got - true).max() < 3 + 0.03 * np.std(true)
    # The bound of a page is an upper bound, except for the query's own rounding.
    bounds = o.scores(
        o.parse(LIBRARY.make_records(keys, o.F32, o.BOUNDS), o.BOUNDS, dim), o.BOUNDS, dim, LIBRARY.make_queries(queries[None], o.BOUNDS, dim**-0.5)[0], 2, o.PAGE_BOUND
    )
    best = true.reshape(2, -1, 16).max(-1)
    assert (bounds >= best - 2 - 0.03 * np.std(true)).all()
    means = o.scores(
        o.parse(LIBRARY.make_records(keys, o.F32, o.MEANS), o.MEANS, dim), o.MEANS, dim, LIBRARY.make_queries(queries[None], o.MEANS, dim**-0.5)[0], 2, o.BLOCK_MEAN
    )
    assert np.abs(means - true.reshape(2, -1, 16).mean(-1)).max() < 3 + 0.03 * np.std(true)


def expected(op: o.Descriptor, records: o.Record, dim: int, block: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, bool]:
    """Returns candidates, ids and ranks best first, and whether a threshold result was cut."""
    per_entry = 1 if op.format <= o.CODES8 else 64 if op.flags & o.PAGES64 else 16
    ids = np.arange(op.begin // per_entry, op.end // per_entry)
    if op.select_op == o.LATEST:
        return len(ids), ids[-op.k :], np.zeros(min(op.k, len(ids)), np.int64), False
    weights = o.parse_query(block, op.group, dim)[3]

    def rank(sign: bool) -> np.ndarray:
        return o.ranks(o.scores(records, op.format, dim, block, op.group, op.score_op, op.flags, sign)[:, ids], op.group_op, weights)

    if op.k1:
        ids = np.sort(ids[o.top_k(rank(True), op.k1)])
    r = rank(False)
    if op.select_op == o.THRESHOLD:
        share = op.group_op == o.GROUP_EXP2_SUM
        keep = r * 65536 >= op.threshold * r.sum() - 65535 if share else r >= op.threshold
        if share:  # the floor of the product, exactly
            keep = np.array([int(v) >= int(r.sum()) * op.threshold // 65536 for v in r], bool)
        ids, r = ids[keep], r[keep]
    best = o.top_k(r, op.k)
    return len(ids), ids[best], r[best], op.select_op == o.THRESHOLD and len(ids) > op.k


def check_selection(op: o.Descriptor, raw_records: np.ndarray, dim: int, block: np.ndarray) -> None:
    result = LIBRARY.score_select(op, dim, raw_records, block)
    count, candidates, last_rank, flags = (int(v) for v in result[:16].copy().view(np.int32))
    want_candidates, ids, rank, cut = expected(op, o.parse(raw_records, op.format, dim), dim, block)
    if not op.flags & o.BY_RANK:
        order = np.argsort(ids)
        ids, rank = ids[order], rank[order]
    assert (count, candidates, flags) == (len(ids), want_candidates, int(cut))
    assert last_rank == (rank.min() if len(rank) else 0)
    assert np.array_equal(result[16 : 16 + 4 * count].copy().view(np.uint32), ids)
    if op.flags & o.RANKS:
        start = 16 + 4 * op.k
        assert np.array_equal(result[start : start + 4 * count].copy().view(np.int32), rank)
        assert not result[start + 4 * count :].any()
    assert not result[16 + 4 * count : 16 + 4 * op.k].any()


OPERATIONS = [
    (format_, score, group_op)
    for format_, score in [(f, s) for f in (o.CODES2, o.CODES4, o.CODES8) for s in (o.DOT, o.RELU_DOT)] + [(o.BOUNDS, o.PAGE_BOUND), (o.MEANS, o.BLOCK_MEAN)]
    for group_op in ([o.GROUP_NONE] if score == o.RELU_DOT else [o.GROUP_MAX, o.GROUP_EXP2_SUM, o.GROUP_PLAIN_MAX])
]


@pytest.mark.parametrize(("format_", "score_op", "group_op"), OPERATIONS)
def test_selections(format_: int, score_op: int, group_op: int) -> None:
    random = rng(format_, score_op, group_op)
    for n in range(12):
        dim = int(random.choice([16, 32, 64, 128]))
        pages = int(random.integers(1, 9))
        group = int(random.choice([1, 2, 3, 8]))
        make = hard_keys if n % 3 == 2 else realistic_keys
        keys = make(random, pages * 64, dim)
        if n % 4 == 1:  # many ties
            keys = np.repeat(keys[::32], 32, 0)
        records = LIBRARY.make_records(keys, o.F32, format_)
        queries = random.normal(0, random.choice([0.01, 0.3, 3, 50]), (1, group, dim))
        if n % 4 == 3:  # adversarial order: scores rise with the token
            order = np.argsort(exact_scores(keys, queries[0])[0])
            records = LIBRARY.make_records(keys[order], o.F32, format_)
        weights = random.integers(-3000, 32768, (1, group))
        block = LIBRARY.make_queries(queries, format_, dim**-0.5, weights if score_op == o.RELU_DOT else None)[0]
        flags = int(random.integers(0, 4)) | (o.PAGES64 if format_ >= o.BOUNDS and n % 2 else 0)
        per_entry = 1 if format_ <= o.CODES8 else 64 if flags & o.PAGES64 else 16
        begin, end = sorted(int(v) * per_entry for v in random.integers(0, pages * 64 // per_entry + 1, 2))
        for k in (1, 7, 64, (end - begin) // per_entry or 1, 8192):
            op = o.Descriptor(op=16, flags=flags, group=group, score_op=score_op, group_op=group_op, select_op=o.TOP_K, format=format_, begin=begin, end=end, k=k)
            check_selection(op, records, dim, block)
            if format_ == o.CODES2:
                op.k1 = k + int(random.integers(0, 100))
                check_selection(op, records, dim, block)
            op.select_op = o.THRESHOLD
            op.threshold = {o.GROUP_MAX: -60, o.GROUP_EXP2_SUM: int(random.integers(0, 3000)), o.GROUP_NONE: 1000, o.GROUP_PLAIN_MAX: 20}[group_op]
            check_selection(op, records, dim, block)
            check_selection(o.Descriptor(op=16, flags=flags, select_op=o.LATEST, format=format_, begin=begin, end=end, k=k), records, dim, block)


def test_weighted_sum() -> None:
    random = rng(3)
    for dim in (16, 64, 256):
        keys = realistic_keys(random, 320, dim)
        records = LIBRARY.make_records(keys, o.F32, o.CODES8)
        query = (random.normal(0, 0.3, (1, 1, dim))).astype(np.float32)
        block = LIBRARY.make_queries(query, o.CODES8, dim**-0.5)[0]
        op = o.Descriptor(op=16, group=1, score_op=o.DOT, group_op=o.GROUP_EXP2_SUM, select_op=o.WEIGHTED_SUM, format=o.CODES8, begin=10, end=300)
        result = LIBRARY.score_select(op, dim, records, block)
        parsed = o.parse(records, o.CODES8, dim)
        weight = o.ranks(o.scores(parsed, o.CODES8, dim, block, 1, o.DOT)[:, 10:300], o.GROUP_EXP2_SUM) >> 8
        top = int(max(parsed.top_octave.max(), (parsed.base_scale >> 3).max()))
        base = (parsed.base * o.T8[parsed.base_scale & 7][:, None]) >> (top - (parsed.base_scale >> 3))[:, None]
        token = (parsed.codes * o.T8[parsed.scales & 7][..., None]) >> (top - (parsed.scales >> 3))[..., None]
        value = (base[:, None] + token).reshape(-1, dim)[10:300]
        total, top_octave = int(result[16:24].copy().view(np.uint64)[0]), int(result[24:28].copy().view(np.uint32)[0])
        assert (int(result[0:4].copy().view(np.uint32)[0]), total, top_octave) == (np.count_nonzero(weight), weight.sum(), top)
        got = result[64:].copy().view(np.int64)
        assert np.array_equal(got, weight @ value)
        # It is also the softmax-weighted mean of the keys.
        y = exact_scores(keys[10:300], query[0])[0] / 16
        p = np.exp2(y - y.max())
        want = p @ keys[10:300] / p.sum()
        mean = got / total * 2.0 ** (top_octave - 23) @ o.hadamard(dim) / dim
        assert np.abs(mean - want).max() < 0.03 * np.abs(keys).max()


def test_recall_of_attention_mass() -> None:
    """Measures the attention mass of the k selected tokens, relative to that of the k best.

    One query, and a group of three with the rank of each group operation. A group operation knows only a query's best
    score, not the sum of its softmax. That costs a group a few percent here.
    """
    random = rng(4)
    found: dict[tuple[int, int, int], list[float]] = {}
    for _ in range(6):
        keys = realistic_keys(random, 2048, 64).astype(np.float16)
        queries = random.normal(0, 0.25, (3, 64)) + random.normal(0, 0.25, 64)
        for group, format_ in itertools.product((1, 3), (o.CODES2, o.CODES4, o.CODES8)):
            y = exact_scores(keys, queries[:group]) / 16
            p = np.exp2(y - y.max(1, keepdims=True))
            mass = (p / p.sum(1, keepdims=True)).sum(0)
            block = LIBRARY.make_queries(queries[None, :group], format_, 0.125)[0]
            parsed = o.parse(LIBRARY.make_records(keys, o.F16, format_), format_, 64)
            y_codes = o.scores(parsed, format_, 64, block, group, o.DOT)
            for group_op in (o.GROUP_MAX, o.GROUP_EXP2_SUM):
                best = o.top_k(o.ranks(y_codes, group_op), 256)
                found.setdefault((group, format_, group_op), []).append(mass[best].sum() / np.sort(mass)[-256:].sum())
    recall = {key: float(np.mean(values)) for key, values in found.items()}
    print(recall)
    for group_op in (o.GROUP_MAX, o.GROUP_EXP2_SUM):
        assert recall[1, o.CODES8, group_op] > 0.999
        assert recall[1, o.CODES4, group_op] > 0.98
        assert recall[1, o.CODES2, group_op] > 0.92
    assert recall[3, o.CODES8, o.GROUP_EXP2_SUM] > 0.9 and recall[3, o.CODES2, o.GROUP_EXP2_SUM] > 0.88
    assert recall[3, o.CODES2, o.GROUP_MAX] > 0.85

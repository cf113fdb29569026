"""The layout in NumPy, written from README.md and not from the C++ sources, as the oracle of test_oracle.py.

Arrays are int64 and exact; right shifts of int64 are floors.
"""

from __future__ import annotations

import ctypes
import dataclasses
import pathlib

import numpy as np

CODES2, CODES4, CODES8, BOUNDS, MEANS, F16, BF16, F32 = 1, 2, 3, 4, 5, 16, 17, 18
DOT, RELU_DOT, PAGE_BOUND, BLOCK_MEAN = 1, 2, 3, 4
GROUP_NONE, GROUP_MAX, GROUP_EXP2_SUM, GROUP_PLAIN_MAX = 0, 1, 2, 3
TOP_K, THRESHOLD, WEIGHTED_SUM, LATEST = 1, 2, 3, 4
BY_RANK, RANKS, PAGES64 = 1, 2, 4
CODE_MAX = {CODES2: 3, CODES4: 7, CODES8: 127}
T8 = np.array([round(128 * 2 ** (i / 8)) for i in range(8)], dtype=np.int64)
EXP2 = np.array([round(2**24 * 2 ** (-i / 16)) for i in range(16)], dtype=np.int64)


class Descriptor(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = [
        ("op", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("epoch", ctypes.c_uint16),
        ("seq", ctypes.c_uint32),
        ("index_id", ctypes.c_uint32),
        ("index_generation", ctypes.c_uint16),
        ("layer_slot", ctypes.c_uint16),
        ("first_head", ctypes.c_uint8),
        ("heads", ctypes.c_uint8),
        ("group", ctypes.c_uint8),
        ("queries", ctypes.c_uint8),
        ("score_op", ctypes.c_uint8),
        ("group_op", ctypes.c_uint8),
        ("select_op", ctypes.c_uint8),
        ("format", ctypes.c_uint8),
        ("begin", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
        ("k", ctypes.c_uint32),
        ("k1", ctypes.c_uint32),
        ("threshold", ctypes.c_int32),
        ("payload_region", ctypes.c_uint16),
        ("result_region", ctypes.c_uint16),
        ("payload_offset", ctypes.c_uint32),
        ("payload_length", ctypes.c_uint32),
        ("result_offset", ctypes.c_uint32),
        ("result_length", ctypes.c_uint32),
    ]


class Library:
    """Binding of libmnemo_layout_c through ctypes."""

    def __init__(self, path: pathlib.Path | str) -> None:
        self.c = ctypes.CDLL(str(path))
        for name in ("mnemo_query_block_bytes", "mnemo_result_block_bytes", "mnemo_layout_hash", "mnemo_quantiser_id"):
            getattr(self.c, name).restype = ctypes.c_uint64

    def make_records(self, keys: np.ndarray, value_type: int, format_: int) -> np.ndarray:
        """keys [pages * 64, dim] in the value type (BF16 as uint16) -> [pages, record bytes]."""
        keys = np.ascontiguousarray(keys)
        pages, dim = len(keys) // 64, keys.shape[1]
        records = np.empty((pages, self.c.mnemo_record_bytes(format_, dim)), np.uint8)
        self.c.mnemo_make_records(_at(keys), value_type, pages, dim, format_, _at(records))
        return records

    def make_queries(self, queries: np.ndarray, format_: int, softmax_scale: float, weights: np.ndarray | None = None) -> np.ndarray:
        """queries [count, group, dim] -> [count, block bytes]."""
        queries = np.ascontiguousarray(queries, np.float32)
        count, group, dim = queries.shape
        blocks = np.empty((count, self.c.mnemo_query_block_bytes(group, dim)), np.uint8)
        w = None if weights is None else np.ascontiguousarray(weights, np.int16)
        self.c.mnemo_make_queries(
            _at(queries), count, group, dim, format_, ctypes.c_float(softmax_scale), None if w is None else _at(w), _at(blocks)
        )
        return blocks

    def score_select(self, op: Descriptor, dim: int, records: np.ndarray, block: np.ndarray) -> np.ndarray:
        size = self.c.mnemo_result_block_bytes(op.select_op, op.flags, op.k, dim)
        result = np.full(size, 0xAA, np.uint8)
        records = np.ascontiguousarray(records)
        self.c.mnemo_score_select(ctypes.byref(op), dim, _at(records), len(records), _at(block), _at(result), ctypes.c_uint64(size))
        return result


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def hadamard(dim: int) -> np.ndarray:
    h = np.ones((1, 1), np.int64)
    while len(h) < dim:
        h = np.kron(np.array([[1, 1], [1, -1]], np.int64), h)
    return h


def on_grid(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Integers and the exponent E: value ~ integer * 2^(E - 14)."""
    values = values.astype(np.float64)
    largest = np.abs(values).max()
    exponent = max(int(np.frexp(largest)[1]) - 1, -64) if largest > 0 else -64
    return np.rint(np.ldexp(values, 14 - exponent)).astype(np.int64), exponent


def scale_value(e: np.ndarray | int) -> np.ndarray:
    """Returns the value of a scale byte, exact in float64."""
    e = np.asarray(e, np.int64)
    return np.ldexp(T8[e & 7].astype(np.float64), ((e >> 3) - 16 - 7).astype(np.int32))


def scale_for_largest(largest: float, code_max: int) -> int:
    """All comparisons are exact: the products have at most 15 bits."""
    if largest == 0:
        return 0
    fits = np.flatnonzero(code_max * scale_value(np.arange(256)) >= largest)
    return int(fits[0]) if len(fits) else 255


def code(steps: np.ndarray, step_exponent: int, e: int, code_max: int, rounding: str = "nearest") -> np.ndarray:
    """steps * 2^step_exponent / scale; Python integers, so exact."""
    octave = (e >> 3) - 16 - 7 - step_exponent
    out = np.empty(steps.shape, np.int64)
    for at, value in np.ndenumerate(steps):
        numerator = abs(int(value)) << max(-octave, 0)
        denominator = int(T8[e & 7]) << max(octave, 0)
        outward = rounding == ("down" if value < 0 else "up")
        if rounding == "nearest":
            c = (2 * numerator + denominator) // (2 * denominator)
        else:
            c = -(-numerator // denominator) if outward else numerator // denominator
        out[at] = min(c, code_max) * (-1 if value < 0 else 1)
    return out


def reconstruct(codes: np.ndarray, e: int, step_exponent: int) -> np.ndarray:
    """Returns codes * scale in steps, halves rounded up."""
    octave = (e >> 3) - 16 - 7 - step_exponent
    return np.array([_shift_half_up(int(c) * int(T8[e & 7]), octave) for c in codes.ravel()], np.int64).reshape(codes.shape)


def _shift_half_up(value: int, octave: int) -> int:
    return value << octave if octave >= 0 else (value + (1 << (-octave - 1))) >> -octave


@dataclasses.dataclass
class Record:
    """One parsed record, or several with a leading dimension of pages."""

    base: np.ndarray  # [..., dim]
    codes: np.ndarray  # [..., 64, dim]
    scales: np.ndarray  # [..., 64]
    rows: np.ndarray  # bounds [..., 4, 2, dim], means [..., 5, dim]
    base_scale: np.ndarray
    top_octave: np.ndarray
    sign_scale: np.ndarray
    row_scales: np.ndarray  # [..., 5]


def parse(records: np.ndarray, format_: int, dim: int) -> Record:
    """Splits adjacent sections: header 16, base, sign plane, magnitude plane or codes, scales; or header, rows."""
    lead = records.shape[:-1]
    at = 16

    def take(size: int) -> np.ndarray:
        nonlocal at
        at += size
        return records[..., at - size : at]

    empty = np.zeros(0, np.int64)
    base = codes = scales = rows = empty
    if format_ <= CODES8:
        base = take(dim).view(np.int8).astype(np.int64)
        if format_ == CODES2:
            planes = [np.unpackbits(take(8 * dim), axis=-1, bitorder="little").reshape(*lead, 64, dim).astype(np.int64) for _ in "sm"]
            codes = (2 * planes[0] - 1) * (2 * planes[1] + 1)
        elif format_ == CODES4:
            packed = take(32 * dim).reshape(*lead, 64, dim // 2).astype(np.int64)
            nibbles = np.concatenate([packed & 15, packed >> 4], axis=-1)
            codes = np.where(nibbles < 8, nibbles, nibbles - 16)
        else:
            codes = take(64 * dim).view(np.int8).reshape(*lead, 64, dim).astype(np.int64)
        scales = take(64).astype(np.int64)
    elif format_ == BOUNDS:
        rows = take(8 * dim).view(np.int8).reshape(*lead, 4, 2, dim).astype(np.int64)
    else:
        rows = take(5 * dim).view(np.int8).reshape(*lead, 5, dim).astype(np.int64)
    head = records.astype(np.int64)
    return Record(base, codes, scales, rows, head[..., 0], head[..., 1], head[..., 2], head[..., 8:13])


def parse_query(block: np.ndarray, group: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """codes [group, dim], multiplier, shift, weight [group]."""
    codes = block[: group * dim].view(np.int8).reshape(group, dim).astype(np.int64)
    start = -(-group * dim // 64) * 64
    params = block[start : start + 8 * group].reshape(group, 8)
    multiplier = params[:, 0:2].copy().view(np.uint16)[:, 0].astype(np.int64)
    return codes, multiplier, params[:, 2].astype(np.int64), params[:, 4:6].copy().view(np.int16)[:, 0].astype(np.int64)


def dot_shift(code_max: int, dim: int) -> int:
    return max((127 * code_max * dim * 235).bit_length() - 15, 0)


def term(dot: np.ndarray, scale: np.ndarray, top: np.ndarray, s0: int, multiplier: int, shift: int) -> np.ndarray:
    v = (dot * T8[scale & 7]) >> np.clip(s0 + np.clip(top - (scale >> 3), 0, 31), 0, 31)
    return np.clip((v * multiplier) >> np.clip(shift - 105 - s0 - top, 0, 31), -32768, 32767)


def scores(records: Record, format_: int, dim: int, block: np.ndarray, group: int, score_op: int, flags: int = 0, sign: bool = False) -> np.ndarray:
    """Returns y [group, entries] of all pages."""
    q, multiplier, shift, _ = parse_query(block, group, dim)
    out = []
    for g in range(group):

        def own(dot: np.ndarray, e: np.ndarray, code_max: int, g: int = g) -> np.ndarray:
            return term(dot, e, e >> 3, dot_shift(code_max, dim), int(multiplier[g]), int(shift[g]))

        if score_op == PAGE_BOUND:
            bound = np.maximum(q[g] * records.rows[..., 0, :], q[g] * records.rows[..., 1, :]).sum(-1)
            y = own(bound, records.row_scales[:, :4], 127)
            y = y.max(1) if flags & PAGES64 else y.ravel()
        elif score_op == BLOCK_MEAN:
            y = own(records.rows @ q[g], records.row_scales, 127)
            y = y[:, 4] if flags & PAGES64 else y[:, :4].ravel()
        else:
            base = own(records.base @ q[g], records.base_scale, 127)[:, None]
            codes = np.sign(records.codes) if sign else records.codes
            dot = (codes.astype(np.float64) @ q[g].astype(np.float64)).astype(np.int64)  # below 2^53, so exact
            if sign:
                token = own(dot, np.broadcast_to(records.sign_scale[:, None], dot.shape), 1)
            else:
                top = np.broadcast_to(records.top_octave[:, None], dot.shape)
                token = term(dot, records.scales, top, dot_shift(CODE_MAX[format_], dim), int(multiplier[g]), int(shift[g]))
            y = np.clip(base + token, -32768, 32767).ravel()
        out.append(y)
    return np.stack(out)


def ranks(y: np.ndarray, group_op: int, weights: np.ndarray | None = None) -> np.ndarray:
    """y [group, n] -> [n]."""
    if y.shape[1] == 0:
        return np.zeros(0, np.int64)
    if group_op == GROUP_NONE:
        return (np.maximum(y, 0) * weights[:, None]).sum(0) >> 5
    if group_op == GROUP_PLAIN_MAX:
        return np.maximum(y, -32767).max(0)
    below = y.max(1, keepdims=True) - y
    if group_op == GROUP_MAX:
        return np.maximum(-below, -4095).max(0)
    return np.where(below >> 4 < 32, EXP2[below & 15] >> np.minimum(below >> 4, 31), 0).sum(0)


def top_k(rank: np.ndarray, k: int) -> np.ndarray:
    """Returns positions, best first; of equal ranks the lowest first."""
    return np.argsort(-rank, kind="stable")[:k]

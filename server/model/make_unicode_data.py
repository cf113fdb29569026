#!/usr/bin/env python3
"""Writes unicode_data.cc, the character properties that the tokenizers need.

    pip install unicodedata2==16.0.0
    python3 make_unicode_data.py > unicode_data.cc

The reference tokenizers were built with two versions of Unicode: 16.0 for regular expressions, and 9.0 for normalization
form C. This script reproduces both. Text that the two versions treat differently is rare, but its token ids must match.
"""

import sys

import unicodedata2 as unicodedata

assert unicodedata.unidata_version == "16.0.0", unicodedata.unidata_version

# Assigned after Unicode 9.0 and affected by normalization: combining classes other than zero, and
# compositions.
ASSIGNED_AFTER_9 = [
    (0x7FD, 0x7FD), (0x897, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE), (0xC3C, 0xC3C), (0xD3B, 0xD3C),
    (0xEBA, 0xEBA), (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA), (0xA82C, 0xA82C), (0x105C9, 0x105C9),
    (0x105E4, 0x105E4), (0x10D24, 0x10D27), (0x10D69, 0x10D6D), (0x10EAB, 0x10EAC), (0x10EFD, 0x10EFF),
    (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11070, 0x11070), (0x1133B, 0x1133B), (0x11383, 0x11383),
    (0x11385, 0x11385), (0x1138E, 0x1138E), (0x11391, 0x11391), (0x113C5, 0x113C5), (0x113C7, 0x113C8),
    (0x113CE, 0x113D0), (0x1145E, 0x1145E), (0x11839, 0x1183A), (0x11938, 0x11938), (0x1193D, 0x1193E),
    (0x11943, 0x11943), (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47), (0x11A99, 0x11A99),
    (0x11D42, 0x11D42), (0x11D44, 0x11D45), (0x11D97, 0x11D97), (0x11F41, 0x11F42), (0x16121, 0x16128),
    (0x1612F, 0x1612F), (0x16D68, 0x16D6A), (0x16FF0, 0x16FF1), (0x1E08F, 0x1E08F), (0x1E130, 0x1E136),
    (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF), (0x1E4EC, 0x1E4EF), (0x1E5EE, 0x1E5EF),
]

# Numeric characters added in Unicode 17.0: the splitter of single digits (`smollm`) already knows them.
NUMERIC_SINCE_17 = [(0x11DE0, 0x11DE9), (0x16FF4, 0x16FF6)]

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def is_after_9(code_point):
    return any(first <= code_point <= last for first, last in ASSIGNED_AFTER_9)


def ranges(value_of):
    """Returns [(first, last, value)], the maximal runs of code points with the same nonzero value."""
    runs = []
    for c in CODE_POINTS:
        value = value_of(c)
        if not value:
            continue
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == value:
            runs[-1][1] = c
        else:
            runs.append([c, c, value])
    return runs


def category(c):
    kind = unicodedata.category(chr(c))
    if c in WHITE_SPACE:
        return "kSpace"
    if kind[0] == "L":
        return "kLetter"
    if kind[0] == "N":
        return "kNumber"
    if any(first <= c <= last for first, last in NUMERIC_SINCE_17):
        return "kLateNumber"
    return None


# The property White_Space.
WHITE_SPACE = {c for c in CODE_POINTS if unicodedata.category(chr(c))[0] == "Z"} | {9, 10, 11, 12, 13, 0x85}


def decompositions():
    """Returns (code point, first, second or 0, whether the pair composes again); Hangul is arithmetic and left out."""
    rows = []
    for c in CODE_POINTS:
        fields = unicodedata.decomposition(chr(c)).split()
        if not fields or fields[0].startswith("<") or is_after_9(c):
            continue
        parts = [int(field, 16) for field in fields]
        assert len(parts) <= 2
        composes = unicodedata.normalize("NFC", chr(c)) == chr(c)
        rows.append((c, parts[0], parts[1] if len(parts) == 2 else 0, int(composes)))
    return rows


def table(rows):
    lines, line = [], "   "
    for row in rows:
        cell = " {" + ", ".join(f"0x{v:X}" if isinstance(v, int) and v > 255 else str(v) for v in row) + "},"
        if len(line) + len(cell) > 110:
            lines.append(line)
            line = "   "
        line += cell
    return "\n".join(lines + [line])


def main():
    classes = ranges(lambda c: 0 if is_after_9(c) else unicodedata.combining(chr(c)))
    print("// Written by make_unicode_data.py; do not edit.")
    print('#include "server/model/unicode_data.h"\n\nnamespace mnemo::model {\n\n// clang-format off')
    for name, kind, rows in (
        ("kCategoryRanges", "CategoryRange", ranges(category)),
        ("kCombiningRanges", "CombiningRange", classes),
        ("kDecompositions", "Decomposition", decompositions()),
    ):
        print(f"static constexpr {kind} {name}Table[] = {{\n{table(rows)}\n}};")
        print(f"const std::span<const {kind}> {name}{{{name}Table}};\n")
    print("// clang-format on\n\n}  // namespace mnemo::model")
    return 0


if __name__ == "__main__":
    sys.exit(main())

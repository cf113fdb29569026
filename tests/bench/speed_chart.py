"""Draws README's picture, docs/speed.svg, from the figures recorded in tests/bench/NOTES.md.

    speed_chart.py > docs/speed.svg

The figures are the table whose first column is "tokens/s, batch 1": decoding at three contexts, one stream.
"""

from __future__ import annotations

import pathlib
import re
import sys

NOTES = pathlib.Path(__file__).resolve().parent / "NOTES.md"
CONTEXTS = (("at 2,048", "2,048"), ("at 4,096", "4,096"), ("at 8,000", "8,000"))
BARS = (
    ("token_topk, inline", "mnemo, token_topk", "#1b6ca8"),
    ("dense", "mnemo, dense", "#7fb2d9"),
    ("llama.cpp", "llama.cpp", "#b0b0b0"),
    ("llama.cpp, flash attention", "llama.cpp, flash attention", "#8f8f8f"),
    ("openvino-genai", "openvino-genai", "#d0d0d0"),
)
WIDTH, HEIGHT = 760, 300
LEFT, TOP, BOTTOM = 50, 58, 250
BAR = 36


def table(text: str) -> dict[str, dict[str, float]]:
    """Rows of the table by their name, each with its figure by the column's name."""
    lines = text.split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith("| tokens/s, batch 1 |"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:]]
    columns = cells[0]
    rows: dict[str, dict[str, float]] = {}
    for row in cells[2:]:
        if len(row) < len(columns):
            break
        rows[row[0]] = {name: float(cell) for name, cell in zip(columns, row) if re.fullmatch(r"[\d.]+", cell)}
    return rows


def svg(rows: dict[str, dict[str, float]]) -> str:
    largest = max(figure for row in rows.values() for name, figure in row.items() if name.startswith("at "))
    scale = (BOTTOM - TOP) / largest
    group = (WIDTH - LEFT) / len(CONTEXTS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12" role="img">',
        "<title>Tokens a second of one stream at three context lengths: mnemo, llama.cpp and openvino-genai</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="14">Decoding, tokens/s of one stream. SmolLM2 135M, two CPU cores, budget 1,024.</text>',
    ]
    at = LEFT
    for _, label, colour in BARS:
        parts.append(f'<rect x="{at:.0f}" y="30" width="11" height="11" fill="{colour}"/><text x="{at + 15:.0f}" y="40">{label}</text>')
        at += 36 + 6.2 * len(label)
    for index, (column, label) in enumerate(CONTEXTS):
        x = LEFT + index * group
        for name, _, colour in BARS:
            figure = rows[name][column]
            height = figure * scale
            parts.append(f'<rect x="{x:.0f}" y="{BOTTOM - height:.1f}" width="{BAR}" height="{height:.1f}" fill="{colour}"/>')
            parts.append(f'<text x="{x + BAR / 2:.0f}" y="{BOTTOM - height - 4:.1f}" text-anchor="middle">{figure:.0f}</text>')
            x += BAR + 3
        middle = LEFT + index * group + len(BARS) * (BAR + 3) / 2
        parts.append(f'<text x="{middle:.0f}" y="{BOTTOM + 18}" text-anchor="middle">context {label}</text>')
    parts.append(f'<line x1="{LEFT}" y1="{BOTTOM}" x2="{WIDTH - 10}" y2="{BOTTOM}" stroke="#404040"/>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 10}" fill="#606060">Recorded figures: tests/bench/NOTES.md, machine A.</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(svg(table(NOTES.read_text(encoding="utf-8"))))

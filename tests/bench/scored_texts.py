"""The token ids of a text that benchmarks score, and the options of quality.py and quality_oracle.py that choose them."""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MNEMO_BIN", ROOT / "build" / "release" / "bin"))


def tokens_of(model: str, text: str, wanted: int) -> list[int]:
    found = subprocess.run([BIN / "mnemo", "tokenize", "--gguf", model], input=pathlib.Path(text).read_bytes(), capture_output=True, check=True)
    ids = [int(i) for i in found.stdout.split()]
    if len(ids) < wanted:
        sys.exit(f"--text has {len(ids)} tokens, fewer than --tokens {wanted}")
    return ids[:wanted]


def options(doc: str | None, methods: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, help="UTF-8 text")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--decoded", type=int, default=1024)
    parser.add_argument("--back", type=int, default=6168)
    parser.add_argument("--budgets", default="512,1024,2048")
    parser.add_argument("--methods", default=",".join(methods))
    parser.add_argument("--texts", default="plain,repeat")
    return parser


def texts_of(arguments: argparse.Namespace) -> dict[str, list[int]]:
    """`plain` is the text itself; in `repeat` the last --decoded tokens repeat the passage --back tokens earlier."""
    ids = tokens_of(arguments.model, arguments.text, arguments.tokens)
    begin = len(ids) - arguments.decoded
    passage = ids[begin - arguments.back : begin - arguments.back + arguments.decoded]
    return {"plain": ids, "repeat": ids[:begin] + passage}

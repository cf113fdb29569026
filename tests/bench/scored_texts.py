"""The token ids that quality.py and quality_oracle.py score."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MNEMO_BIN", ROOT / "build" / "release" / "bin"))


def tokens_of(model: str, text: str, wanted: int) -> list[int]:
    found = subprocess.run([BIN / "mnemo", "tokenize", "--gguf", model], input=pathlib.Path(text).read_bytes(), capture_output=True, check=True)
    ids = [int(i) for i in found.stdout.split()]
    if len(ids) < wanted:
        sys.exit(f"--text has {len(ids)} tokens, fewer than {wanted}")
    return ids[:wanted]


def texts_of(model: str, text: str, tokens: int, decoded: int, back: int) -> dict[str, list[int]]:
    """`plain` is the text itself; in `repeat` the last `decoded` tokens repeat the passage `back` tokens earlier."""
    ids = tokens_of(model, text, tokens)
    begin = len(ids) - decoded
    passage = ids[begin - back : begin - back + decoded]
    return {"plain": ids, "repeat": ids[:begin] + passage}

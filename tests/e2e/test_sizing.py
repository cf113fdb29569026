"""The chapter on sizing of docs/OPERATIONS.md: its formulas and its figures for SmolLM2, against the model file and live daemons."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
from typing import Any

import gguf
import pytest
from harness import Daemon, pb, request, wait_for

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs/OPERATIONS.md"
SMOL = pathlib.Path(os.environ.get("MNEMO_MODELS", pathlib.Path.home() / ".cache" / "mnemo" / "models")) / "SmolLM2-135M-Instruct.Q4_1.gguf"
PAGE_TOKENS = 64
DENSE_LAYERS = 2
WEIGHTS = "find /proc/PID/fd -lname '/memfd:mnemo-weights*' -exec stat -L -c %s {} +"


def bytes_of_token(what: str) -> int:
    """The figure of the document, which has to be that of its formula."""
    row = re.search(rf"^\| {re.escape(what)} \| `([^`]+)` \| ([0-9,]+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert row, what
    fields = gguf.GGUFReader(SMOL).fields
    layers = int(fields["llama.block_count"].contents())
    heads = int(fields["llama.attention.head_count_kv"].contents())
    width, all_heads = (int(fields[f"llama.{key}"].contents()) for key in ("embedding_length", "attention.head_count"))
    names = {"layers": layers, "heads": heads, "dim": width // all_heads, "indexed": layers - DENSE_LAYERS}
    figure = int(row[2].replace(",", ""))
    assert eval(row[1], {}, names) == figure, what
    return figure


@pytest.mark.parametrize(("kind", "what"), [("q8", "KV pages, `engine.kv_type` q8"), ("f16", "KV pages, f16 or bf16")])
def test_kv_pages(kind: str, what: str) -> None:
    pages = 1000
    # Memory that is mapped and not used. A page of one byte a token more or less is another number of pages.
    settings = {"engine.kv_type": kind, "engine.kv_cache_bytes": pages * PAGE_TOKENS * bytes_of_token(what), "memory.services": 0}
    with Daemon(SMOL, settings=settings) as daemon:
        assert daemon.status().workers[0].kv_pages_total == pages


def test_weights_and_indexes() -> None:
    with Daemon(SMOL, settings={"memory.services": 1, "memory.health_interval_ms": 50}) as daemon:
        assert f"`{WEIGHTS}`" in DOCUMENT.read_text()
        command = shlex.split(WEIGHTS.replace("PID", str(daemon.process.pid)))
        image = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert abs(image - SMOL.stat().st_size) < 0.01 * SMOL.stat().st_size
        wait_for("the worker is attached", daemon.attached)
        for bits in (2, 4, 8):
            figure = bytes_of_token(f"index, keys of {bits} bits")
            call = daemon.generation.Generate(sparse(bits), timeout=120)
            # Pages of the prompt, and of what has been generated.
            wanted = {pages * PAGE_TOKENS * figure for pages in range(10, 33)}
            wait_for(f"an index of {bits} bits", lambda wanted=wanted: daemon.status().memory_services[0].bytes_used in wanted)
            call.cancel()
            wait_for("the index is gone", lambda: daemon.status().memory_services[0].bytes_used == 0)


def sparse(bits: int) -> Any:
    message = request([1 + i % 250 for i in range(10 * PAGE_TOKENS)], max_tokens=1400, ignore_eos=True)
    message.attention.method = pb.ATTENTION_METHOD_TOKEN_TOPK
    message.attention.placement = pb.PLACEMENT_MEMORY_SERVICE
    message.attention.token_budget = 128
    message.attention.key_bits = bits
    return message


def test_connections() -> None:
    """LimitNOFILE - 64 - 8 * 2: one worker, one service, one file."""
    document = DOCUMENT.read_text()
    assert "min(65536, LimitNOFILE - 64 - 8 * (workers + memory services + addresses) - (files of the model - 1))" in document
    prefix = ("/bin/sh", "-c", 'ulimit -n 200 && exec "$0" "$@"')
    with Daemon(SMOL, settings={"memory.services": 1, "server.max_connections": 1000}, prefix=prefix) as daemon:
        assert f"with a limit of 200 descriptors; it is {200 - 64 - 8 * 2}" in daemon.log()

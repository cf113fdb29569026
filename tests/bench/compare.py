"""Speed against peers in one run: mnemod through gRPC, llama-cpp-python (the better of flash attention off and on) and openvino-genai.
All have the same threads and the same GGUF file.

Every cell is measured --rounds times. The servers take turns, one at a time, so that a change of the machine's load meets all of them.
The best round of each counts, since noise only slows down.

    PEERS_PYTHON=python-with-the-peers compare.py --model M.gguf [--rounds 3] [--json]

The peers: `pip install llama-cpp-python openvino-genai` (llama-cpp-python builds from source in minutes).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from peers import prompt  # noqa: E402

# Name, request, target ratio against the better peer (None: no target).
CELLS: list[tuple[str, dict[str, int | str], float | None]] = [
    ("prefill 512", {"kind": "prefill", "tokens": 512}, 0.8),
    ("prefill 4,096", {"kind": "prefill", "tokens": 4096}, 0.8),
    ("decode, batch 1", {"kind": "decode", "batch": 1, "context": 16, "tokens": 256}, 1.3),
    ("decode, batch 8", {"kind": "decode", "batch": 8, "context": 16, "tokens": 128}, 1.0),
    ("decode at 2,048", {"kind": "decode", "batch": 1, "context": 2048, "tokens": 96}, None),
    ("decode at 4,096", {"kind": "decode", "batch": 1, "context": 4096, "tokens": 64}, None),
    ("decode at 8,000", {"kind": "decode", "batch": 1, "context": 8000, "tokens": 64}, None),
]


def tokens_of(cell: dict[str, Any]) -> int:
    return int(cell["tokens"]) * int(cell.get("batch", 1))


class Peer:
    def __init__(self, name: str, python: str, model: str, threads: int):
        self.name = name
        command = [python, str(pathlib.Path(__file__).with_name("peers.py")), name, model, str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return dict(json.loads(line))

    def measure(self, cell: dict[str, Any], seed: int) -> float:
        assert self.process.stdin is not None
        print(json.dumps({**cell, "seed": seed}), file=self.process.stdin, flush=True)
        return float(self._read()["seconds"])

    def close(self) -> None:
        self.process.kill()


def add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", default="llama.cpp,llama.cpp-fa,openvino")


def peers_of(arguments: argparse.Namespace) -> Iterator[Peer]:
    """Starts the peers one by one; none without PEERS_PYTHON."""
    python = os.environ.get("PEERS_PYTHON")
    for name in arguments.peers.split(",") if python else ():
        yield Peer(name, python or "", arguments.model, arguments.threads)


class Mnemo:
    name = "mnemo"

    def __init__(self, model: str, threads: int, settings: list[str]):
        chosen: dict[str, Any] = {"cpu.threads": threads, "engine.prefix_cache": "false"}
        chosen.update(setting.split("=", 1) for setting in settings)
        self.daemon = harness.Daemon(pathlib.Path(model), settings=chosen)
        self.daemon.__enter__()

    def measure(self, cell: dict[str, Any], seed: int) -> float:
        if cell["kind"] == "prefill":
            request = harness.request(prompt(cell["tokens"], seed), max_tokens=1, ignore_eos=True)
            began = time.perf_counter()
            self.daemon.generate(request).check_ok()
            return time.perf_counter() - began
        batch = cell["batch"]
        with concurrent.futures.ThreadPoolExecutor(batch) as pool:
            spans = list(pool.map(lambda i: self._stream(cell, seed + i), range(batch)))
        # The time runs from the moment at which every stream has its first token until the last one ends. Tokens of a stream from
        # before that moment do not count.
        start, end = max(times[0][0] for times in spans), max(times[-1][0] for times in spans)
        counted = sum(count for times in spans for at, count in times if at > start)
        return (end - start) * tokens_of(cell) / counted

    def request(self, cell: dict[str, Any], seed: int) -> Any:
        return harness.request(prompt(cell["context"], seed), max_tokens=cell["tokens"] + 1, ignore_eos=True)

    def _stream(self, cell: dict[str, Any], seed: int) -> list[tuple[float, int]]:
        times = []
        for message in self.daemon.generation.Generate(self.request(cell, seed)):
            if message.delta.tokens:
                times.append((time.perf_counter(), len(message.delta.tokens)))
        return times

    def close(self) -> None:
        self.daemon.__exit__(None, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="cells whose name contains this")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for mnemod")
    add_peers(parser)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    servers: list[Any] = [Mnemo(arguments.model, arguments.threads, arguments.set)]
    try:
        for peer in peers_of(arguments):
            servers.append(peer)
        if len(servers) == 1:
            print("PEERS_PYTHON is not set: mnemo alone", file=sys.stderr)
        report(servers, arguments)
    finally:
        for server in servers:
            server.close()


def report(servers: list[Any], arguments: argparse.Namespace) -> None:
    cells = [c for c in CELLS if arguments.only is None or arguments.only in c[0]]
    rates: dict[str, dict[str, float]] = {}
    for number, (title, cell, _) in enumerate(cells):
        seconds: dict[str, float] = {}
        for turn in range(arguments.rounds):
            for server in servers:
                took = server.measure(cell, 1000 * number + 20 * turn)
                seconds[server.name] = min(took, seconds.get(server.name, took))
        rates[title] = {name: tokens_of(cell) / took for name, took in seconds.items()}
        print(f"{title}: {rates[title]}", file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps(rates))
        return
    names = [server.name for server in servers]
    print("| tokens/s | " + " | ".join(names) + " | against the better peer | wanted |")
    print("|---" * (len(names) + 3) + "|")
    for title, _, target in cells:
        row = rates[title]
        others = [row[name] for name in names[1:]]
        ratio = f"{row['mnemo'] / max(others):.2f}" if others else "-"
        print(f"| {title} | " + " | ".join(f"{row[n]:,.0f}" for n in names) + f" | {ratio} | {target or '-'} |")


if __name__ == "__main__":
    main()

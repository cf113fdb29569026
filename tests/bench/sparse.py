"""Decoding with sparse attention, each method in the worker and in the memory service, against dense decoding, llama.cpp and
openvino-genai in one run. All have the same threads and the same GGUF file; they take turns, and the best of --rounds counts (compare.py).

    PEERS_PYTHON=python-with-the-peers sparse.py --model M.gguf [--contexts 2048,4096,8000] [--batches 1,8] [--budget 1024]

Without PEERS_PYTHON the ratios are those against dense mnemo alone.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import compare  # noqa: E402
import harness  # noqa: E402

pb = harness.pb
METHODS = {
    "token_topk": pb.ATTENTION_METHOD_TOKEN_TOPK,
    "cascade": pb.ATTENTION_METHOD_CASCADE,
    "page_bound": pb.ATTENTION_METHOD_PAGE_BOUND,
    "block_mean": pb.ATTENTION_METHOD_BLOCK_MEAN,
}
PLACEMENTS = {"inline": pb.PLACEMENT_WORKER, "offloaded": pb.PLACEMENT_MEMORY_SERVICE}


class Variant(compare.Mnemo):
    """One method and placement of a daemon that all of them share."""

    def __init__(self, daemon: harness.Daemon, name: str, attention: Any):
        self.daemon, self.name, self.attention = daemon, name, attention

    def request(self, cell: dict[str, Any], seed: int) -> Any:
        request = super().request(cell, seed)
        request.attention.CopyFrom(self.attention)
        return request

    def _stream(self, cell: dict[str, Any], seed: int) -> list[tuple[float, int]]:
        """Leaves out the first tokens: before the second one, a prompt from the prefix cache is indexed, which a prompt that is
        prefilled has finished by then."""
        return super()._stream({**cell, "tokens": cell["tokens"] + 3}, seed)[3:]

    def cache_prompts(self, cell: dict[str, Any], seed: int) -> None:
        for i in range(cell["batch"]):
            self.daemon.generate(self.request({**cell, "tokens": 1}, seed + i), timeout=None).check_ok()

    def close(self) -> None:
        pass


def variants(daemon: harness.Daemon, methods: list[str], placements: list[str], budget: int) -> list[Variant]:
    found = [Variant(daemon, "dense", pb.Attention(method=pb.ATTENTION_METHOD_DENSE))]
    for method in methods:
        for placement in placements:
            attention = pb.Attention(method=METHODS[method], token_budget=budget, placement=PLACEMENTS[placement])
            found.append(Variant(daemon, f"{method} {placement}", attention))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contexts", default="2048,4096,8000")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--placements", default=",".join(PLACEMENTS))
    compare.add_peers(parser)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for mnemod")
    arguments = parser.parse_args()
    settings: dict[str, Any] = {"cpu.threads": arguments.threads, "engine.kv_cache_bytes": 6 << 30}
    settings.update(setting.split("=", 1) for setting in arguments.set)
    daemon = harness.Daemon(pathlib.Path(arguments.model), settings=settings)
    daemon.__enter__()
    peers: list[Any] = []
    try:
        for peer in compare.peers_of(arguments):
            peers.append(peer)
        ours = variants(daemon, arguments.methods.split(","), arguments.placements.split(","), arguments.budget)
        for batch in map(int, arguments.batches.split(",")):
            for context in map(int, arguments.contexts.split(",")):
                table(ours, peers, {"kind": "decode", "batch": batch, "context": context, "tokens": arguments.tokens}, arguments.rounds)
    finally:
        for peer in peers:
            peer.close()
        daemon.__exit__(None, None, None)


def table(ours: list[Variant], peers: list[Any], cell: dict[str, Any], rounds: int) -> None:
    """The variants of a turn have one prompt and find it in the prefix cache, so that the streams of a batch begin together."""
    best: dict[str, float] = {}
    for turn in range(rounds):
        seed = cell["context"] + 1000 * cell["batch"] + 20 * turn
        ours[0].cache_prompts(cell, seed)
        for server in [*ours, *peers]:
            rate = compare.tokens_of(cell) / server.measure(cell, seed)
            best[server.name] = max(rate, best.get(server.name, 0))
            print(f"{cell} {server.name}: {rate:.1f}", file=sys.stderr, flush=True)
    peer = max((best[p.name] for p in peers), default=None)
    print(f"\nbatch {cell['batch']} at {cell['context']:,} tokens\n")
    print("| | tokens/s | of dense | of the better peer |\n|---|---|---|---|")
    for name, rate in best.items():
        of_peer = f"{rate / peer:.2f}" if peer else "-"
        print(f"| {name} | {rate:,.1f} | {rate / best['dense']:.2f} | {of_peer} |", flush=True)


if __name__ == "__main__":
    main()

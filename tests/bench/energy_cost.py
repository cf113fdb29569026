"""Cost of energy accounting: CPU time of mnemod and of its worker for each streamed token, and the time to first token.

Two daemons with the same model run in turns, one with meters and one with energy.enabled: false. The meters are a powercap tree of
files with constant counts moved on by this script. Each pair runs in alternating order, and the median of the paired differences counts.

    energy_cost.py --model M.gguf [--pairs 20] [--streams 8] [--tokens 200]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from overhead import cpu_seconds, through_mnemod  # noqa: E402
from peers import prompt  # noqa: E402
from test_energy import Meter  # noqa: E402


def cost(daemon: harness.Daemon, streams: int, tokens: int, seed: int) -> dict[str, float]:
    """Microseconds of CPU time a token, by process."""
    pids = {"mnemod": daemon.process.pid, "worker": int(daemon.status().workers[0].pid)}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    requests = [harness.request(prompt(16, seed * streams + i), max_tokens=tokens, ignore_eos=True) for i in range(streams)]
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        results = list(pool.map(lambda r: daemon.generate(r, timeout=None).check_ok(), requests))
    count = sum(len(r.ids) for r in results)
    return {name: 1e6 * (cpu_seconds(pid) - before[name]) / count for name, pid in pids.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--first-tokens", type=int, default=200)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    arguments = parser.parse_args()
    meter = Meter(pathlib.Path(tempfile.mkdtemp(prefix="mnemo-bench-powercap-")))
    settings: dict[str, Any] = {
        "energy.powercap_root": next(iter(meter.zones)).parent,
        "energy.sources": "[rapl]",
        "energy.socket": "",
        "engine.prefix_cache": "false",
    }
    model = pathlib.Path(arguments.model)
    try:
        with (
            harness.Daemon(model, settings=settings) as on,
            harness.Daemon(model, settings={**settings, "energy.enabled": "false"}) as off,
        ):
            harness.wait_for("a reading", lambda: "mnemo_energy_joules_total" in on.metrics())
            figures: dict[str, dict[str, list[float]]] = {"on": {}, "off": {}}
            for pair in range(arguments.pairs):
                for name, daemon in (("on", on), ("off", off))[:: 1 if pair % 2 else -1]:
                    for process, value in cost(daemon, arguments.streams, arguments.tokens, pair).items():
                        figures[name].setdefault(process, []).append(value)
            for pair in range(arguments.first_tokens):
                for name, daemon in (("on", on), ("off", off))[:: 1 if pair % 2 else -1]:
                    figures[name].setdefault("first", []).append(1e3 * through_mnemod(daemon, prompt(16, pair)))
            began = cpu_seconds(on.process.pid), cpu_seconds(off.process.pid), time.monotonic()
            time.sleep(10)
            seconds = time.monotonic() - began[2]
            idle = [1e6 * (cpu_seconds(d.process.pid) - b) / seconds for d, b in zip((on, off), began[:2], strict=True)]
    finally:
        meter.end()
    for what, unit in (("mnemod", "us a token"), ("worker", "us a token"), ("first", "ms to the first token")):
        a, b = figures["on"][what], figures["off"][what]
        added = statistics.median(x - y for x, y in zip(a, b, strict=True))
        print(f"{what}: with energy {statistics.median(a):.2f}, without {statistics.median(b):.2f}, added {added:+.3f} {unit}")
    print(f"mnemod without requests: {idle[0]:.0f} us a second with energy, {idle[1]:.0f} without")


if __name__ == "__main__":
    main()

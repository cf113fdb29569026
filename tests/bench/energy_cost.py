"""Cost of energy accounting: CPU time of mnemod and of its worker for each streamed token, and the time to first token.

Two daemons with the same model run in turns, one with meters and one with energy.enabled: false. The meters are a powercap tree of
files in memory whose counts this script moves on in place, as the kernel does. Pairs are short and alternate in order; the median of the
paired differences counts, with its quartiles and its error (1.25 deviations of the mean, the deviation by the quartiles). The threads of
mnemod that do nothing but accounting and the watchdog of health are also read alone, from their schedstat, which no load of others blurs.

    energy_cost.py --model M.gguf [--pairs 60] [--streams 8] [--tokens 100]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from overhead import cpu_seconds  # noqa: E402
from peers import prompt  # noqa: E402


OWN_THREADS = ("energy", "watchdog")


class Meter:
    """One package and its memory; counts of one length, written in place."""

    def __init__(self, root: pathlib.Path) -> None:
        self.files = []
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
            folder = root / zone
            folder.mkdir()
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text("262143328850\n")
            self.files.append(os.open(folder / "energy_uj", os.O_RDWR | os.O_CREAT, 0o600))
        self.count = 100_000_000_000
        self.stop = threading.Event()
        self.move()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def move(self) -> None:
        self.count += 1_000_000
        for file in self.files:
            os.pwrite(file, f"{self.count}\n".encode(), 0)

    def _run(self) -> None:
        while not self.stop.wait(0.05):
            self.move()

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU time of the threads that belong to accounting and health alone."""
    times = dict.fromkeys(OWN_THREADS, 0.0)
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name in times:
            times[name] += int((task / "schedstat").read_text().split()[0]) * 1e-9
    return times


def cost(daemon: harness.Daemon, streams: int, tokens: int, seed: int) -> dict[str, float]:
    """Microseconds of CPU time a token, by process and by thread; tokens a second."""
    pids = {"mnemod": daemon.process.pid, "worker": int(daemon.status().workers[0].pid)}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()} | thread_seconds(daemon.process.pid)
    began = time.monotonic()
    requests = [harness.request(prompt(16, seed * streams + i), max_tokens=tokens, ignore_eos=True) for i in range(streams)]
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        results = list(pool.map(lambda r: daemon.generate(r, timeout=None).check_ok(), requests))
    count = sum(len(r.ids) for r in results)
    rate = count / (time.monotonic() - began)
    after = {name: cpu_seconds(pid) for name, pid in pids.items()} | thread_seconds(daemon.process.pid)
    return {name: 1e6 * (after[name] - before[name]) / count for name in after} | {"rate": rate}


def first_token(daemon: harness.Daemon, ids: list[int]) -> float:
    """Milliseconds to the first token of three: the end of a request, which has an estimate of its energy, is another message."""
    began = time.perf_counter()
    took = 0.0
    for message in daemon.generation.Generate(harness.request(ids, max_tokens=3, ignore_eos=True)):
        if message.delta.tokens and not took:
            took = time.perf_counter() - began
    return 1e3 * took


def tell(what: str, unit: str, on: list[float], off: list[float]) -> None:
    added = [x - y for x, y in zip(on, off, strict=True)]
    low, median, high = statistics.quantiles(added, n=4)
    error = 1.25 * (high - low) / 1.35 / len(added) ** 0.5
    print(
        f"{what}: with energy {statistics.median(on):.2f}, without {statistics.median(off):.2f}, "
        f"added {median:+.3f} (quartiles {low:+.3f}, {high:+.3f}; error {error:.3f}) {unit}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--first-tokens", type=int, default=400)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=100)
    arguments = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="mnemo-bench-powercap-", dir="/dev/shm"))
    meter = Meter(root)
    settings: dict[str, Any] = {
        "energy.powercap_root": root,
        "energy.sources": "[rapl]",
        "energy.socket": "",
        "engine.prefix_cache": "false",
    }
    model = pathlib.Path(arguments.model)
    figures: dict[str, dict[str, list[float]]] = {"on": {}, "off": {}}
    try:
        with (
            harness.Daemon(model, settings=settings) as on,
            harness.Daemon(model, settings={**settings, "energy.enabled": "false"}) as off,
        ):
            harness.wait_for("a reading", lambda: "mnemo_energy_joules_total" in on.metrics())
            for pair in range(arguments.pairs):
                for name, daemon in (("on", on), ("off", off))[:: 1 if pair % 2 else -1]:
                    for what, value in cost(daemon, arguments.streams, arguments.tokens, pair).items():
                        figures[name].setdefault(what, []).append(value)
            for pair in range(arguments.first_tokens):
                for name, daemon in (("on", on), ("off", off))[:: 1 if pair % 2 else -1]:
                    figures[name].setdefault("first", []).append(first_token(daemon, prompt(16, pair)))
            before = thread_seconds(on.process.pid), time.monotonic()
            time.sleep(10)
            seconds = time.monotonic() - before[1]
            idle = {name: 1e6 * (cpu - before[0][name]) / seconds for name, cpu in thread_seconds(on.process.pid).items()}
    finally:
        meter.end()
        shutil.rmtree(root)
    print(f"{statistics.median(figures['on']['rate'] + figures['off']['rate']):.0f} tokens/s")
    tell("mnemod", "us a token", figures["on"]["mnemod"], figures["off"]["mnemod"])
    tell("worker", "us a token", figures["on"]["worker"], figures["off"]["worker"])
    tell("first token", "ms", figures["on"]["first"], figures["off"]["first"])
    for name in OWN_THREADS:
        under_load = statistics.fmean(figures["on"][name])
        rate = statistics.fmean(x * y for x, y in zip(figures["on"][name], figures["on"]["rate"], strict=True))
        print(f"thread {name}: {under_load:.2f} us a token, {rate:.0f} us a second; {idle[name]:.0f} without requests")


if __name__ == "__main__":
    main()

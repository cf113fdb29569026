"""Cost of mnemod: its CPU time for each streamed token, and the time that it adds to the worker's own time to first token.

CPU: user and system time of the mnemod process alone (getrusage's sum, read from the process's CPU clock). Streams have --tokens
tokens, one at a time and eight at once. One stream takes turns with mnemo_stream_floor, a server with gRPC's callback API that only
passes on a worker's frames, from a reading thread like mnemod's. Both workers let tokens wait for --interval milliseconds
(server.stream_interval_ms).

Time to first token: three workers take turns, one asked through mnemod, one by its internal protocol, and one through mnemo_stream_floor.
All get the same ids, and the median of the paired differences counts. Then the three run once more with a client in C++,
mnemo_first_token.

    overhead.py --model M.gguf [--pairs 200] [--interval 40]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from peers import prompt  # noqa: E402


def internal_protocol() -> Any:
    """The messages between mnemod and its workers, generated like the public ones."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="mnemo-bench-stubs-")
    file = "mnemo/internal/worker.proto"
    if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", file]) != 0:
        raise RuntimeError("protoc failed")
    import mnemo

    mnemo.__path__.append(str(pathlib.Path(out) / "mnemo"))
    from mnemo.internal import worker_pb2

    return worker_pb2


def cpu_seconds(pid: int) -> float:
    # clock_getcpuclockid(3), which Python lacks; /proc/PID/stat counts in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def frame(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return struct.pack("<I", len(data)) + data


class Worker:
    """A mnemo-worker without a mnemod; its messages are those of proto/mnemo/internal/worker.proto."""

    def __init__(self, pb: Any, model: str, threads: int):
        self.pb = pb
        self.path = tempfile.mkdtemp(prefix="mnemo-bench-") + "/worker.sock"
        command = [str(harness.BIN / "mnemo-worker"), "--model", model, "--listen", f"unix:{self.path}", "--threads", str(threads)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.number = 0
        harness.wait_for("a worker that listens", self.listens, timeout=60)

    def listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError("the worker ended")
        return os.path.exists(self.path)

    def hello(self) -> bytes:
        hello = self.pb.Hello(protocol=1, heartbeat_interval_ms=1000, build="bench")
        return frame(self.pb.ToWorker(hello=hello))

    def submit(self, ids: list[int], max_tokens: int) -> bytes:
        self.number += 1
        submit = self.pb.Submit(id=self.number, attempt=1, prompt=ids, max_tokens=max_tokens, logprobs=-1, prompt_logprobs=-1)
        submit.sampling.top_p = 1.0
        submit.sampling.repetition_penalty = 1.0
        return frame(self.pb.ToWorker(submit=submit))

    def count_tokens(self, data: bytes) -> int:
        """Tokens of the last submitted request in a message of the worker."""
        events = self.pb.FromWorker.FromString(data).events.events
        return sum(len(event.token_ids) for event in events if event.id == self.number)

    def close(self) -> None:
        self.process.kill()


class BareWorker(Worker):
    """A worker reached over its socket."""

    def __init__(self, pb: Any, model: str, threads: int):
        super().__init__(pb, model, threads)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self.path)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(self.hello())
        assert pb.FromWorker.FromString(self.receive()).WhichOneof("message") == "ready"

    def receive(self) -> bytes:
        header = self.stream.read(4)
        if len(header) < 4:
            raise RuntimeError("the worker ended")
        return self.stream.read(struct.unpack("<I", header)[0])

    def first_token(self, ids: list[int]) -> float:
        data = self.submit(ids, 1)
        began = time.perf_counter()
        self.socket.sendall(data)
        while not self.count_tokens(self.receive()):
            pass
        return time.perf_counter() - began


class FloorWorker(Worker):
    """A worker reached through mnemo_stream_floor."""

    def __init__(self, pb: Any, model: str, threads: int, interval_ms: int):
        super().__init__(pb, model, threads)
        self.address = f"127.0.0.1:{harness.free_port()}"
        command = [str(harness.BIN / "mnemo_stream_floor"), "--listen", self.address, "--worker", f"unix:{self.path}"]
        self.floor = subprocess.Popen([*command, "--interval", str(interval_ms)])
        self.channel = grpc.insecure_channel(self.address)
        grpc.channel_ready_future(self.channel).result(timeout=60)
        self.call = self.channel.unary_stream("/mnemo.bench/Stream")
        self.stream([1], 1)

    def stream(self, ids: list[int], tokens: int) -> float:
        """Seconds to the first token; returns after the last."""
        data = self.submit(ids, tokens)
        began = time.perf_counter()
        first = 0.0
        came = 0
        call = self.call(data)
        for message in call:
            came += self.count_tokens(message)
            if came and not first:
                first = time.perf_counter() - began
            if came == tokens:
                break
        call.cancel()
        assert came == tokens, f"{came} of {tokens} tokens"
        return first

    def cost_of_tokens(self, ids: list[int], tokens: int) -> float:
        before = cpu_seconds(self.floor.pid)
        self.stream(ids, tokens)
        return (cpu_seconds(self.floor.pid) - before) / tokens

    def close(self) -> None:
        self.channel.close()
        self.floor.kill()
        super().close()


def through_mnemod(daemon: harness.Daemon, ids: list[int]) -> float:
    request = harness.request(ids, max_tokens=1, ignore_eos=True)
    began = time.perf_counter()
    took = 0.0
    for message in daemon.generation.Generate(request):
        if message.delta.tokens and not took:
            took = time.perf_counter() - began
    return took


def cost_of_tokens(daemon: harness.Daemon, streams: int, tokens: int) -> float:
    request = harness.request(prompt(16, streams), max_tokens=tokens, ignore_eos=True)
    before = cpu_seconds(daemon.process.pid)
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        results = list(pool.map(lambda _: daemon.generate(request, timeout=None).check_ok(), range(streams)))
    return (cpu_seconds(daemon.process.pid) - before) / sum(len(r.ids) for r in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--interval", type=int, default=40)
    arguments = parser.parse_args()
    settings = {
        "cpu.threads": arguments.threads,
        "engine.prefix_cache": "false",
        "server.stream_interval_ms": arguments.interval,
    }
    pb = internal_protocol()
    with (
        harness.Daemon(pathlib.Path(arguments.model), settings=settings) as daemon,
        contextlib.closing(BareWorker(pb, arguments.model, arguments.threads)) as bare,
        contextlib.closing(FloorWorker(pb, arguments.model, arguments.threads, arguments.interval)) as floor,
    ):
        ours, floors = [], []
        for _ in range(arguments.rounds):
            ours.append(1e6 * cost_of_tokens(daemon, 1, arguments.tokens))
            floors.append(1e6 * floor.cost_of_tokens(prompt(16, 1), arguments.tokens))
            print(f"a streamed token, 1 stream: mnemod {ours[-1]:.1f} us of CPU time, gRPC alone {floors[-1]:.1f} us", flush=True)
        own, least = statistics.median(ours), statistics.median(floors)
        print(f"medians: mnemod {own:.1f} us, gRPC alone {least:.1f} us, ratio {own / least:.2f}")
        print(f"mnemod's CPU time a streamed token, 8 streams: {1e6 * cost_of_tokens(daemon, 8, arguments.tokens):.1f} us")
        ways = {
            "mnemod": lambda ids: through_mnemod(daemon, ids),
            "alone": bare.first_token,
            "gRPC": lambda ids: floor.stream(ids, 1),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for pair in range(arguments.pairs):
            ids = prompt(arguments.prompt_tokens, pair)
            for name in sorted(ways, reverse=pair % 2 == 1):
                took[name].append(1e3 * ways[name](ids))
        bare.socket.close()  # for the next session
        command = [str(harness.BIN / "mnemo_first_token"), "--mnemod", daemon.address, "--worker", f"unix:{bare.path}"]
        command += ["--floor", floor.address]
        subprocess.run([*command, "--pairs", str(arguments.pairs), "--prompt-tokens", str(arguments.prompt_tokens)], check=True)
    added = {name: statistics.median(x - own for x, own in zip(took[name], took["alone"], strict=True)) for name in ("mnemod", "gRPC")}
    print(
        f"time to first token: the worker alone {statistics.median(took['alone']):.2f} ms, mnemod adds {added['mnemod']:.2f} ms, "
        f"gRPC alone {added['gRPC']:.2f} ms (medians of {arguments.pairs} pairs)"
    )


if __name__ == "__main__":
    main()

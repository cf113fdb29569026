"""What mnemod costs: its CPU time for each streamed token, and what it adds to the worker's own time to first token.

CPU: user and system time of the mnemod process alone (getrusage's figures, read from /proc), over streams of --tokens tokens, one at a
time and eight at once. Time to first token: two daemons' workers take turns, one asked through mnemod, one, a mnemo-worker without a
front end, by its internal protocol; the same ids go in, and the median of the paired differences counts.

    overhead.py --model M.gguf [--pairs 200]
"""

from __future__ import annotations

import argparse
import concurrent.futures
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
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class BareWorker:
    """A mnemo-worker that is spoken to directly: frames over its socket, as proto/mnemo/internal/worker.proto tells."""

    def __init__(self, model: str, threads: int):
        self.pb = internal_protocol()
        path = tempfile.mkdtemp(prefix="mnemo-bench-") + "/worker.sock"
        command = [str(harness.BIN / "mnemo-worker"), "--model", model, "--listen", f"unix:{path}", "--threads", str(threads)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("the worker ended") from None
                time.sleep(0.05)
        self.stream = self.socket.makefile("rb")
        self.send(self.pb.ToWorker(hello=self.pb.Hello(protocol=1, heartbeat_interval_ms=1000, build="bench")))
        assert self.receive().WhichOneof("message") == "ready"
        self.number = 0

    def send(self, message: Any) -> None:
        data = message.SerializeToString()
        self.socket.sendall(struct.pack("<I", len(data)) + data)

    def receive(self) -> Any:
        header = self.stream.read(4)
        if len(header) < 4:
            raise RuntimeError("the worker ended")
        return self.pb.FromWorker.FromString(self.stream.read(struct.unpack("<I", header)[0]))

    def first_token(self, ids: list[int]) -> float:
        self.number += 1
        submit = self.pb.Submit(id=self.number, attempt=1, prompt=ids, max_tokens=1, logprobs=-1, prompt_logprobs=-1)
        submit.sampling.top_p = 1.0
        submit.sampling.repetition_penalty = 1.0
        began = time.perf_counter()
        self.send(self.pb.ToWorker(submit=submit))
        while True:
            if any(event.id == self.number and event.token_ids for event in self.receive().events.events):
                return time.perf_counter() - began

    def close(self) -> None:
        self.process.kill()


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
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    arguments = parser.parse_args()
    settings = {"cpu.threads": arguments.threads, "engine.prefix_cache": "false"}
    with harness.Daemon(pathlib.Path(arguments.model), settings=settings) as daemon:
        for streams in (1, 8):
            micros = 1e6 * cost_of_tokens(daemon, streams, arguments.tokens)
            print(f"mnemod's CPU time a streamed token, {streams} streams: {micros:.1f} us")
        bare = BareWorker(arguments.model, arguments.threads)
        try:
            differences, alone = [], []
            for pair in range(arguments.pairs):
                ids = prompt(arguments.prompt_tokens, pair)
                if pair % 2:
                    through, own = through_mnemod(daemon, ids), bare.first_token(ids)
                else:
                    own, through = bare.first_token(ids), through_mnemod(daemon, ids)
                differences.append(through - own)
                alone.append(own)
        finally:
            bare.close()
    median = 1e3 * statistics.median(differences)
    print(
        f"time to first token: the worker alone {1e3 * statistics.median(alone):.2f} ms, mnemod adds {median:.2f} ms "
        f"(median of {arguments.pairs} pairs)"
    )


if __name__ == "__main__":
    main()

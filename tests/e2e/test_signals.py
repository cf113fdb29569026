"""Signals at any moment of a start: the process ends at once with status 0 and leaves nothing behind; SIGHUP is kept until it serves."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import models
import pytest
from harness import BIN, Code, Daemon, free_port, process_ended, request, seeded, wait_for

# A daemon that serves nothing ends within 200 ms; a busy machine stretches that.
AT_ONCE = 2.0


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        return [int(c) for task in tasks for c in (task / "children").read_text().split()]
    return []


class Starting:
    """A mnemod with a socket, a log and a runtime directory of its own, so that the test sees every trace of it."""

    def __init__(self, folder: pathlib.Path, model: pathlib.Path, *settings: str):
        self.runtime = folder / "run"
        self.runtime.mkdir()
        self.socket = folder / "mnemo.sock"
        self.log = folder / "log"
        command = [str(BIN / "mnemod"), "--listen", f"unix:{self.socket}", "--metrics-listen", f"127.0.0.1:{free_port()}"]
        command += ["--model", str(model)]
        for setting in settings:
            command += ["--set", setting]
        environment = os.environ | {"XDG_RUNTIME_DIR": str(self.runtime)}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=environment)

    def check_ends(self, number: int = signal.SIGTERM) -> float:
        children = children_of(self.process.pid)
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(30)
        took = time.monotonic() - began
        text = self.log.read_text()
        assert status == 0, f"status {status}: {text}"
        assert took < AT_ONCE, f"{took:.3f} s: {text}"
        for pid in children:
            wait_for(f"child {pid} has ended", lambda pid=pid: process_ended(pid), 5)
        assert not self.socket.exists(), text
        wait_for("nothing is left in the runtime directory", lambda: not list(self.runtime.iterdir()), 5)
        return took


def loaded(pid: int) -> bool:
    """Waits until the process has passed the dynamic loader: before, no program can handle a signal."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    blocked = int(re.search(r"^SigBlk:\s+(\w+)", status, re.MULTILINE).group(1), 16)  # type: ignore[union-attr]
    return bool(blocked & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_at_any_moment_of_the_start(number: int, tmp_path: pathlib.Path) -> None:
    """Moments from the first one to past the first answer, with a model whose packing and loading take a while."""
    model = models.find("smollm2")
    with seeded(f"moments-{number}") as rng:
        for turn in range(12):
            folder = tmp_path / str(turn)
            folder.mkdir()
            start = Starting(folder, model, "workers.count=2", "memory.services=1")
            wait_for("the program is loaded", lambda start=start: loaded(start.process.pid), step=0.001)
            time.sleep((0.0, 0.05, 0.3)[turn] if turn < 3 else rng.uniform(0, 1.2))
            print(f"{start.check_ends(number):.3f} s")


def test_ends_while_it_waits_for_a_worker(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The same with a waiting request."""
    import grpc
    from harness import generation_pb2_grpc

    program = tmp_path / "slow-worker"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    start = Starting(tmp_path, tiny, f"workers.binary={program}", "memory.services=0")
    wait_for("it listens", lambda: "listening on" in start.log.read_text())
    with grpc.insecure_channel(f"unix:{start.socket}") as channel:
        call = generation_pb2_grpc.GenerationStub(channel).Generate(request([1]), timeout=30)
        assert next(call).HasField("started")
        start.check_ends()
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        assert raised.value.code() == Code.UNAVAILABLE


def test_sighup_during_the_start_is_kept(tmp_path: pathlib.Path) -> None:
    """Signals while the weights are packed, and so early that the children do not listen to them yet."""
    config = tmp_path / "node.yaml"
    config.write_text("limits:\n  max_tokens: 0\n")
    daemon = Daemon(models.find("smollm2"), config=config)
    try:
        wait_for("the settings are read", lambda: "metrics on port" in daemon.log(), step=0.001)
        config.write_text("limits:\n  max_tokens: 5\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert "packed" not in daemon.log()
        with daemon:
            wait_for("the reload", lambda: "reloaded" in daemon.log())
            reply = daemon.generate(request([1], max_tokens=20, ignore_eos=True))
            assert reply.code == Code.INVALID_ARGUMENT
            assert all(w.restarts == 0 for w in daemon.status().workers)
    finally:
        daemon.process.kill()
        daemon.process.wait()


def test_a_second_signal_cuts_the_drain(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={"server.drain_timeout_ms": 60000}) as daemon:
        call = daemon.generation.Generate(request([1], max_tokens=16000, ignore_eos=True), timeout=60)
        next(call)
        children = children_of(daemon.process.pid)
        daemon.process.send_signal(signal.SIGTERM)
        wait_for("the drain", lambda: "draining" in daemon.log())
        daemon.process.send_signal(signal.SIGHUP)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
        for pid in children:
            wait_for(f"child {pid} has ended", lambda pid=pid: process_ended(pid), 5)
        call.cancel()


def by_hand(kind: str, folder: pathlib.Path) -> tuple[subprocess.Popen[bytes], list[pathlib.Path]]:
    if kind == "worker":
        sockets = [folder / "w.sock"]
        command = [str(BIN / "mnemo-worker"), "--model", str(models.find("smollm2")), "--listen", f"unix:{sockets[0]}"]
    else:
        sockets = [folder / "data", folder / "control"]
        command = [str(BIN / "mnemo-memory"), f"--data-socket={sockets[0]}", f"--control-address=unix:{sockets[1]}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL), sockets


@pytest.mark.parametrize("kind", ["worker", "memory"])
def test_services_by_hand_end_at_any_moment(kind: str, tmp_path: pathlib.Path) -> None:
    with seeded(f"by-hand-{kind}") as rng:
        for turn in range(8):
            folder = tmp_path / str(turn)
            folder.mkdir()
            process, sockets = by_hand(kind, folder)
            try:
                wait_for("the program is loaded", lambda process=process: loaded(process.pid), step=0.001)
                process.send_signal(signal.SIGHUP)
                time.sleep(rng.uniform(0, 0.8))
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                assert process.wait(30) == 0
                assert time.monotonic() - began < AT_ONCE
                assert not [s for s in sockets if s.exists()]
            finally:
                process.kill()
                process.wait()


def test_a_second_service_that_is_ended_leaves_the_first_its_sockets(tmp_path: pathlib.Path) -> None:
    first, sockets = by_hand("memory", tmp_path)
    try:
        wait_for("it listens", lambda: all(s.exists() for s in sockets))
        for delay in (0.0, 0.02, 0.05):
            second, _ = by_hand("memory", tmp_path)
            wait_for("the program is loaded", lambda second=second: second.poll() is not None or loaded(second.pid), step=0.001)
            time.sleep(delay)
            second.send_signal(signal.SIGTERM)
            second.wait(20)
            assert all(s.exists() for s in sockets)
    finally:
        first.terminate()
        assert first.wait(20) == 0

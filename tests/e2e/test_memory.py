"""Memory services from outside, with the tiny model: how their memory is shared out, and services that mnemod does not start."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
from typing import Any

import pytest
from harness import BIN, Daemon, Result, admin_pb2, free_port, pb, process_ended, request, wait_for

MEBIBYTE = 1 << 20
SETTINGS = {"attention.dense_layers": 0, "memory.health_interval_ms": 50, "workers.heartbeat_interval_ms": 50}
READY = admin_pb2.StatusResponse.STATE_READY
DOWN = admin_pb2.StatusResponse.STATE_DOWN


def sparse(prompt_tokens: int, placement: int, *, max_tokens: int = 40, method: int = pb.ATTENTION_METHOD_TOKEN_TOPK) -> pb.GenerateRequest:
    message = request([1 + i * i % 250 for i in range(prompt_tokens)], max_tokens=max_tokens, ignore_eos=True)
    message.attention.method = method  # type: ignore[assignment]
    message.attention.placement = placement  # type: ignore[assignment]
    message.attention.token_budget = 128
    return message


def devices(result: Result) -> dict[int, set[str]]:
    assert result.final is not None
    found: dict[int, set[str]] = {}
    for step in result.final.memory_steps:
        found.setdefault(step.step, set()).add(step.device)
    return found


def wait_attached(daemon: Daemon, workers: int = 1) -> None:
    def attached() -> bool:
        text = daemon.metrics()
        return all(f'mnemo_memory_service_attached{{worker="worker{i}"}} 1' in text for i in range(workers))

    wait_for("the workers are attached", attached, 30)


class MemoryService:
    """A mnemo-memory that is nobody's child but ours."""

    def __init__(self, *arguments: str):
        self.folder = tempfile.TemporaryDirectory(prefix="mnemo-far-")
        self.socket = pathlib.Path(self.folder.name, "data.sock")
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self.command = [str(BIN / "mnemo-memory"), "--name=far", f"--data-socket={self.socket}"]
        self.command += [f"--control-address=unix:{self.folder.name}/control.sock", f"--metrics-listen={self.metrics_address}", *arguments]

    def __enter__(self) -> MemoryService:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()
        self.folder.cleanup()

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        wait_for("mnemo-memory listens", lambda: self.socket.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.returncode

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


def quotas(daemon: Daemon) -> list[int]:
    return [int(quota) for quota in re.findall(r"attached as \d+, quota (\d+) bytes", daemon.log())]


def test_the_only_worker_of_a_service_has_all_of_its_memory(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={**SETTINGS, "memory.services": 1, "memory.index_bytes": MEBIBYTE}) as daemon:
        wait_attached(daemon)
        assert quotas(daemon) == [MEBIBYTE]
        # Again and again, also when the end of the last attachment has not been noticed yet.
        for turn in range(3):
            pid = daemon.status().workers[0].pid
            os.kill(pid, signal.SIGKILL)
            wait_for("the worker has ended", lambda pid=pid: process_ended(pid))
            daemon.wait_workers(1)
            wait_for("it is attached again", lambda turn=turn: quotas(daemon) == [MEBIBYTE] * (turn + 2))
        # More than half of it for one sequence.
        message = sparse(12000, pb.PLACEMENT_MEMORY_SERVICE, max_tokens=30)
        message.attention.key_bits = 8
        call = daemon.generation.Generate(message, timeout=60)
        next(call)
        used = wait_for("the index is full", lambda: daemon.status().memory_services[0].bytes_used >= MEBIBYTE // 2, 30)
        assert used
        list(call)


def test_workers_share_a_service_evenly(tiny: pathlib.Path) -> None:
    settings = {**SETTINGS, "memory.services": 2, "memory.index_bytes": MEBIBYTE}
    with Daemon(tiny, workers=3, settings=settings) as daemon:
        daemon.wait_workers(3)
        wait_attached(daemon, 3)
        assert sorted(quotas(daemon)) == [MEBIBYTE // 2, MEBIBYTE // 2, MEBIBYTE]


@pytest.mark.parametrize("way", ["unix", "ucx"])
def test_a_service_that_others_run(tiny: pathlib.Path, way: str) -> None:
    port = free_port()
    listen = [f"--remote-listen=127.0.0.1:{port}"] if way == "ucx" else []
    with MemoryService("--max-owners=2", *listen) as service:
        address = f"unix:{service.socket}" if way == "unix" else f"ucx:127.0.0.1:{port}"
        with Daemon(tiny, settings={**SETTINGS, "memory.services": 0, "memory.addresses": f'["{address}"]'}) as daemon:
            wait_attached(daemon)
            (shown,) = daemon.status().memory_services
            assert (shown.name, shown.address, shown.state, shown.pid) == ("memory0", address, READY, 0)
            inline = daemon.generate(sparse(1000, pb.PLACEMENT_WORKER)).check_ok()
            offloaded = daemon.generate(sparse(1000, pb.PLACEMENT_MEMORY_SERVICE)).check_ok()
            assert offloaded.ids == inline.ids
            assert devices(offloaded)[pb.MemoryStep.STEP_RELEVANCY] == {"far:cpu"}
            service.end()
            wait_for("it is down", lambda: daemon.status().memory_services[0].state == DOWN)
            assert daemon.status().memory_services[0].detail == "no worker is attached"
            assert daemon.generate(sparse(1000, pb.PLACEMENT_UNSPECIFIED)).check_ok().ids == inline.ids
            service.start()
            wait_attached(daemon)
            assert daemon.generate(sparse(1000, pb.PLACEMENT_MEMORY_SERVICE)).check_ok().ids == inline.ids


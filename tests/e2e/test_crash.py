"""A fatal signal in any program: one report with build id, backtrace and request ids, no core, and the client's stream goes on."""

from __future__ import annotations

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from harness import BIN, Code, Daemon, collect, process_ended, request, tiny_model, wait_for

SETTINGS = {"log.format": "json", "memory.services": 1, "memory.placement": "memory_service"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", layers=16)


@pytest.fixture
def daemon(model: pathlib.Path) -> Iterator[Daemon]:
    # Without a limit of the programs' own a crash would leave a core where the system's pattern says so.
    with Daemon(model, settings=SETTINGS) as daemon:
        yield daemon


def build_id(program: str) -> str:
    notes = subprocess.run(["readelf", "-n", BIN / program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Build ID: (\w+)", notes)
    assert found, notes
    return found.group(1)


def reports(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if "backtrace" in line]


def check_report(report: dict[str, Any], process: str, program: str, request_id: str | None) -> None:
    assert report["process"] == process and report["level"] == "error"
    assert report["message"].startswith("fatal signal SIGSEGV sent by process ")
    assert report["build_id"] == build_id(program)
    if request_id is not None:
        assert report["request_ids"] == [request_id]
    # Offsets are those of the file: the symbolizer of binutils, which knows nothing of ours, finds each.
    own = [frame.split()[0].split("+")[1] for frame in report["backtrace"] if frame.startswith(program + "+")]
    assert own, report["backtrace"]
    names = subprocess.run(["addr2line", "-f", "-e", BIN / program, *own], capture_output=True, text=True, check=True).stdout
    assert "_start" in names or "main" in names or "??" not in names, names


def test_worker(daemon: Daemon) -> None:
    """The report names the request, and the client gets the tokens that it would have got."""
    message = request([5, 6, 7], max_tokens=6000, ignore_eos=True)
    expected = daemon.generate(message).check_ok().ids
    worker = daemon.status().workers[0].pid
    message.request_id = "crash-1"
    sent: list[int] = []

    def kill(result: Any) -> None:
        if len(result.ids) >= 20 and not sent:
            sent.append(worker)
            os.kill(worker, signal.SIGSEGV)

    result = collect(daemon.generation.Generate(message, timeout=60), kill).check_ok()
    assert sent and result.ids == expected
    assert result.final is not None and result.final.replays == 1
    wait_for("the worker has ended", lambda: process_ended(worker))
    (report,) = wait_for("a report", lambda: reports(daemon.log()))
    check_report(report, "worker0", "mnemo-worker", "crash-1")
    daemon.wait_workers(1)
    assert daemon.status().workers[0].restarts == 1
    daemon.wait_idle()


def test_memory_service(daemon: Daemon) -> None:
    service = daemon.status().memory_services[0].pid
    subprocess.run(["kill", "-SEGV", str(service)], check=True)
    (report,) = wait_for("a report", lambda: reports(daemon.log()))
    check_report(report, "memory0", "mnemo-memory", None)
    daemon.generate(request([5, 6, 7])).check_ok()


def test_daemon(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The report goes to the log's file and to standard error. Children end with mnemod."""
    log = tmp_path / "log"
    with Daemon(model, settings=SETTINGS | {"log.file": log}) as daemon:
        children = [daemon.status().workers[0].pid, daemon.status().memory_services[0].pid]
        message = request([5, 6, 7], max_tokens=12000, ignore_eos=True)
        message.request_id = 'crash-"2"'

        def kill(result: Any) -> None:
            if len(result.ids) >= 20 and daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGSEGV)

        assert collect(daemon.generation.Generate(message, timeout=60), kill).code == Code.UNAVAILABLE
        assert daemon.process.wait(20) == -signal.SIGSEGV
        for text in (log.read_text(), daemon.log()):
            (report,) = reports(text)
            check_report(report, "mnemod", "mnemod", 'crash-"2"')
        for pid in children:
            wait_for("a child has ended", lambda pid=pid: process_ended(pid))


def memory_flags(pid: int) -> dict[str, tuple[int, set[str]]]:
    """Size in bytes and flags of each mapping of the process, by its first address."""
    found: dict[str, tuple[int, set[str]]] = {}
    begin, size = "", 0
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            begin = line
            low, high = (int(x, 16) for x in line.split()[0].split("-"))
            size = high - low
        elif line.startswith("VmFlags:"):
            found[begin] = (size, set(line.split()[1:]))
    return found


def test_large_memory_is_left_out_of_cores(smol: Daemon) -> None:
    """Weights, KV pages and regions of the data plane; stacks and the heap may be in a core."""
    status = smol.status()
    for pid in [smol.process.pid, status.workers[0].pid]:
        for name, (size, flags) in memory_flags(pid).items():
            is_reserved = "rd" not in flags  # address space alone: stacks' guards and what malloc may use one day
            if size >= 16 << 20 and not is_reserved:
                assert "dd" in flags, f"{name}: {size} bytes would be in a core ({flags})"


def test_the_limit_of_cores_is_the_callers(model: pathlib.Path) -> None:
    """Workers and memory services take the limit of mnemod at their start, and mnemod that of its caller."""

    def limit_of(pid: int) -> str:
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        return re.findall(r"^Max core file size +(\S+) ", limits, re.MULTILINE)[0]

    prefix = ("/bin/sh", "-c", 'ulimit -c 8 && exec "$0" "$@"')
    with Daemon(model, settings=SETTINGS, prefix=prefix) as daemon:
        pid = daemon.process.pid
        worker, service = daemon.status().workers[0].pid, daemon.status().memory_services[0].pid
        assert [limit_of(process) for process in (pid, worker, service)] == [str(8 * 512)] * 3
        # The chat renderer, which has texts alone, never leaves one.
        (renderer,) = subprocess.run(["pgrep", "-P", str(pid), "python"], capture_output=True, text=True, check=True).stdout.split()
        wait_for("the renderer has set its limit", lambda: limit_of(int(renderer)) == "0")
        subprocess.run(["prlimit", "--core=0", "--pid", str(pid)], check=True)
        os.kill(worker, signal.SIGKILL)
        wait_for("the worker has ended", lambda: process_ended(worker))
        daemon.wait_workers(1)
        assert limit_of(pid) == limit_of(daemon.status().workers[0].pid) == "0"


def test_core_holds_no_keys_and_values(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A core taken on purpose: far smaller than what the worker has in memory."""
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or "|" in pattern or "%" in pattern:
        pytest.skip(f"SKIPPED: cores go where kernel.core_pattern says, {pattern}")
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    if limits[1] != resource.RLIM_INFINITY:
        pytest.skip("SKIPPED: the hard limit of cores is not unlimited")
    prefix = ("/bin/sh", "-c", f'ulimit -c unlimited; cd {tmp_path} && exec "$0" "$@"')
    with Daemon(model, settings={"engine.kv_cache_bytes": 256 << 20}, prefix=prefix) as daemon:
        daemon.generate(request(list(range(200)), max_tokens=200, ignore_eos=True)).check_ok()
        worker = daemon.status().workers[0].pid
        resident = int(pathlib.Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096
        subprocess.run(["kill", "-SEGV", str(worker)], check=True)
        wait_for("the worker has ended", lambda: process_ended(worker))
        cores = wait_for("a core", lambda: list(tmp_path.glob("core*")))
        assert cores[0].stat().st_blocks * 512 < max(resident // 2, 64 << 20)

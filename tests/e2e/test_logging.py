"""Logs that cannot be written: nobody waits for them, lost lines are counted and reported, and renamed files are made again."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from harness import BIN, Code, Daemon, free_port, process_ended, request, scrape, wait_for

# Each request is two lines or so of about 200 bytes at this level: beyond a pipe's 64 KiB and the queue's 1,024 lines.
MANY = 2500
CHATTY = {"log.level": "debug", "workers.heartbeat_interval_ms": 50, "memory.health_interval_ms": 50}


def dropped(daemon: Daemon, process: str = "mnemod") -> int:
    found = re.search(rf'^mnemo_log_lines_dropped_total\{{process="{process}"\}} (\d+)', daemon.metrics(), re.MULTILINE)
    assert found, daemon.metrics()
    return int(found.group(1))


def refuse_many(daemon: Daemon, count: int) -> None:
    """Requests that each end with a line in the log."""
    for start in range(0, count, 50):
        calls = [daemon.generation.Generate(request([1], max_tokens=1), timeout=60) for _ in range(min(50, count - start))]
        for call in calls:
            for _ in call:
                pass
            assert call.code() == Code.OK


def still_serves(daemon: Daemon) -> None:
    daemon.generate(request([1, 2, 3], max_tokens=5, ignore_eos=True), timeout=30).check_ok()
    assert daemon.serving()


def ends_in_time(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(20) == 0


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        for fd in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(fd)


def drain_until(reader: int, wanted: bytes, timeout: float = 20.0) -> bytes:
    os.set_blocking(reader, False)
    text = b""

    def read() -> bool:
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            while data := os.read(reader, 1 << 16):
                text += data
        return wanted in text

    wait_for(f"{wanted!r} in the log", read, timeout)
    return text


def test_a_pipe_that_nobody_reads(tiny: pathlib.Path) -> None:
    """The pipe fills, calls and health continue, workers are restarted. When it drains the log reports the missing lines."""
    with full_pipe() as (reader, writer), Daemon(tiny, settings=CHATTY, stderr=writer) as daemon:
        os.close(writer)
        refuse_many(daemon, MANY)
        still_serves(daemon)
        worker = daemon.status().workers[0].pid
        os.kill(worker, signal.SIGKILL)
        wait_for("a restart", lambda: daemon.status().workers[0].pid not in (0, worker))
        daemon.wait_workers(1)
        still_serves(daemon)
        lost = dropped(daemon)
        assert lost > 0
        text = drain_until(reader, b" lines of this log are missing here").decode()
        said = sum(int(n) for n in re.findall(r"(\d+) lines of this log are missing here", text))
        assert said > 0
        still_serves(daemon)
        os.set_blocking(reader, True)
        ends_in_time(daemon)


def test_sigterm_with_a_pipe_that_nobody_reads(tiny: pathlib.Path) -> None:
    with full_pipe() as (_, writer), Daemon(tiny, settings=CHATTY, stderr=writer) as daemon:
        pids = [w.pid for w in daemon.status().workers]
        refuse_many(daemon, MANY)
        ends_in_time(daemon)
        for pid in pids:
            wait_for(f"worker {pid} has ended", lambda pid=pid: process_ended(pid), 5)


def test_a_pipe_that_is_full_from_the_start(tiny: pathlib.Path) -> None:
    """Nobody reads the pipe: the start, children and their restarts work all the same."""
    with full_pipe() as (_, writer):
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        with Daemon(tiny, settings=CHATTY, stderr=writer) as daemon:
            still_serves(daemon)
            ends_in_time(daemon)


def test_a_pipe_whose_reader_died(tiny: pathlib.Path) -> None:
    with full_pipe() as (reader, writer), Daemon(tiny, settings=CHATTY, stderr=writer) as daemon:
        os.close(reader)
        os.close(writer)
        refuse_many(daemon, 200)
        still_serves(daemon)
        assert dropped(daemon) > 0
        ends_in_time(daemon)


def test_a_device_that_is_always_full(tiny: pathlib.Path) -> None:
    with open("/dev/full", "wb") as full, Daemon(tiny, settings=CHATTY, stderr=full) as daemon:
        refuse_many(daemon, MANY)
        still_serves(daemon)
        assert dropped(daemon) > 0
        ends_in_time(daemon)


def test_a_stopped_terminal(tiny: pathlib.Path) -> None:
    """Ctrl-S holds the log and nothing else; the waiting lines come out after Ctrl-Q."""
    ours, theirs = pty.openpty()
    try:
        with Daemon(tiny, settings=CHATTY, stderr=theirs) as daemon:
            termios.tcflow(theirs, termios.TCOOFF)
            refuse_many(daemon, MANY)
            still_serves(daemon)
            wait_for("drops", lambda: dropped(daemon) > 0)
            termios.tcflow(theirs, termios.TCOON)
            drain_until(ours, b" lines of this log are missing here")
            termios.tcflow(theirs, termios.TCOOFF)
            refuse_many(daemon, 300)
            ends_in_time(daemon)
    finally:
        os.close(ours)
        os.close(theirs)


def lines_of(path: pathlib.Path, process: str) -> list[dict[str, str]]:
    if not path.exists():
        return []
    return [entry for line in path.read_text().splitlines() if (entry := json.loads(line))["process"] == process]


def test_a_renamed_file_is_made_anew_by_all_processes(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "mnemo.log"
    settings = CHATTY | {"log.file": log, "log.format": "json"}
    with Daemon(tiny, settings=settings) as daemon:
        still_serves(daemon)
        wait_for("a line of the worker", lambda: lines_of(log, "worker0"))
        log.rename(tmp_path / "mnemo.log.1")
        still_serves(daemon)
        assert not log.exists()
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("a line of mnemod in the new file", lambda: lines_of(log, "mnemod"))
        before = (tmp_path / "mnemo.log.1").stat().st_size
        pids = [daemon.status().workers[0].pid, daemon.status().memory_services[0].pid]

        def where(pid: int) -> list[str]:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if fd.isdigit()]
            return [link for link in links if "mnemo.log" in link]

        for pid in pids:
            wait_for(f"process {pid} has the new file", lambda pid=pid: where(pid) == [str(log)])
        still_serves(daemon)
        ends_in_time(daemon)
        assert (tmp_path / "mnemo.log.1").stat().st_size == before
        assert lines_of(log, "worker0") and dropped_nothing(log)


def dropped_nothing(log: pathlib.Path) -> bool:
    return "missing here" not in log.read_text()


def test_a_removed_folder_and_a_file_that_cannot_be_opened(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "mnemo.log"
    with Daemon(tiny, settings=CHATTY | {"log.file": log}) as daemon:
        log.unlink()
        folder.rmdir()
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        refuse_many(daemon, 20)
        folder.mkdir()
        wait_for("the log is there again", lambda: log.exists() and "No such file or directory" in log.read_text())
        still_serves(daemon)
        log.unlink()
        log.mkdir()
        daemon.process.send_signal(signal.SIGHUP)
        refuse_many(daemon, 20)
        log.rmdir()
        wait_for("the log is there again", lambda: log.is_file() and "Is a directory" in log.read_text())
        ends_in_time(daemon)


def test_a_fifo(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As log.file it needs no reader, neither at the start nor later."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Daemon(tiny, settings=CHATTY | {"log.file": fifo}) as daemon:
        refuse_many(daemon, MANY)
        still_serves(daemon)
        assert dropped(daemon) > 0
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        drain_until(reader, b" lines of this log are missing here")
        os.close(reader)
        still_serves(daemon)
        ends_in_time(daemon)


def test_bad_messages_of_libraries_block_nobody(tiny: pathlib.Path) -> None:
    """protobuf and gRPC print to standard error by themselves, here for text that is not UTF-8."""
    import grpc

    with full_pipe() as (_, writer), Daemon(tiny, settings=CHATTY, stderr=writer) as daemon:
        call = daemon.channel.unary_unary("/mnemo.v1.Generation/Tokenize", request_serializer=bytes, response_deserializer=bytes)
        for _ in range(MANY):  # field 2, text, with a byte that begins no character
            with contextlib.suppress(grpc.RpcError):
                call(b"\x12\x01\xff", timeout=10)
        still_serves(daemon)
        ends_in_time(daemon)


def worker_command(tiny: pathlib.Path, tmp_path: pathlib.Path) -> tuple[list[str], Callable[[], bool]]:
    path = tmp_path / "worker.sock"
    command = [str(BIN / "mnemo-worker"), "--model", str(tiny), "--listen", f"unix:{path}", "--log-level=debug"]
    return command, path.exists


def memory_command(_: pathlib.Path, tmp_path: pathlib.Path) -> tuple[list[str], Callable[[], bool]]:
    metrics = f"127.0.0.1:{free_port()}"
    command = [str(BIN / "mnemo-memory"), f"--data-socket={tmp_path / 'd'}", f"--control-address=unix:{tmp_path / 'c'}"]
    command += [f"--metrics-listen={metrics}", "--memory-bytes=1048576"]

    def serves() -> bool:
        with contextlib.suppress(OSError):
            return "mnemo_memory_service_log_lines_dropped_total" in scrape(metrics)
        return False

    return command, serves


@pytest.mark.parametrize("make", [worker_command, memory_command])
def test_services_by_hand_with_a_full_pipe(make: Callable, tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:  # type: ignore[type-arg]
    command, serves = make(tiny, tmp_path)
    with full_pipe() as (_, writer):
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=writer)
        try:
            wait_for("it serves", serves)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()

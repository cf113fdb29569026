"""Shortages that pass: of descriptors, of memory, of threads. Nothing stays broken when they are over."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import grpc
import pytest
from harness import BIN, Code, Daemon, free_port, generation_pb2_grpc, health_pb2, health_pb2_grpc, pb, request, scrape, wait_for

IDLE = 320
FEW = 256


def limited(soft: int, hard: int | None = None) -> tuple[str, ...]:
    return ("prlimit", f"--nofile={soft}:{hard or ''}")


@contextlib.contextmanager
def idle_connections(daemon: Daemon, count: int) -> Iterator[list[socket.socket]]:
    """Silent connections. An empty read shows that the server ended one."""
    sockets = []
    try:
        for _ in range(count):
            if daemon.address.startswith("unix:"):
                s = socket.socket(socket.AF_UNIX)
                s.settimeout(5)
                s.connect(daemon.address.removeprefix("unix:"))
            else:
                s = socket.create_connection(("127.0.0.1", daemon.port), timeout=5)
            sockets.append(s)
        yield sockets
    finally:
        for s in sockets:
            s.close()


def new_client(daemon: Daemon, timeout: float = 10.0) -> tuple[grpc.StatusCode, str, float]:
    """A call over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    began = time.monotonic()
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        call = generation_pb2_grpc.GenerationStub(channel).Generate(request([1, 2, 3], max_tokens=5, ignore_eos=True), timeout=timeout)
        with contextlib.suppress(grpc.RpcError):
            for _ in call:
                pass
        return call.code(), call.details() or "", time.monotonic() - began


def served(daemon: Daemon) -> bool:
    return new_client(daemon)[0] == Code.OK


def sample(daemon: Daemon, name: str) -> int:
    found = re.search(rf"^mnemo_{name} (\d+)", daemon.metrics(), re.MULTILINE)
    assert found, name
    return int(found.group(1))


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_soft_limit_is_raised(tiny: pathlib.Path) -> None:
    """A soft limit of 256 and 320 idle connections: all are accepted, and new clients are served meanwhile and afterwards."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        assert hard > 1024, "the test needs a hard limit above"
    with Daemon(tiny, prefix=limited(FEW)) as daemon:
        with idle_connections(daemon, IDLE):
            wait_for("all are taken", lambda: sample(daemon, "connections") >= IDLE)
            assert served(daemon)
            assert sample(daemon, "connections_refused_total") == 0
        assert served(daemon)
        wait_for("all are gone", lambda: sample(daemon, "connections") < 10)
        for pid in (daemon.process.pid, daemon.status().workers[0].pid, daemon.status().memory_services[0].pid):
            soft, top = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            assert soft == top


@pytest.mark.parametrize("unix", [False, True])
def test_no_more_connections_than_descriptors(unix: bool, tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With soft and hard limit 256 a client past the bound is refused at once; the others and the children continue."""
    listen = f"unix:{tmp_path / 's'}" if unix else None
    with Daemon(tiny, prefix=limited(FEW, FEW), listen=listen) as daemon:
        for _ in range(2):
            before = sample(daemon, "connections_refused_total")
            with idle_connections(daemon, IDLE):
                wait_for("refusals", lambda before=before: sample(daemon, "connections_refused_total") > before)
                code, details, seconds = new_client(daemon)
                assert code == Code.RESOURCE_EXHAUSTED, (code, details)
                assert "server.max_connections" in details and seconds < 5, (details, seconds)
                daemon.generate(request([1, 2, 3], max_tokens=5, ignore_eos=True)).check_ok()
                worker = daemon.status().workers[0].pid
                os.kill(worker, signal.SIGKILL)
                wait_for("a restart", lambda worker=worker: daemon.status().workers[0].pid not in (0, worker))
                daemon.wait_workers(1)
                assert daemon.serving()
            wait_for("a new client is served", lambda: served(daemon))
        assert "server.max_connections" in daemon.log()


def test_a_bound_of_ones_own(tiny: pathlib.Path) -> None:
    """Health checks, calls that wait for a server, and bytes that are not HTTP/2 are refused too; all calls work once there is room."""
    with Daemon(tiny, settings={"server.max_connections": 5}) as daemon:
        with idle_connections(daemon, 4) as idle:
            wait_for("five are open", lambda: sample(daemon, "connections") == 5)
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(daemon.address, options=options) as channel:
                with pytest.raises(grpc.RpcError) as raised:
                    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
                assert raised.value.code() == Code.RESOURCE_EXHAUSTED
                assert raised.value.details() == "server.max_connections: 5 connections are open; try again later"
                idle.pop().close()
                stub = generation_pb2_grpc.GenerationStub(channel)

                def listed() -> bool:
                    with contextlib.suppress(grpc.RpcError):
                        return len(stub.ListModels(pb.ListModelsRequest(), timeout=10).models) == 1
                    return False

                wait_for("the same channel is served", listed)
        wait_for("a new client is served", lambda: served(daemon))
        command = subprocess.run(
            [str(BIN / "mnemo"), "status", "--address", daemon.address], capture_output=True, text=True, timeout=30
        )
        assert command.returncode == 0, command.stderr


def test_descriptors_that_run_out_all_the_same(tiny: pathlib.Path) -> None:
    """The limit falls under a running daemon, so that accept itself fails: logged once, without CPU, until it passes."""
    with Daemon(tiny) as daemon:
        pid = daemon.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        with idle_connections(daemon, 40):
            scrapes = [socket.create_connection(("127.0.0.1", int(daemon.metrics_address.rsplit(":", 1)[1]))) for _ in range(3)]
            wait_for("the shortage", lambda: "Too many open files" in daemon.log())
            began = cpu_seconds(pid)
            time.sleep(1)
            assert new_client(daemon, 0.5)[0] in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
            daemon.generate(request([1, 2, 3], max_tokens=5, ignore_eos=True)).check_ok()
            assert daemon.log().count("server.listen: accepting a connection") == 1
            for s in scrapes:
                s.close()
        print("CPU seconds in 1.5 s of shortage:", cpu_seconds(pid) - began)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_for("a new client is served", lambda: served(daemon))
        assert "mnemo_connections" in daemon.metrics()
        assert "connections are accepted again" in daemon.log()


def test_a_worker_that_cannot_be_started_for_want_of_descriptors(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={"workers.restart_backoff_max_ms": 200, "memory.restart_backoff_max_ms": 200}) as daemon:
        pid = daemon.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, before[1]))
        worker, service = daemon.status().workers[0].pid, daemon.status().memory_services[0].pid
        os.kill(worker, signal.SIGKILL)
        os.kill(service, signal.SIGKILL)
        wait_for("failed starts", lambda: daemon.status().workers[0].restarts + daemon.status().memory_services[0].restarts >= 4)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        daemon.wait_workers(1)
        assert served(daemon)
        ready = 'mnemo_memory_service_ready{service="memory0"} 1'
        wait_for("the memory service", lambda: ready in daemon.metrics(), 30)


def test_memory_service_by_hand(tmp_path: pathlib.Path) -> None:
    """Its control server, data socket and metrics after a shortage of descriptors."""
    control, metrics, data = free_port(), free_port(), tmp_path / "data"
    command = [*limited(64, 64), str(BIN / "mnemo-memory"), f"--data-socket={data}", f"--control-address=127.0.0.1:{control}"]
    command += [f"--metrics-listen=127.0.0.1:{metrics}", "--memory-bytes=1048576"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:

        def healthy() -> bool:
            with grpc.insecure_channel(f"127.0.0.1:{control}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                with contextlib.suppress(grpc.RpcError):
                    reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
                    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
            return False

        wait_for("it serves", healthy)
        idle = []
        for _ in range(100):
            for port in (control, metrics):
                idle.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.2)
            with contextlib.suppress(OSError):
                s.connect(str(data))
            idle.append(s)
        time.sleep(0.5)
        assert process.poll() is None
        for s in idle:
            s.close()
        wait_for("control is served", healthy, 30)
        wait_for("metrics are served", lambda: "mnemo_memory_service" in scrape(f"127.0.0.1:{metrics}"), 40)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(data))
            s.sendall(b"x" * 4096)
            with contextlib.suppress(ConnectionResetError):
                s.recv(4096)  # it answers, or ends a senseless connection
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0


@contextlib.contextmanager
def no_more_memory(pid: int, slack_mib: int) -> Iterator[None]:
    """Limits the process's address space to its present size and the slack: enough for messages, not for a thread's stack of 8 MiB."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    size = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (slack_mib << 20), before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_memory_for_a_text(tiny: pathlib.Path) -> None:
    """Texts are answered, or refused for lack of memory; the daemon survives."""
    with Daemon(tiny) as daemon:
        with no_more_memory(daemon.process.pid, 64):
            for size in (1 << 20, 4 << 20, 12 << 20):
                codes = []
                with contextlib.suppress(grpc.RpcError):
                    try:
                        daemon.generation.Tokenize(pb.TokenizeRequest(text="ab " * (size // 3)), timeout=60)
                        codes.append(Code.OK)
                    except grpc.RpcError as error:
                        codes.append(error.code())
                        raise
                assert codes[0] in (Code.OK, Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT), (size, codes)
                daemon.generate(request([1, 2, 3], max_tokens=5, ignore_eos=True)).check_ok()
        assert daemon.process.poll() is None
        assert served(daemon)


def test_threads(tiny: pathlib.Path) -> None:
    """50 new clients come while no thread can be started. All calls succeed once the shortage has passed, and later ones too."""
    with Daemon(tiny, workers=2) as daemon, contextlib.ExitStack() as stack:
        daemon.wait_workers(2)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with no_more_memory(daemon.process.pid, 6):
            channels = [stack.enter_context(grpc.insecure_channel(daemon.address, options=options)) for _ in range(50)]
            stubs = [generation_pb2_grpc.GenerationStub(channel) for channel in channels]
            message = request([1], max_tokens=200, ignore_eos=True)
            calls = [stub.Generate(message, timeout=30) for stub in stubs for _ in range(4)]
            time.sleep(1)
        for call in calls:
            for _ in call:
                pass
            assert call.code() == Code.OK
        assert served(daemon)
        assert daemon.process.poll() is None


def test_a_worker_and_its_link_without_threads(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={"workers.restart_backoff_max_ms": 200, "memory.restart_backoff_max_ms": 200}) as daemon:
        with no_more_memory(daemon.process.pid, 0):
            os.kill(daemon.status().workers[0].pid, signal.SIGKILL)
            os.kill(daemon.status().memory_services[0].pid, signal.SIGKILL)
            time.sleep(1)
        assert daemon.process.poll() is None
        daemon.wait_workers(1)
        assert served(daemon)


def test_the_end_during_a_shortage_of_threads(tiny: pathlib.Path) -> None:
    with Daemon(tiny) as daemon, no_more_memory(daemon.process.pid, 6):
        assert served(daemon)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0

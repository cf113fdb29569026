"""A restart under a service manager: mnemod leaves its listening sockets and weights, the next process takes them over.

The manager is this test: it receives descriptors as systemd's store does (sd_notify, FDSTORE=1) and passes them on (LISTEN_FDS).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from harness import BIN, free_port, generation_pb2, generation_pb2_grpc, request, wait_for

# Becomes its arguments with the descriptors 3, 4, .. and their names.
PASS = "import os, sys; os.execve(sys.argv[2], sys.argv[2:], {**os.environ, 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': sys.argv[1]})"
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Manager:
    """Acts as systemd for a unit with NotifyAccess= and FileDescriptorStoreMax=."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.store: list[tuple[str, int]] = []
        self.ready = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        self.units: list[tuple[str, socket.socket]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    def _receive(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 16)
            lines = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
            if "END" in lines:
                return
            for fd in descriptors:
                os.set_inheritable(fd, False)
            if lines.get("FDSTOREREMOVE") == "1":
                for name, fd in self.store:
                    if name == lines["FDNAME"]:
                        os.close(fd)
                self.store = [(name, fd) for name, fd in self.store if name != lines["FDNAME"]]
            if lines.get("FDSTORE") == "1":
                self.store += [(lines["FDNAME"], fd) for fd in descriptors]
            else:
                assert not descriptors
            if lines.get("READY") == "1":
                self.ready.set()

    def names(self) -> list[str]:
        return sorted(name.split("-")[0] for name, _ in self.store)

    def start(self, model: pathlib.Path, listen: str, *, hand_over: bool = True, settings: dict[str, str] | None = None) -> None:
        self.ready.clear()
        passed = [(name, unit.fileno()) for name, unit in self.units] + self.store
        copies = [os.dup(fd) for _, fd in passed]
        command = [str(BIN / "mnemod"), "--model", str(model), "--listen", listen, "--metrics-listen", "", "--set", "log.format=json"]
        command += ["--hand-over"] if hand_over else []
        for key, value in (settings or {}).items():
            command += ["--set", f"{key}={value}"]
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), "RUNTIME_DIRECTORY": str(self.folder / "run")}
        if passed:
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
            command = [sys.executable, "-c", PASS, str(len(passed)), *command]

        def place() -> None:  # in the child: the copies become 3, 4, ..
            for i, fd in enumerate(copies):
                os.dup2(fd, 100 + i)
            for i in range(len(copies)):
                os.dup2(100 + i, 3 + i)
                os.close(100 + i)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=place, close_fds=False
            )
        for fd in copies:
            os.close(fd)

    def wait_ready(self) -> None:
        assert self.process is not None
        wait_for("READY=1", lambda: self.ready.is_set() or self.process.poll() is not None, timeout=60)
        assert self.ready.is_set(), self.log.read_text()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, self.log.read_text()

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END=1", str(self.folder / "notify"))
        self._thread.join()
        for _, fd in self.store:
            os.close(fd)
        for _, unit in self.units:
            unit.close()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Iterator[Manager]:
    (tmp_path / "run").mkdir()
    with contextlib.closing(Manager(tmp_path)) as made:
        yield made


@pytest.fixture
def settled(tiny: pathlib.Path) -> pathlib.Path:
    """A model that has not changed for so long that a change would be seen (GgufFile::Stamp)."""
    wait_for("the model's age", lambda: time.time() - tiny.stat().st_ctime > 4)
    return tiny


def generate(address: str) -> list[int]:
    with grpc.insecure_channel(address) as channel:
        stub = generation_pb2_grpc.GenerationStub(channel)
        replies = stub.Generate(request([1, 2, 3], max_tokens=8, ignore_eos=True), timeout=60)
        return [token.id for reply in replies for token in reply.delta.tokens]


class Load:
    """Calls at a rate, with a retry policy, each on one of some channels."""

    def __init__(self, address: str, rate: float, channels: int = 8):
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self._address = address
        self._pause = channels / rate
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(channels)]

    def _run(self, index: int) -> None:
        options = [("grpc.service_config", json.dumps(RETRIES)), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            stub = generation_pb2_grpc.GenerationStub(channel)
            while not self._stop.wait(self._pause):
                began = time.monotonic()
                try:
                    list(stub.Generate(request([1, 2, 3 + index], max_tokens=4, ignore_eos=True), timeout=60))
                    self.outcomes["ok"] += 1
                except grpc.RpcError as error:
                    self.outcomes[f"{error.code().name}: {error.details()}"] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_call_fails_over_restarts(manager: Manager, settled: pathlib.Path) -> None:
    """Five restarts under 50 calls a second, some of them long: with a retry policy none fails, and no stream is cut."""
    address = f"127.0.0.1:{free_port()}"
    manager.start(settled, address)
    manager.wait_ready()
    expected = generate(address)
    with Load(address, rate=50) as load:
        for _ in range(5):
            time.sleep(0.5)
            manager.stop()
            manager.start(settled, address)
            manager.wait_ready()
        time.sleep(0.5)
    assert set(load.outcomes) == {"ok"} and load.outcomes["ok"] > 50, load.outcomes
    assert generate(address) == expected
    assert manager.names() == ["listener", "weights"]
    messages = manager.messages()
    assert sum("packed in" in message for message in messages) == 1
    assert sum("taken over from the last process" in message for message in messages) == 5
    assert not [message for message in messages if re.search(r"[1-9]\d* were cut", message)]
    manager.stop()


def test_long_drain_holds_new_calls(manager: Manager, settled: pathlib.Path) -> None:
    """While a long stream runs to its end, a call on an open connection and one on a new one wait for the next process."""
    address = f"127.0.0.1:{free_port()}"
    manager.start(settled, address)
    manager.wait_ready()
    options = [("grpc.service_config", json.dumps(RETRIES))]
    done: dict[str, int] = {}

    def run(name: str, stub: generation_pb2_grpc.GenerationStub) -> None:
        done[name] = sum(1 for _ in stub.Generate(request([1, 2], max_tokens=4, ignore_eos=True), timeout=60))

    with grpc.insecure_channel(address, options=options) as channel, grpc.insecure_channel(
        address, options=[*options, ("grpc.use_local_subchannel_pool", 1)]
    ) as other:
        stub = generation_pb2_grpc.GenerationStub(channel)
        stream = stub.Generate(request([1, 2, 3], max_tokens=12000, ignore_eos=True), timeout=60)
        next(stream)
        assert manager.process is not None
        manager.process.send_signal(signal.SIGTERM)
        wait_for("the drain", lambda: any(message.startswith("draining") for message in manager.messages()))
        threads = [
            threading.Thread(target=run, args=("old", stub)),
            threading.Thread(target=run, args=("new", generation_pb2_grpc.GenerationStub(other))),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        held_while_draining = manager.process.poll() is None and not done
        last = collections.deque(stream, maxlen=1)[0]
        assert last.HasField("final") and last.final.finish_reason == generation_pb2.FINISH_REASON_LENGTH
        assert held_while_draining
        assert manager.process.wait(timeout=60) == 0
        manager.start(settled, address)
        manager.wait_ready()
        for thread in threads:
            thread.join()
    assert set(done) == {"old", "new"} and all(done.values())
    manager.stop()


def test_other_model_other_address(manager: Manager, settled: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Descriptors that the next process cannot use are forgotten: the image of a changed file, the socket of another address."""
    ports = [free_port(), free_port()]
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(settled.read_bytes())
    wait_for("the copy's age", lambda: time.time() - copy.stat().st_ctime > 4)
    manager.start(copy, f"127.0.0.1:{ports[0]}")
    manager.wait_ready()
    first = dict(manager.store)
    assert manager.names() == ["listener", "weights"]
    manager.stop()
    # Changed contents of the same size and time of writing.
    times = copy.stat()
    data = bytearray(copy.read_bytes())
    data[-1000] ^= 1
    copy.write_bytes(bytes(data))
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert copy.stat().st_mtime_ns == times.st_mtime_ns
    manager.start(copy, f"127.0.0.1:{ports[1]}")
    manager.wait_ready()
    assert generate(f"127.0.0.1:{ports[1]}")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), timeout=5)
    # Changed just now, so that no image of it is kept yet.
    assert manager.names() == ["listener"] and not set(first) & set(dict(manager.store))
    assert sum("packed in" in message for message in manager.messages()) == 2
    manager.stop()


def test_unix_socket(manager: Manager, settled: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A file in the unit's runtime directory stays for the next process; elsewhere the last process removes it."""
    inside, outside = manager.folder / "run" / "mnemo.sock", tmp_path / "mnemo.sock"
    manager.start(settled, f"unix:{inside}")
    manager.wait_ready()
    manager.stop()
    assert stat.S_ISSOCK(inside.stat().st_mode) and "listener" in manager.names()
    with Load(f"unix:{inside}", rate=20, channels=2) as load:
        time.sleep(0.2)
        manager.start(settled, f"unix:{inside}", settings={"server.listen_mode": "0640"})
        manager.wait_ready()
        time.sleep(0.5)
    assert set(load.outcomes) == {"ok"}, load.outcomes
    assert stat.S_IMODE(inside.stat().st_mode) == 0o640
    manager.stop()
    manager.start(settled, f"unix:{outside}")
    manager.wait_ready()
    assert "listener" not in manager.names()
    manager.stop()
    assert not outside.exists()


def test_socket_unit(manager: Manager, settled: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Sockets of a socket unit serve besides server.listen and stay as they are; clients wait before the first start."""
    tcp = socket.create_server(("127.0.0.1", 0))
    path = tmp_path / "unit.sock"
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(path))
    unix.listen(128)
    manager.units = [("mnemod.socket", tcp), ("mnemod.socket", unix)]
    unit_address = f"127.0.0.1:{tcp.getsockname()[1]}"
    own = f"127.0.0.1:{free_port()}"
    answers: list[list[int]] = []
    early = threading.Thread(target=lambda: answers.append(generate(unit_address)))
    early.start()
    manager.start(settled, own)
    early.join()
    assert len(answers[0]) == 8
    assert generate(own) == generate(f"unix:{path}") == answers[0]
    manager.wait_ready()
    assert manager.names() == ["listener", "weights"]
    manager.stop()
    assert path.exists()
    # server.listen names the socket of the unit: there is nothing else to keep.
    manager.start(settled, unit_address)
    manager.wait_ready()
    assert generate(unit_address) == answers[0]
    assert manager.names() == ["weights"]
    manager.stop()


@pytest.mark.parametrize("kind", ["file", "datagram"])
def test_wrong_descriptor(manager: Manager, settled: pathlib.Path, kind: str, tmp_path: pathlib.Path) -> None:
    """A descriptor that is no listening socket ends the start with a message that says so."""
    if kind == "datagram":
        wrong = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        wrong = socket.socket(fileno=os.dup(socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach()))
    manager.units = [("mnemod.socket", wrong)]
    manager.start(settled, f"127.0.0.1:{free_port()}")
    assert manager.process is not None and manager.process.wait(timeout=60) == 1
    assert "no listening stream socket" in manager.log.read_text()


def test_without_hand_over(manager: Manager, settled: pathlib.Path) -> None:
    """Without --hand-over nothing is kept, and a drain refuses new calls at once."""
    address = f"127.0.0.1:{free_port()}"
    manager.start(settled, address, hand_over=False)
    manager.wait_ready()
    assert manager.names() == []
    with grpc.insecure_channel(address) as channel:
        stub = generation_pb2_grpc.GenerationStub(channel)
        stream = stub.Generate(request([1, 2, 3], max_tokens=12000, ignore_eos=True), timeout=60)
        next(stream)
        assert manager.process is not None
        manager.process.send_signal(signal.SIGTERM)
        wait_for("the drain", lambda: any(message.startswith("draining") for message in manager.messages()))
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Generate(request([1], max_tokens=1), timeout=60))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and "draining" in (refused.value.details() or "")
        list(stream)
    assert manager.process.wait(timeout=60) == 0

"""mnemo-energy from outside: a fake tree of powercap, a client that is Python's own socket, systemd's environment."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from harness import BIN, wait_for

PROGRAM = BIN / "mnemo-energy"
RANGE_UJ = 262_143_328_850
# As systemd: the socket is descriptor 3, and LISTEN_PID is the program's own.
PASS_SOCKET = [
    sys.executable,
    "-c",
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.execve(sys.argv[2], sys.argv[2:], {**os.environ, 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'})",
]


class Tree:
    """Two packages, of which psys and the mmio twin are repeats."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        for zone, name in {
            "intel-rapl:0": "package-0",
            "intel-rapl:1": "package-1",
            "intel-rapl:2": "psys",
            "intel-rapl-mmio:0": "package-0",
        }.items():
            (root / zone).mkdir(parents=True)
            (root / zone / "name").write_text(name + "\n")
            (root / zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
            self.set(zone, 0)

    def set(self, zone: str, energy_uj: int) -> None:
        # In place of the old file at once: a reader never sees half a number.
        new = self.root / "new"
        new.write_text(f"{energy_uj % (RANGE_UJ + 1)}\n")
        new.rename(self.root / zone / "energy_uj")


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path / "powercap")


@contextlib.contextmanager
def running(arguments: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def arguments(tree: Tree, path: pathlib.Path) -> list[str]:
    return ["--powercap-root", str(tree.root), "--socket", str(path), "--set", "energy.sources=[rapl]"]


def connect(path: pathlib.Path) -> socket.socket:
    def attempt() -> socket.socket | None:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            client.connect(str(path))
        except OSError:
            client.close()
            return None
        client.settimeout(20)
        return client

    client = wait_for("a server at the socket", attempt)
    assert isinstance(client, socket.socket)
    return client


def readings(client: socket.socket) -> dict[str, list[str]]:
    """The fields behind device and source, by device."""
    message = client.recv(1 << 16).decode()
    first, *lines = message.splitlines()
    assert first.startswith("mnemo-energy 1 ")
    return {device: [source, *fields] for device, source, *fields in (line.split(" ") for line in lines)}


def test_readings_follow_the_counters_over_a_wrap(tree: Tree, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "meters.sock"
    begin = RANGE_UJ - 3_000_000
    tree.set("intel-rapl:0", begin)
    with running(arguments(tree, path)), connect(path) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        readings(client)
        # 20 steps of 1 J, each after a message: each step is in a reading of its own or joins the next one.
        for step in range(1, 21):
            tree.set("intel-rapl:0", begin + step * 1_000_000)
            tree.set("intel-rapl:2", step * 9_000_000)
            last = readings(client)
        tenths = 0
        for _ in range(50):
            last = readings(client)
            assert set(last) == {"cpu0", "cpu1"}
            assert int(last["cpu0"][3]) >= tenths
            tenths = int(last["cpu0"][3])
            if tenths >= 190:
                break
        # The first step may have come before the first reading.
        assert 190 <= tenths <= 200
        assert last["cpu0"][:2] == ["rapl", "1"]
        assert last["cpu0"][4:7] == ["0", "0", "0"]
        assert last["cpu1"][3] == "0"


def test_a_killed_one_is_replaced_at_the_same_socket(tree: Tree, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "meters.sock"
    with running(arguments(tree, path)) as first:
        with connect(path) as client:
            readings(client)
            with running(arguments(tree, path)) as second:
                assert second.wait(20) == 1
                assert "another process listens there" in second.stderr.read()  # type: ignore[union-attr]
            readings(client)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert path.exists()
    with running(arguments(tree, path)) as third:
        with connect(path) as client:
            readings(client)
        third.send_signal(signal.SIGTERM)
        assert third.wait(20) == 0
    assert not path.exists()


def test_systemd_passes_the_socket_and_hears_that_it_is_ready(tree: Tree, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "passed.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(20)

    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    command = [*PASS_SOCKET, str(listener.fileno()), PROGRAM, *arguments(tree, tmp_path / "unused.sock")]
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert notify.recv(100) == b"READY=1"
        with connect(path) as client:
            assert "cpu0" in readings(client)
        process.send_signal(signal.SIGTERM)
        assert notify.recv(100) == b"STOPPING=1"
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert path.exists() and not (tmp_path / "unused.sock").exists()


def test_a_socket_of_another_kind_is_refused(tree: Tree, tmp_path: pathlib.Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "stream.sock"))
    listener.listen()
    command = [*PASS_SOCKET, str(listener.fileno()), PROGRAM, *arguments(tree, tmp_path / "unused.sock")]
    ended = subprocess.run(command, pass_fds=[listener.fileno()], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "ListenSequentialPacket=" in ended.stderr


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--socket", "/nonexistent/meters.sock", "energy.socket: /nonexistent/meters.sock: No such file"),
        ("--interval-ms", "5", "energy.interval_ms: 5 is out of range; allowed: [10, 10000]"),
        ("--socket-group", "no-such-group", "--socket-group: there is no group no-such-group"),
    ],
)
def test_bad_options_name_themselves(tree: Tree, tmp_path: pathlib.Path, option: str, value: str, text: str) -> None:
    path = pathlib.Path(value) if option == "--socket" else tmp_path / "meters.sock"
    more = [] if option == "--socket" else [option, value]
    ended = subprocess.run([PROGRAM, *arguments(tree, path), *more], capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2)
    assert text in ended.stderr


def test_a_machine_without_counters_is_no_failure(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "meters.sock"
    options = ["--powercap-root", str(tmp_path), "--socket", str(path), "--set", "energy.sources=[rapl]"]
    with running(options), connect(path) as client:
        assert readings(client) == {}
        begin = time.monotonic()
        for _ in range(5):
            readings(client)
        # A lower bound that load cannot break: at most ten readings a second, so that they are no side channel.
        assert time.monotonic() - begin >= 0.35

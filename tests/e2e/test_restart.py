"""A child is started again even when files of the first start have changed or gone: program, runtime directory, log."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Iterator

import harness
import pytest
from harness import Code, Daemon, request, tiny_model, wait_for


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", layers=4)


def _kill_worker(daemon: Daemon) -> None:
    """The worker dies and is started again, with the same answers."""
    req = request([1, 2, 3], max_tokens=20, ignore_eos=True)
    before = daemon.status().workers[0]
    expected = daemon.generate(req).check_ok().ids
    os.kill(before.pid, signal.SIGKILL)
    wait_for("a new worker", lambda: daemon.status().workers[0].pid not in (0, before.pid), 10)
    daemon.wait_workers(1)
    assert daemon.generate(req).check_ok().ids == expected


def _memory_pid(daemon: Daemon) -> int:
    return int(daemon.status().memory_services[0].pid)


@pytest.fixture
def programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("mnemod", "mnemo-worker", "mnemo-memory"):
        shutil.copy(harness.BIN / name, folder / name)
    monkeypatch.setattr(harness, "BIN", folder)
    yield folder


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_the_programs_are_those_of_the_start(tiny: pathlib.Path, programs: pathlib.Path, how: str) -> None:
    with Daemon(tiny, settings={"memory.services": 1, "memory.restart_backoff_ms": 50}) as daemon:
        wait_for("the memory service", lambda: daemon.attached(), 20)
        for name in ("mnemo-worker", "mnemo-memory"):
            (programs / name).unlink()
            if how == "replaced":
                (programs / name).write_text("#!/bin/sh\nexit 7\n")
                (programs / name).chmod(0o755)
        _kill_worker(daemon)
        pid = _memory_pid(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_for("a new memory service", lambda: _memory_pid(daemon) not in (0, pid), 10)
        wait_for("the worker is attached again", lambda: daemon.attached(), 20)
        name = pathlib.Path(f"/proc/{daemon.status().workers[0].pid}/comm").read_text().strip()
        assert name == "mnemo-worker"


@pytest.mark.parametrize("configured", [True, False])
def test_the_runtime_directory_is_made_again(
    tiny: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    base = tmp_path / "run"
    base.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    settings = {"memory.services": 1, "memory.restart_backoff_ms": 50, "memory.health_interval_ms": 100}
    if configured:
        settings["workers.runtime_dir"] = str(base / "mnemo")
    with Daemon(tiny, settings=settings) as daemon:
        wait_for("the memory service", lambda: daemon.attached(), 20)
        assert list(base.iterdir()), "the sockets are not where they should be"
        pid = _memory_pid(daemon)
        shutil.rmtree(base)
        # No process has died, but no worker could attach again: the service notices.
        wait_for("a memory service with a socket", lambda: _memory_pid(daemon) not in (0, pid), 10)
        _kill_worker(daemon)
        wait_for("the worker is attached", lambda: daemon.attached(), 20)
        (folder,) = [path for path in base.iterdir() if path.is_dir()]
        assert {path.name for path in folder.iterdir()} >= {"worker0.sock", "memory0.sock"}
        if not configured:
            assert folder.stat().st_mode & 0o777 == 0o700
    if not configured:
        assert not list(base.iterdir()), "a private directory is removed at the end"


def test_a_path_too_long_for_sockets_gives_way(tiny: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    for settings in ({}, {"workers.runtime_dir": str(long / "mnemo")}):
        with Daemon(tiny, settings={"memory.services": 1, **settings}) as daemon:
            _kill_worker(daemon)
            wait_for("the memory service", lambda: daemon.attached(), 20)
            assert daemon.log().count("too long for the") == len(settings)


def test_the_folder_of_the_log_is_removed(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with Daemon(tiny, settings={"log.file": str(folder / "mnemo.log")}) as daemon:
        shutil.rmtree(folder)
        _kill_worker(daemon)


def test_the_second_daemon_on_a_runtime_directory_ends_at_once(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    settings = {"workers.runtime_dir": str(folder)}
    with Daemon(tiny, settings=settings) as first:
        second = Daemon(tiny, settings=settings)
        try:
            assert second.process.wait(20) == 1
            assert "workers.runtime_dir" in second.log() and f"process {first.process.pid}" in second.log()
        finally:
            second._end()
        _kill_worker(first)
        # A crash of the first daemon does not block the next one.
        first.process.kill()
        first.process.wait(10)
        with Daemon(tiny, settings=settings) as third:
            assert third.generate(request([1])).code == Code.OK
    assert not (folder / "mnemod.lock").exists()
    assert subprocess.run(["test", "-d", folder]).returncode == 0

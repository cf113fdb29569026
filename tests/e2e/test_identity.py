"""The identity holds everything that decides a number; a model file that changes under a running daemon changes no answer."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable

import pytest
from harness import BIN, Code, Daemon, free_port, pb, process_ended, request, tiny_model, wait_for


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def _copy(tiny: pathlib.Path, folder: pathlib.Path, name: str = "model.gguf") -> pathlib.Path:
    return pathlib.Path(shutil.copy(tiny, folder / name))


def _change_freq_base(path: pathlib.Path) -> None:
    """Four bytes, in place."""
    data = path.read_bytes()
    key = b"llama.rope.freq_base"
    at = data.index(key) + len(key) + 4
    assert struct.unpack_from("<f", data, at) == (10000.0,)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<f", 500.0))


def _change_last_byte(path: pathlib.Path) -> None:
    """In the mantissa of the last weight of the last tensor, far behind its first bytes."""
    with path.open("r+b") as file:
        file.seek(-4 * 5 + 1, os.SEEK_END)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 0x55]))


def _replace(path: pathlib.Path) -> None:
    other = tiny_model(path.with_name("other.gguf"), seed=8)
    os.replace(other, path)


def _truncate(path: pathlib.Path) -> None:
    os.truncate(path, 1000)


def _remove_folder(path: pathlib.Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("change", [_change_freq_base, _change_last_byte, _replace, _truncate, pathlib.Path.unlink, _remove_folder])
def test_a_file_that_changes_changes_no_answer(tiny: pathlib.Path, tmp_path: pathlib.Path, change: Callable[[pathlib.Path], None]) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = _copy(tiny, folder)
    req = request([1, 2, 3], max_tokens=3000, ignore_eos=True)
    with Daemon(path, workers=1, settings={"workers.restart_backoff_ms": 50}) as daemon:
        expected = daemon.generate(req).check_ok().ids
        identity = daemon.model().numerics_id
        call = daemon.generation.Generate(req, timeout=60)
        ids: list[int] = []
        while not ids:
            ids += [t.id for t in next(call).delta.tokens]
        change(path)
        os.kill(daemon.status().workers[0].pid, signal.SIGKILL)
        for message in call:
            ids += [t.id for t in message.delta.tokens]
        assert ids == expected
        assert daemon.status().workers[0].restarts == 1
        assert daemon.model().numerics_id == identity
        # Text is that of the file which was opened, too.
        text = daemon.generation.Tokenize(pb.TokenizeRequest(text="hello"), timeout=10)
        assert len(text.ids) == 5


@pytest.mark.parametrize("change", [_change_freq_base, _change_last_byte])
def test_two_files_that_differ_anywhere_have_two_identities(
    tiny: pathlib.Path, tmp_path: pathlib.Path, change: Callable[[pathlib.Path], None]
) -> None:
    same, other = _copy(tiny, tmp_path, "same.gguf"), _copy(tiny, tmp_path, "other.gguf")
    change(other)
    identities = []
    for path in (tiny, same, other):
        with Daemon(path) as daemon:
            identities.append(daemon.model().numerics_id)
    assert identities[0] == identities[1] != identities[2]


def test_a_remote_worker_with_another_file_is_refused_with_both_ids(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = _copy(tiny, tmp_path)
    _change_last_byte(other)
    address = f"127.0.0.1:{free_port()}"
    worker = subprocess.Popen([BIN / "mnemo-worker", "--model", other, "--listen", address, "--log-level", "error"])
    daemon = Daemon(tiny, workers=0, settings={"workers.addresses": f"[{address}]", "workers.no_worker_timeout_ms": 500})
    try:

        def refusal() -> str:
            assert daemon.process.poll() is None, daemon.log()
            try:
                detail = daemon.status().workers[0].detail
            except Exception:  # noqa: BLE001  not up yet
                return ""
            return detail if "serves" in detail else ""

        detail = wait_for("the refusal", refusal, 20)
        theirs, ours = (word.strip(",") for word in detail.split() if word.startswith("tiny-"))
        assert theirs != ours and len(theirs) == len(ours) == len("tiny-") + 32
        assert detail in daemon.log()
        answer = daemon.generate(request([1]))
        assert answer.code == Code.UNAVAILABLE and theirs in answer.details and ours in answer.details, answer.details
    finally:
        daemon._end()
        worker.kill()
        worker.wait()


def test_a_file_cut_while_it_is_packed_ends_the_daemon_with_its_name(tmp_path: pathlib.Path) -> None:
    """At every cut, mnemod serves or names the error; it never dies of a signal."""
    path = tiny_model(tmp_path / "large.gguf", layers=200)
    whole = path.read_bytes()
    seen = set()
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08):
        path.write_bytes(whole)
        daemon = Daemon(path)
        try:
            wait_for("the file is open", lambda: daemon.process.poll() is not None or _has_open(daemon.process.pid, path), 20, 0.0005)
            time.sleep(delay)
            os.truncate(path, len(whole) // 2)
            wait_for("an end or service", lambda: daemon.process.poll() is not None or daemon.serving(), 30)
            code = daemon.process.poll()
            seen.add(code)
            assert code in (None, 1), f"ended with {code}: {daemon.log()}"
            if code == 1:
                assert str(path) in daemon.log()
        finally:
            daemon._end()
    assert 1 in seen


def _has_open(pid: int, path: pathlib.Path) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == str(path) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return process_ended(pid)

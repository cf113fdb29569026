"""The installed package: types, and the example as a program."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from conftest import FakeDaemon

import mnemo

SOURCE = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = pathlib.Path(mnemo.__file__).resolve().parent


def test_types_are_strict(tmp_path: pathlib.Path) -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "v1" / "generation_pb2.pyi").is_file()
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "mnemo"]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    user = tmp_path / "user.py"
    user.write_text("import mnemo\nreveal_type(mnemo.Client().generate('x').timing.total)\nmnemo.Client().generate('x', heat=1)\n")
    environment = dict(os.environ, MYPYPATH=str(PACKAGE.parent))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(user), str(SOURCE / "examples" / "stream.py")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert 'Revealed type is "float"' in result.stdout
    assert 'Unexpected keyword argument "heat"' in result.stdout
    assert "stream.py" not in result.stdout


def run_example(address: str, stdout: int = subprocess.PIPE, max_tokens: int = 4) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE.parent))
    command = [sys.executable, str(SOURCE / "examples" / "stream.py"), "--address", address, "--max-tokens", str(max_tokens), "hello"]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)


def test_example(daemon: FakeDaemon) -> None:
    result = run_example(daemon.address)
    assert (result.returncode, result.stdout.strip()) == (0, "hell")
    assert "[length, 4 tokens]" in result.stderr
    failed = run_example("127.0.0.1:1")
    assert failed.returncode == 1
    assert "UNAVAILABLE" in failed.stderr


def test_example_whose_output_is_closed(daemon: FakeDaemon) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = run_example(daemon.address, stdout=writing, max_tokens=100_000)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")
    assert daemon.cancelled.wait(20)

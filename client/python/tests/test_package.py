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


def run_example(address: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(PACKAGE.parent))
    command = [sys.executable, str(SOURCE / "examples" / "stream.py"), "--address", address, "--max-tokens", "4", "hello"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_example(daemon: FakeDaemon) -> None:
    result = run_example(daemon.address)
    assert (result.returncode, result.stdout.strip()) == (0, "hell")
    assert "[length, 4 tokens]" in result.stderr
    failed = run_example("127.0.0.1:1")
    assert failed.returncode == 1
    assert "UNAVAILABLE" in failed.stderr

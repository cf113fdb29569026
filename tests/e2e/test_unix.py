"""server.listen: unix:/PATH, and all clients over it."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess
import sys

from harness import BIN, ROOT, Code, Daemon, generation_pb2, request


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / arguments[0]), *arguments[1:]], capture_output=True, text=True, timeout=60)


def check(tiny: pathlib.Path, listen: str, *settings: str) -> subprocess.CompletedProcess[str]:
    sets = [word for setting in settings for word in ("--set", setting)]
    return run("mnemod", "--check-config", "--model", str(tiny), "--listen", listen, *sets)


def python_client(folder: pathlib.Path, address: str) -> list[int]:
    """The answer of the Python package: a copy of it with the stubs that its build makes."""
    package = folder / "package" / "mnemo"
    shutil.copytree(ROOT / "client" / "python" / "mnemo", package)
    for stub in pathlib.Path(str(generation_pb2.__file__)).parent.glob("*_pb2*.py"):
        shutil.copy(stub, package / "v1")
    code = (
        "import mnemo\n"
        f"with mnemo.Client('{address}') as client:\n"
        "    reply = client.generate(token_ids=[1, 2, 3], max_tokens=20, temperature=0, ignore_eos=True)\n"
        "    print(*reply.token_ids)\n"
    )
    client = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=package.parent)
    assert client.returncode == 0, client.stderr
    return [int(word) for word in client.stdout.split()]


def test_every_client_reaches_it(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Plain gRPC, the program, the Python package, reflection; the mode is that of the setting, the file goes at the end."""
    path = tmp_path / "mnemo.sock"
    with Daemon(tiny, listen=f"unix:{path}", settings={"server.listen_mode": "0640"}) as daemon:
        assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o640
        expected = daemon.generate(request([1, 2, 3], max_tokens=20, ignore_eos=True)).check_ok()
        program = run("mnemo", "status", "--address", f"unix:{path}")
        assert program.returncode == 0 and "worker0" in program.stdout, program.stderr
        program = run("mnemo", "generate", "--address", f"unix:{path}", "--max-tokens", "5", "--temperature", "0", "abc")
        assert program.returncode == 0, program.stderr
        assert python_client(tmp_path, f"unix:{path}") == expected.ids
        call = daemon.generation.Generate(request([1], max_tokens=16000, ignore_eos=True), timeout=60)
        next(call)
        call.cancel()
        daemon.wait_idle()
        assert len(expected.ids) == 20
    assert not path.exists()


def test_stale_and_live_files(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mnemo.sock"
    first = Daemon(tiny, listen=f"unix:{path}")
    with first:
        second = Daemon(tiny, listen=f"unix:{path}")
        assert second.process.wait(30) == 1
        assert f"server.listen: cannot listen on unix:{path}: another process does" in second.log()
        assert first.serving()
        first.process.kill()
        first.process.wait()
    assert path.exists(), "a killed daemon leaves its file"
    with Daemon(tiny, listen=f"unix:{path}") as third:
        third.generate(request([1], max_tokens=5, ignore_eos=True)).check_ok()
    assert not path.exists()


def test_a_socket_that_was_removed_ends_with_status_0(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mnemo.sock"
    with Daemon(tiny, listen=f"unix:{path}") as daemon:
        path.unlink()
        path.write_text("another's")
        daemon.process.terminate()
        assert daemon.process.wait(20) == 0
    assert path.read_text() == "another's"


def test_what_cannot_be_is_refused(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    good = tmp_path / "s"
    assert check(tiny, f"unix:{good}").returncode == 0
    longest = "unix:" + str(tmp_path) + "/" + "x" * (107 - len(str(tmp_path)) - 1)
    assert check(tiny, longest).returncode == 0
    plain = tmp_path / "plain"
    plain.write_text("")
    for listen, words in {
        longest + "x": "107 bytes",
        "unix:": "is not an address",
        "unix:relative": "is not an address",
        f"unix:{tmp_path}/": "names a directory",
        f"unix:{tmp_path}/absent/s": "its directory is not there",
        f"unix:{plain}": "is a file that is no socket",
    }.items():
        refused = check(tiny, listen)
        assert refused.returncode == 1 and "server.listen" in refused.stderr and words in refused.stderr, (listen, refused.stderr)
    for mode in ("0888", "1777", "rw", "", "77"):
        refused = check(tiny, f"unix:{good}", f"server.listen_mode='{mode}'")
        assert refused.returncode == 1 and "server.listen_mode" in refused.stderr and "0000 to 0777" in refused.stderr, refused.stderr
    for mode in ("0600", "660", "'0666'"):
        assert check(tiny, f"unix:{good}", f"server.listen_mode={mode}").returncode == 0, mode


def test_the_path_at_its_bound_serves(tiny: pathlib.Path) -> None:
    folder = pathlib.Path("/tmp") / ("mnemo-unix-" + "y" * 40)
    folder.mkdir(exist_ok=True)
    try:
        path = folder / ("z" * (107 - len(str(folder)) - 1))
        assert len(str(path)) == 107
        with Daemon(tiny, listen=f"unix:{path}") as daemon:
            reply = daemon.generate(request([1, 2], max_tokens=3, ignore_eos=True))
            assert reply.code == Code.OK
    finally:
        shutil.rmtree(folder)

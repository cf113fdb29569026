"""Models in several GGUF files, split by the Python package gguf: one model, and an error for every inconsistent set of files."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import gguf
import pytest
from harness import BIN, Daemon, process_ended, request, tiny_model, wait_for

SMOL = pathlib.Path(os.environ.get("MNEMO_MODELS", pathlib.Path.home() / ".cache" / "mnemo" / "models")) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def split(
    source: pathlib.Path,
    folder: pathlib.Path,
    *,
    stem: str = "model",
    alignment: int = 0,
    without: tuple[str, ...] = (),
    **how: Any,
) -> list[pathlib.Path]:
    """The parts that gguf's own writer makes of a file, first part first."""
    folder.mkdir(exist_ok=True)
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(folder / f"{stem}.gguf"), architecture, **how)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", *without):
            continue
        value = field.contents()
        # As GGUFWriter's own tools do: arrays keep the type of their elements.
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        if sub_type is None or value:
            writer.add_key_value(name, value, field.types[0], sub_type)
    if alignment:
        writer.add_custom_alignment(alignment)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{stem}*.gguf"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def parts(tiny: pathlib.Path, tmp_path: pathlib.Path) -> list[pathlib.Path]:
    found = split(tiny, tmp_path / "parts", split_max_tensors=6)
    assert [p.name for p in found] == [f"model-{i:05}-of-00004.gguf" for i in (1, 2, 3, 4)]
    return found


def answer(daemon: Daemon, prompt: Any, max_tokens: int = 24) -> list[Any]:
    """Tokens with their log probabilities and those of the first alternatives, to the last bit."""
    message = request(prompt, max_tokens=max_tokens, ignore_eos=True)
    message.output.logprobs = 5
    return [t.SerializeToString() for t in daemon.generate(message).check_ok().tokens]


def refusal(model: pathlib.Path) -> str:
    """The error of a mnemod that ends without having served."""
    command = [str(BIN / "mnemod"), "--listen", "127.0.0.1:0", "--metrics-listen", "", "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    return done.stdout + done.stderr


# The alignment is a key of the first part alone.
@pytest.mark.parametrize(
    "how",
    [
        {"split_max_tensors": 6},
        {"split_max_tensors": 1},
        {"split_max_size": 70000},
        {"split_max_tensors": 7, "small_first_shard": True},
        {"split_max_tensors": 5, "alignment": 256},
        {"split_max_tensors": 3, "alignment": 8},
    ],
)
def test_a_split_model_is_the_unsplit_one(tiny: pathlib.Path, tmp_path: pathlib.Path, how: dict[str, Any]) -> None:
    whole = tiny
    if "alignment" in how:  # a key that is read, and so in the id
        (whole,) = split(tiny, tmp_path / "whole", alignment=how["alignment"])
    found = split(tiny, tmp_path / "parts", **how)
    assert len(found) > 2
    with Daemon(whole) as one, Daemon(found[0]) as several:
        assert answer(several, [1, 2, 3]) == answer(one, [1, 2, 3])
        assert several.model().numerics_id == one.model().numerics_id
        assert several.model().name == one.model().name == "tiny"
        assert f"{found[0]}, the first of {len(found)} files" in several.log()


def test_smollm2_split_by_size(tmp_path: pathlib.Path) -> None:
    found = split(SMOL, tmp_path / "parts", split_max_size=30_000_000)
    assert len(found) >= 3
    prompt = "The capital of France is"
    with Daemon(SMOL) as one:
        expected, identity = answer(one, prompt), one.model().numerics_id
    with Daemon(found[0]) as several:
        assert answer(several, prompt) == expected
        assert several.model().numerics_id == identity


def test_the_name_of_a_file_without_one_has_no_number(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = split(tiny, tmp_path / "parts", stem="small", without=("general.name",), split_max_tensors=6)
    with Daemon(found[0]) as daemon:
        assert daemon.model().name == "small"


def test_text_needs_the_first_part_alone(parts: list[pathlib.Path]) -> None:
    for path in parts[1:]:
        path.unlink()
    done = subprocess.run([BIN / "mnemo", "tokenize", "--gguf", parts[0]], input="hello", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "104" in done.stdout, done


def _swap(a: pathlib.Path, b: pathlib.Path) -> None:
    other = a.with_name("other")
    a.rename(other)
    b.rename(a)
    other.rename(b)


def _change_count(path: pathlib.Path) -> None:
    data = path.read_bytes()
    at = data.index(b"split.count") + len(b"split.count") + 4
    assert data[at : at + 2] == b"\x04\x00"
    path.write_bytes(data[:at] + b"\x05\x00" + data[at + 2 :])


def _mix(path: pathlib.Path) -> None:
    """A part of another set: the same model, the same count of parts, cut elsewhere."""
    other = split(path.parents[1] / "tiny.gguf", path.parents[1] / "other", split_max_size=140_000)
    assert len(other) == 4
    shutil.copy(other[1], path)


def _repeat(path: pathlib.Path) -> None:
    """A tensor's name is made that of another part's tensor."""
    data = path.read_bytes()
    assert data.count(b"blk.1.ffn_down.weight") == 1
    path.write_bytes(data.replace(b"blk.1.ffn_down.weight", b"blk.0.ffn_down.weight"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p[1].unlink(), ["{1}", "part 2 of 4"]),
        (lambda p: p[3].unlink(), ["{3}", "part 4 of 4"]),
        (lambda p: _swap(p[1], p[2]), ["{1}", "'split.no' is 2; it is 1"]),
        (lambda p: _swap(p[0], p[1]), ["{0}", "'split.no' is 1"]),
        (lambda p: _change_count(p[2]), ["{2}", "'split.count' is 5; it is 4"]),
        (lambda p: _change_count(p[0]), ["{0}", "'split.count' is 5; by its name the file is one of 4"]),
        (lambda p: _mix(p[1]), ["{1}", "is there twice"]),
        (lambda p: _repeat(p[3]), ["{3}", "'blk.0.ffn_down.weight' is there twice"]),
        (lambda p: os.truncate(p[2], p[2].stat().st_size - 100), ["{2}", "truncated"]),
        (lambda p: os.truncate(p[2], 0), ["{2}", "empty"]),
    ],
)
def test_files_that_are_no_model_are_refused_by_name(
    tiny: pathlib.Path, tmp_path: pathlib.Path, parts: list[pathlib.Path], spoil: Callable[[list[pathlib.Path]], None], said: list[str]
) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    spoil(parts)
    message = refusal(parts[0])
    for text in said:
        assert text.format(*parts) in message, message


def test_another_part_or_another_name_says_what_to_give(parts: list[pathlib.Path]) -> None:
    message = refusal(parts[1])
    assert str(parts[1]) in message and f"name the first one, {parts[0]}" in message
    renamed = parts[0].rename(parts[0].with_name("renamed.gguf"))
    message = refusal(renamed)
    assert str(renamed) in message and "'split.count' is 4" in message and "NAME-00001-of-00004.gguf" in message


def test_a_part_of_a_model_that_is_split_alike_gives_another_id(parts: list[pathlib.Path], tmp_path: pathlib.Path) -> None:
    """The files do not tell the two models apart; their identity does."""
    other = split(tiny_model(tmp_path / "other.gguf", seed=8), tmp_path / "other", split_max_tensors=6)
    identities = []
    for source in (parts[2], other[2]):
        os.replace(shutil.copy(source, tmp_path / "copy"), parts[2])
        with Daemon(parts[0]) as daemon:
            identities.append(daemon.model().numerics_id)
    assert identities[0] != identities[1]


def _replace(path: pathlib.Path) -> None:
    os.replace(shutil.copy(path.with_name("model-00001-of-00004.gguf"), path.with_name("other")), path)


@pytest.mark.parametrize("change", [_replace, pathlib.Path.unlink, lambda path: os.truncate(path, 100)])
def test_a_part_that_changes_changes_no_answer(parts: list[pathlib.Path], change: Callable[[pathlib.Path], None]) -> None:
    with Daemon(parts[0], settings={"workers.restart_backoff_ms": 50}) as daemon:
        expected, identity = answer(daemon, [1, 2, 3]), daemon.model().numerics_id
        change(parts[2])
        os.kill(daemon.status().workers[0].pid, signal.SIGKILL)
        wait_for("the restart", lambda: daemon.status().workers[0].restarts == 1)
        daemon.wait_workers(1)
        assert answer(daemon, [1, 2, 3]) == expected
        assert daemon.model().numerics_id == identity


def test_a_part_cut_while_the_model_is_packed_ends_the_daemon_with_its_name(tmp_path: pathlib.Path) -> None:
    """At every cut, mnemod serves or names the part; it never dies of a signal."""
    found = split(tiny_model(tmp_path / "large.gguf", layers=200), tmp_path / "parts", split_max_tensors=400)
    whole = found[2].read_bytes()
    seen = set()
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08):
        found[2].write_bytes(whole)
        daemon = Daemon(found[0])
        try:
            wait_for("the part is open", lambda: daemon.process.poll() is not None or has_open(daemon.process.pid, found[2]), 20, 0.0005)
            time.sleep(delay)
            os.truncate(found[2], len(whole) // 2)
            wait_for("an end or service", lambda: daemon.process.poll() is not None or daemon.serving(), 30)
            code = daemon.process.poll()
            seen.add(code)
            assert code in (None, 1), f"ended with {code}: {daemon.log()}"
            if code == 1:
                assert str(found[2]) in daemon.log(), daemon.log()
        finally:
            daemon._end()
    assert 1 in seen


def has_open(pid: int, path: pathlib.Path) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == str(path) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return process_ended(pid)

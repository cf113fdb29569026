"""Sizes follow from the resources that the daemon may use, and stay within their documented bounds. A context that does not fit is cut to one
that does, in all places alike. The operating system's figures of memory, cores and mappings are the oracle."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import harness
import pytest
from harness import Code, Daemon, pb, request

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
# 80 layers of 2 KV heads of 16: K and V of 16 bits, keys a second time in 78 of them, four bytes of a scale for each key.
PAGE_BYTES = 64 * 2 * (2 * 68 + 78 * 100)
# A worker's mappings beside its KV pages: stacks, arenas, libraries, weights, buffers of the model.
REST = 2 << 30


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Sixteen kilobytes of KV cache a token, ten million tokens."""
    return harness.tiny_model(tmp_path_factory.mktemp("deep") / "deep.gguf", context=10_000_000, layers=80)


def limited(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, *lines: str) -> None:
    """The daemons of this test start behind these lines of a shell."""
    program = folder / "mnemod"
    program.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(str(harness.BIN / "mnemod"))} "$@"', ""]))
    program.chmod(0o755)
    monkeypatch.setattr(harness, "BIN", folder)


def refused(model: pathlib.Path, *settings: str) -> str:
    """The message of a mnemod that ends at once since a size is not available."""
    command = [str(harness.BIN / "mnemod"), "--listen", "127.0.0.1:0", "--metrics-listen", "", "--model", str(model)]
    for setting in settings:
        command += ["--set", setting]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1, result
    (error,) = [line for line in result.stderr.splitlines() if " error " in line]
    return error


def mapped(pid: int) -> int:
    return int(re.findall(r"VmSize:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[0]) * 1024


def check_offer(daemon: Daemon, bound: int) -> int:
    """Checks that the offered context fits the pool, that the pool fits `bound` bytes, and that more is refused with the reason. Returns the context."""
    context = daemon.model().context_tokens
    for worker in daemon.status().workers:
        assert context <= worker.kv_pages_total * 64
        assert worker.kv_pages_total * PAGE_BYTES <= bound
        assert mapped(worker.pid) <= bound + REST
    (line,) = [line for line in daemon.log().splitlines() if "tokens are offered" in line]
    assert f" {context} of 10000000 " in line and "engine.kv_cache_bytes" in line
    daemon.generate(request([1, 2, 3], max_tokens=4)).check_ok()
    for message in (request([1, 2, 3], max_tokens=context - 2), request([1] * 3, max_tokens=9_999_997)):
        result = daemon.generate(message)
        assert result.code == Code.INVALID_ARGUMENT
        assert f"[0, {context - 3}]" in result.details and "engine.kv_cache_bytes" in result.details
    return context


@pytest.mark.parametrize("workers", [1, 3])
def test_a_context_that_does_not_fit_is_cut_to_what_does(deep: pathlib.Path, workers: int) -> None:
    with Daemon(deep, workers=workers) as daemon:
        daemon.wait_workers(workers)
        context = check_offer(daemon, MEMORY // 4 // workers)
        # All that fits, up to the last page; control groups may allow less than there is.
        allowed = int(re.findall(r"sizes follow from (\d+) bytes", daemon.log())[0])
        assert allowed <= MEMORY
        assert (context // 64 + 1) * PAGE_BYTES > allowed // 4 // workers


def test_a_long_context_can_be_admitted(tmp_path: pathlib.Path) -> None:
    model = harness.tiny_model(tmp_path / "long.gguf", context=4_000_000)
    prompt = [1, 2, 3]
    with Daemon(model) as daemon:
        assert daemon.model().context_tokens == 4_000_000
        call = daemon.generation.Generate(request(prompt, max_tokens=4_000_000 - len(prompt), ignore_eos=True))
        assert next(call).HasField("started")  # admitted, not refused by limits.max_tokens_in_flight
        call.cancel()
        daemon.wait_idle()


def test_a_limit_of_the_address_space(deep: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    limited(monkeypatch, tmp_path, "ulimit -v 4000000")
    with Daemon(deep) as daemon:
        check_offer(daemon, 4_000_000 * 1024 // 4)
        assert "RLIMIT_AS" in daemon.log()


def test_a_limit_of_data(deep: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    limited(monkeypatch, tmp_path, "ulimit -d 3000000")
    with Daemon(deep) as daemon:
        check_offer(daemon, 3_000_000 * 1024 // 4)
        assert "RLIMIT_DATA" in daemon.log()


def test_keys_and_values_in_the_memory_service(deep: pathlib.Path) -> None:
    """Pages of sequences that the service keeps count, too."""
    with Daemon(deep, settings={"memory.kv_residency": "memory_service"}) as daemon:
        daemon.wait_workers(1)
        (worker,) = daemon.status().workers
        assert mapped(worker.pid) <= MEMORY // 4 + REST
        model = daemon.model()
        assert worker.kv_pages_total * 64 < model.context_tokens < 10_000_000
        daemon.generate(request([1, 2, 3], max_tokens=4)).check_ok()


def test_a_given_pool_is_offered_as_it_is(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={"engine.kv_cache_bytes": 1 << 20}) as daemon:
        pool = daemon.status().workers[0].kv_pages_total * 64
        # An output's last token needs no keys and values.
        assert daemon.model().context_tokens == pool + 1 < 16384
        daemon.generate(request([1] * pool, max_tokens=1)).check_ok()
        result = daemon.generate(request([1] * (pool + 2), max_tokens=0))
        assert result.code == Code.INVALID_ARGUMENT and "engine.kv_cache_bytes" in result.details


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.context_tokens=9000000"], ["model.context_tokens: 9000000", "physical memory|memory[.]"]),
        (["engine.kv_cache_bytes=17000000000000"], ["engine.kv_cache_bytes: 17000000000000", "physical memory|memory[.]"]),
        (["workers.count=64", f"engine.kv_cache_bytes={MEMORY // 32}"], ["engine.kv_cache_bytes", "64 workers"]),
        (["memory.index_bytes=17000000000000"], ["memory.index_bytes: 17000000000000", "physical memory|memory[.]"]),
        (["memory.kv_residency=memory_service", "memory.resident_tokens=268435456"], ["memory.resident_tokens: 268435456"]),
    ],
)
def test_what_cannot_be_had_is_refused_at_the_start(deep: pathlib.Path, settings: list[str], words: list[str]) -> None:
    error = refused(deep, *settings)
    assert all(re.search(word, error) for word in words), error


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("ulimit -v 400000", ["RLIMIT_AS", "engine.kv_cache_bytes"]),
        ("ulimit -f 1000", ["RLIMIT_FSIZE"]),
    ],
)
def test_a_limit_that_leaves_too_little(
    deep: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, limit: str, words: list[str]
) -> None:
    limited(monkeypatch, tmp_path, limit)
    error = refused(deep)
    assert all(word in error for word in words), error


def test_threads_are_those_of_the_cores_that_may_be_used(tiny: pathlib.Path) -> None:
    may = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(may)})
        with Daemon(tiny, settings={"memory.services": 1}) as daemon:
            harness.wait_for("both tell their threads", lambda: len(re.findall(r"\(1 threads\)|, 1 threads,", daemon.log())) == 2)
            for worker in daemon.status().workers:
                assert os.sched_getaffinity(worker.pid) == {min(may)}
    finally:
        os.sched_setaffinity(0, may)


@pytest.fixture
def foreign(tiny: pathlib.Path) -> Iterator[str]:
    """The address of a worker that someone else has started, for shorter sequences than the model's."""
    address = f"127.0.0.1:{harness.free_port()}"
    worker = subprocess.Popen([str(harness.BIN / "mnemo-worker"), "--model", str(tiny), "--listen", address, "--context-tokens", "100"])
    yield address
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)


def test_a_worker_of_others_that_takes_less(tiny: pathlib.Path, foreign: str) -> None:
    with Daemon(tiny, workers=0, settings={"workers.addresses": f'["{foreign}"]'}) as daemon:
        assert daemon.model().context_tokens == 100
        result = daemon.generate(request([1] * 10, max_tokens=None, ignore_eos=True)).check_ok()
        assert result.final is not None and result.final.finish_reason == pb.FINISH_REASON_LENGTH
        assert len(result.ids) == 90
        result = daemon.generate(request([1] * 10, max_tokens=91))
        assert result.code == Code.INVALID_ARGUMENT and "100" in result.details

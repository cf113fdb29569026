"""docs/STATUSES.md: each row that names a test is brought about here, and the table names no other status."""

from __future__ import annotations

import os
import pathlib
import re
import signal
from collections.abc import Callable, Iterator

import grpc
import pytest
from harness import ROOT, Code, Daemon, Result, collect, pb, request, wait_for

SETTINGS = {
    "limits.max_running": 1,
    "limits.max_queued": 1,
    "limits.max_tokens_in_flight": 40000,
    "limits.retry_pushback_ms": 321,
    "server.max_message_bytes": 65536,
    "workers.no_worker_timeout_ms": 500,
    "workers.restart_backoff_ms": 5000,
    "workers.restart_backoff_max_ms": 5000,
}
LONG = 16000
PUSHBACK = "grpc-retry-pushback-ms"


@pytest.fixture(scope="module")
def daemon(tiny: pathlib.Path) -> Iterator[Daemon]:
    with Daemon(tiny, settings=SETTINGS) as running:
        yield running


def long_request() -> pb.GenerateRequest:
    return request([1], max_tokens=LONG, ignore_eos=True)


def ok(daemon: Daemon) -> Result:
    result = daemon.generate(request([1, 2, 3], max_tokens=4))
    assert result.final is not None
    return result


def out_of_range(daemon: Daemon) -> Result:
    result = daemon.generate(request([1], top_p=7.0))
    assert "sampling.top_p" in result.details and "1]" in result.details
    return result


def longer_than_context(daemon: Daemon) -> Result:
    result = daemon.generate(request([1] * 10, max_tokens=16380))
    assert "sampling.max_tokens" in result.details and "16374" in result.details
    return result


def bad_token_id(daemon: Daemon) -> Result:
    result = daemon.generate(request([1, 259]))
    assert "token_ids" in result.details and "259" in result.details
    return result


def wrong_model(daemon: Daemon) -> Result:
    message = request([1])
    message.model = "another"
    result = daemon.generate(message)
    assert "another" in result.details and "tiny" in result.details
    return result


def absent_feature(daemon: Daemon) -> Result:
    message = request([1])
    message.retrieval.collection = "books"
    result = daemon.generate(message)
    assert "retrieval" in result.details
    return result


def not_utf8(daemon: Daemon) -> Result:
    call = daemon.channel.unary_stream(
        "/mnemo.v1.Generation/Generate", request_serializer=lambda raw: raw, response_deserializer=pb.GenerateResponse.FromString
    )
    # Field 2, prompt, of two bytes that are no UTF-8.
    return collect(call(b"\x12\x02\xff\xfe", timeout=10))


def queue_full(daemon: Daemon) -> Result:
    calls = [daemon.generation.Generate(long_request()) for _ in range(2)]
    for call in calls:
        assert next(call).HasField("started")
    result = daemon.generate(request([1]))
    assert "limits.max_queued" in result.details and result.trailers[PUSHBACK] == "321"
    for call in calls:
        call.cancel()
    daemon.wait_idle()
    return result


def never_fits(tiny_daemon: Daemon) -> Result:
    message = request([1] * 10, max_tokens=LONG)
    result = tiny_daemon.generate(message)
    assert "limits.max_tokens_in_flight" in result.details and int(result.trailers[PUSHBACK]) < 0
    return result


def message_too_large(daemon: Daemon) -> Result:
    return daemon.generate(request("x" * 100_000))


def cancelled(daemon: Daemon) -> Result:
    call = daemon.generation.Generate(long_request())
    assert next(call).HasField("started")
    call.cancel()
    result = collect(call)
    daemon.wait_idle()
    return result


def deadline(daemon: Daemon) -> Result:
    result = daemon.generate(long_request(), timeout=0.3)
    daemon.wait_idle()
    return result


def draining(daemon: Daemon) -> Result:
    from mnemo.v1 import admin_pb2

    daemon.admin.Drain(admin_pb2.DrainRequest(), timeout=10)
    result = daemon.generate(request([1]))
    daemon.admin.Resume(admin_pb2.ResumeRequest(), timeout=10)
    daemon.generate(request([1])).check_ok()
    return result


def no_worker(daemon: Daemon) -> Result:
    os.kill(daemon.status().workers[0].pid, signal.SIGKILL)
    wait_for("NOT_SERVING without a worker", lambda: not daemon.serving(), 10)
    return daemon.generate(request([1]))


# Last, since it takes the worker away; never_fits has a daemon of its own, whose bound is below what the context allows.
SCENARIOS: dict[str, Callable[[Daemon], Result]] = {
    scenario.__name__: scenario
    for scenario in (
        ok,
        out_of_range,
        longer_than_context,
        bad_token_id,
        wrong_model,
        absent_feature,
        not_utf8,
        queue_full,
        never_fits,
        message_too_large,
        cancelled,
        deadline,
        draining,
        no_worker,
    )
}


def documented() -> list[tuple[str, str]]:
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| *(?:`(\w+)`)? *\|$", (ROOT / "docs" / "STATUSES.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    return rows


def test_table_and_tests_name_the_same() -> None:
    assert {name for _, name in documented() if name} == set(SCENARIOS)
    for code, _ in documented():
        assert hasattr(grpc.StatusCode, code)


@pytest.mark.parametrize("name", SCENARIOS)
def test_status(name: str, daemon: Daemon, tiny: pathlib.Path) -> None:
    (code,) = (code for code, row in documented() if row == name)
    if name == "never_fits":
        with Daemon(tiny, settings={"limits.max_tokens_in_flight": 1000}) as small:
            result = never_fits(small)
    else:
        result = SCENARIOS[name](daemon)
    assert result.code == getattr(Code, code), f"{result.code}: {result.details}"
    # gRPC itself says nothing more in these cases.
    if result.code != Code.OK and name not in ("cancelled", "not_utf8"):
        assert result.details

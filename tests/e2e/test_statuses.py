"""docs/STATUSES.md: a test here provokes each row that names one, and the table names no other status."""

from __future__ import annotations

import os
import pathlib
import re
import signal
from collections.abc import Callable, Iterator

import grpc
import pytest
from harness import ROOT, Code, Daemon, Result, collect, generation_pb2_grpc, pb, request, silent_reader, wait_for

SETTINGS = {
    "limits.max_running": 1,
    "limits.max_queued": 1,
    "limits.max_tokens_in_flight": 40000,
    "limits.retry_pushback_ms": 321,
    "server.max_message_bytes": 65536,
    "attention.dense_layers": 0,
    "memory.services": 0,
    "workers.no_worker_timeout_ms": 500,
    "workers.restart_backoff_ms": 5000,
    "workers.restart_backoff_max_ms": 5000,
}
# Scenarios with a daemon of their own: its settings.
OWN: dict[str, dict[str, int]] = {
    # Below what the context allows.
    "never_fits": {"limits.max_tokens_in_flight": 1000},
    "longer_than_pool": {"engine.kv_cache_bytes": 1 << 20},
    "slow_reader_time": {"server.slow_reader_timeout_ms": 200},
    "slow_reader_tokens": {"server.slow_reader_max_tokens": 2000},
    "likely_cause": {"workers.restart_backoff_ms": 10},
    "memory_full": {"attention.dense_layers": 0, "memory.services": 1, "memory.index_bytes": 1 << 20},
    "memory_absent": {"attention.dense_layers": 0, "memory.services": 1, "memory.restart_backoff_ms": 60000, "memory.restart_backoff_max_ms": 60000},
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


def longer_than_pool(daemon: Daemon) -> Result:
    room = daemon.status().workers[0].kv_pages_total * 64
    assert room < 10000
    result = daemon.generate(request([1] * 10, max_tokens=room - 10 + 2))
    assert str(room) in result.details and "pool" in result.details
    # Without max_tokens the pool's end is a limit, as the context's end is.
    unlimited = daemon.generate(request([1] * 10, max_tokens=None, ignore_eos=True)).check_ok()
    assert unlimited.final is not None and unlimited.final.finish_reason == pb.FINISH_REASON_LENGTH
    assert unlimited.final.usage.completion_tokens == len(unlimited.ids) == room - 10 + 1
    daemon.wait_idle()
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


def absent_method(daemon: Daemon) -> Result:
    message = request([1])
    message.attention.method = pb.ATTENTION_METHOD_TOKEN_INDEXER
    result = daemon.generate(message)
    assert "attention.method" in result.details and "weights" in result.details
    return result


def no_memory_service(daemon: Daemon) -> Result:
    message = request([1])
    message.attention.placement = pb.PLACEMENT_MEMORY_SERVICE
    result = daemon.generate(message)
    assert "attention.placement" in result.details and "memory.services" in result.details
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


def never_fits(daemon: Daemon) -> Result:
    message = request([1] * 10, max_tokens=LONG)
    result = daemon.generate(message)
    assert "limits.max_tokens_in_flight" in result.details and int(result.trailers[PUSHBACK]) < 0
    return result


def offloaded(max_tokens: int) -> pb.GenerateRequest:
    message = request([1], max_tokens=max_tokens)
    message.attention.key_bits = 8
    message.attention.placement = pb.PLACEMENT_MEMORY_SERVICE
    return message


def memory_full(daemon: Daemon) -> Result:
    wait_for("the worker is attached", daemon.attached, 30)
    result = daemon.generate(offloaded(16300), timeout=20)
    assert int(result.trailers[PUSHBACK]) > 0 and not result.ids
    return result


def memory_absent(daemon: Daemon) -> Result:
    wait_for("the worker is attached", daemon.attached, 30)
    os.kill(daemon.status().memory_services[0].pid, signal.SIGKILL)
    wait_for("the worker has noticed", lambda: not daemon.attached(), 30)
    result = daemon.generate(offloaded(16), timeout=20)
    assert "attention.placement" in result.details and not result.ids
    daemon.generate(request([1], max_tokens=4)).check_ok()
    return result


def message_too_large(daemon: Daemon) -> Result:
    return daemon.generate(request("x" * 100_000))


def text_too_large(daemon: Daemon) -> Result:
    (longest,) = daemon.generation.Tokenize(pb.TokenizeRequest(text="<|im_end|>", parse_special=True), timeout=10).ids
    count = 65536 // len("<|im_end|>")
    text = daemon.generation.Detokenize(pb.DetokenizeRequest(ids=[longest] * count), timeout=10).text
    assert text == "<|im_end|>" * count
    with pytest.raises(grpc.RpcError) as error:
        daemon.generation.Detokenize(pb.DetokenizeRequest(ids=[longest] * (count + 1)), timeout=10)
    result = Result()
    result.code, result.details = error.value.code(), error.value.details() or ""
    assert "ids" in result.details and "65536" in result.details
    return result


def metadata_too_large(daemon: Daemon) -> Result:
    # On a connection of its own: now and then gRPC closes it after such a call (2 of 550).
    with grpc.insecure_channel(daemon.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        generation = generation_pb2_grpc.GenerationStub(channel)

        def call(value_bytes: int) -> Result:
            return collect(generation.Generate(request([1]), metadata=[("x-note", "a" * value_bytes)], timeout=10))

        call(7000).check_ok()
        result = call(8192)
    assert "metadata" in result.details and PUSHBACK not in result.trailers
    return result


def cancelled(daemon: Daemon) -> Result:
    call = daemon.generation.Generate(long_request())
    assert next(call).HasField("started")
    call.cancel()
    result = collect(call)
    daemon.wait_idle()
    return result


def slow_reader(daemon: Daemon, bound: str) -> Result:
    with silent_reader(daemon) as silent:
        wait_for("the request's end", lambda: "ended: CANCELLED" in daemon.log(), 40)
        # Only the daemon's log tells the reason: a message would have to wait behind unread ones.
        assert bound in daemon.log()
        result = collect(silent)
    daemon.wait_idle()
    return result


def slow_reader_time(daemon: Daemon) -> Result:
    return slow_reader(daemon, "server.slow_reader_timeout_ms")


def slow_reader_tokens(daemon: Daemon) -> Result:
    return slow_reader(daemon, "server.slow_reader_max_tokens")


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


def likely_cause(daemon: Daemon) -> Result:
    killed: list[int] = []

    def kill(result: Result) -> None:
        # Each life of the worker once, when the request has got on in it.
        worker = daemon.status().workers[0]
        if worker.pid not in killed and worker.requests_running > 0:
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    result = collect(daemon.generation.Generate(long_request(), timeout=60), kill)
    assert len(killed) == 2
    return result


# no_worker is the last, since it takes the worker away.
SCENARIOS: dict[str, Callable[[Daemon], Result]] = {
    scenario.__name__: scenario
    for scenario in (
        ok,
        out_of_range,
        longer_than_context,
        longer_than_pool,
        bad_token_id,
        wrong_model,
        absent_feature,
        absent_method,
        no_memory_service,
        not_utf8,
        queue_full,
        never_fits,
        memory_full,
        memory_absent,
        message_too_large,
        text_too_large,
        metadata_too_large,
        cancelled,
        slow_reader_time,
        slow_reader_tokens,
        deadline,
        likely_cause,
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
    if name in OWN:
        with Daemon(tiny, settings=OWN[name]) as own:
            result = SCENARIOS[name](own)
    else:
        result = SCENARIOS[name](daemon)
    assert result.code == getattr(Code, code), f"{result.code}: {result.details}"
    # gRPC itself says nothing more in these cases.
    if result.code != Code.OK and name not in ("cancelled", "not_utf8", "slow_reader_time", "slow_reader_tokens"):
        assert result.details

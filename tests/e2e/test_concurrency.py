"""Many streams at once: each ends with the right status and the right tokens, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections import Counter
from typing import Any

import grpc
import grpc.aio
import pytest
from harness import Code, Daemon, Result, collect, generation_pb2_grpc, pb, request, seeded, silent_reader

REQUESTS = 1000
STREAMS = 32


def make_request(rng: random.Random) -> pb.GenerateRequest:
    """A few different requests, so that their answers can be computed one by one first."""
    kind = rng.randrange(8)
    ids = [(7 * kind + 3 * i) % 250 for i in range(5 + 40 * kind)]
    if kind % 2:
        return request(ids, max_tokens=8 + kind, temperature=1.0, seed=kind, ignore_eos=True)
    return request(ids, max_tokens=8 + kind, ignore_eos=True)


async def one(stub: Any, rng: random.Random, expected: dict[bytes, Result]) -> str:
    """Sends one request in one of three ways; returns the way and the result."""
    req = make_request(rng)
    way = rng.choices(["whole", "cancel", "deadline"], [70, 20, 10])[0]
    if way == "deadline":
        req.sampling.max_tokens = 4000
        call = stub.Generate(req, timeout=rng.uniform(0.001, 0.08))
    else:
        call = stub.Generate(req, timeout=120)
    result = Result()
    stop_after = rng.randrange(1, 6)
    try:
        async for message in call:
            result.add(message)
            if way == "cancel" and len(result.ids) >= stop_after:
                call.cancel()
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    code = await call.code()
    if way == "whole":
        assert code == Code.OK, f"{code}: {await call.details()}"
        want = expected[req.SerializeToString(deterministic=True)]
        assert result.ids == want.ids and result.text == want.text, "another answer in company than alone"
    elif way == "cancel":
        # The last message may have been on its way already.
        assert code in (Code.CANCELLED, Code.OK), code
    else:
        assert code == Code.DEADLINE_EXCEEDED, code
    return f"{way} {code.name}"


async def mute(stub: Any) -> Any:
    """Reads the first message and then no more."""
    call = stub.Generate(request([1, 2, 3], max_tokens=16000, ignore_eos=True))
    await call.read()
    return call


async def storm(daemon: Daemon, rng: random.Random, expected: dict[bytes, Result]) -> Counter[str]:
    counts: Counter[str] = Counter()
    limit = asyncio.Semaphore(STREAMS - 1)
    async with grpc.aio.insecure_channel(daemon.address) as channel, grpc.aio.insecure_channel(daemon.address) as other:
        stub = generation_pb2_grpc.GenerationStub(channel)
        silent = await mute(generation_pb2_grpc.GenerationStub(other))

        async def bounded(seed: int) -> None:
            async with limit:
                counts[await one(stub, random.Random(seed), expected)] += 1

        await asyncio.gather(*(bounded(rng.randrange(1 << 60)) for _ in range(REQUESTS)))
        silent.cancel()
    return counts


@pytest.mark.parametrize("pages", ["ample", "scarce"])
def test_a_thousand_requests_leave_nothing_behind(tiny: pathlib.Path, pages: str) -> None:
    settings: dict[str, Any] = {"limits.max_running": 64, "limits.max_queued": 64, "log.level": "warn"}
    if pages == "scarce":
        # Four contexts' worth is the default; here requests must wait and be preempted. 2 layers x 2 heads x (2 x 32 + 4) bytes a token.
        settings["engine.kv_cache_bytes"] = 272 * 20000
    with seeded(f"storm-{pages}") as rng, Daemon(tiny, workers=1 if pages == "scarce" else 2, settings=settings) as daemon:
        daemon.wait_workers(1 if pages == "scarce" else 2)
        expected: dict[bytes, Result] = {}
        for kind in range(200):
            req = make_request(random.Random(kind))
            expected.setdefault(req.SerializeToString(deterministic=True), Result())
        assert len(expected) == 8
        for data in expected:
            expected[data] = daemon.generate(pb.GenerateRequest.FromString(data)).check_ok()
        counts = asyncio.run(storm(daemon, rng, expected))
        print(dict(counts))
        assert sum(counts.values()) == REQUESTS
        daemon.wait_idle()
        assert all(w.restarts == 0 for w in daemon.status().workers)


def test_overload_is_refused_with_a_pause(tiny: pathlib.Path) -> None:
    settings = {"limits.max_running": 2, "limits.max_queued": 2, "limits.retry_pushback_ms": 123, "engine.max_running": 2}
    with Daemon(tiny, settings=settings) as daemon:
        calls = [daemon.generation.Generate(request([1], max_tokens=16000, ignore_eos=True)) for _ in range(8)]
        codes: Counter[grpc.StatusCode] = Counter()
        refused = 0
        for call in calls:
            # Started comes as soon as a request is queued; a refusal ends the stream instead.
            try:
                assert next(call).HasField("started")
            except grpc.RpcError:
                refused += 1
                codes[call.code()] += 1
                assert dict(call.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "123"
                assert "limits." in (call.details() or "") or "queue" in (call.details() or "")
        assert refused == 4 and codes == Counter({Code.RESOURCE_EXHAUSTED: 4})
        for call in calls:
            call.cancel()
        daemon.wait_idle()


def test_a_silent_reader_is_cut_and_holds_up_nobody(tiny: pathlib.Path) -> None:
    settings = {"server.slow_reader_timeout_ms": 1500, "server.slow_reader_max_tokens": 2000}
    with Daemon(tiny, settings=settings) as daemon:
        with silent_reader(daemon) as silent:
            for _ in range(20):
                daemon.generate(request([9], max_tokens=20, ignore_eos=True), timeout=20).check_ok()
            daemon.wait_idle(40)
            assert collect(silent).code == Code.CANCELLED

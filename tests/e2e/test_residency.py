"""Keys and values kept in the memory service: a context longer than the worker's own pool has the tokens of a worker with a pool for all
of it. When the service dies the sequence begins again, with the same tokens.

MNEMO_PLACEMENT_TOKENS: as for test_placement."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator

import harness
import models
import pytest
from test_memory import wait_attached
from test_placement import METHODS, ask, collect, prompt, ready, run, trace  # noqa: F401

pb = harness.pb
POOL_TOKENS = 4096  # of the worker; the prompt has 6,000
# SmolLM2 with 8 bits: K and V of 30 layers, keys a second time in 28 of them, four bytes of scales for each pair of them.
PAGE_BYTES = 64 * 3 * (64 * (2 * 30 + 28) + 4 * 30)
SETTINGS = {"memory.services": 1, "memory.kv_residency": "memory_service", "engine.kv_cache_bytes": POOL_TOKENS // 64 * PAGE_BYTES}


@pytest.fixture(scope="module")
def whole() -> Iterator[harness.Daemon]:
    with harness.Daemon(models.find("smollm2"), settings={"memory.services": 0}) as running:
        yield running


@pytest.fixture(scope="module")
def daemon() -> Iterator[harness.Daemon]:
    with harness.Daemon(models.find("smollm2"), settings=SETTINGS) as running:
        harness.wait_for("a memory service", lambda: ready(running))
        yield running


def inline(whole: harness.Daemon, ids: list[int], name: str, tokens: int) -> harness.Result:
    return run(whole, ids, METHODS[name], pb.PLACEMENT_WORKER, tokens=tokens)


@pytest.mark.parametrize("name", ["token_topk", "page_bound"])
def test_a_context_longer_than_the_pool(daemon: harness.Daemon, whole: harness.Daemon, prompt: list[int], name: str) -> None:  # noqa: F811
    tokens = int(os.environ.get("MNEMO_PLACEMENT_TOKENS", "64"))
    wanted = inline(whole, prompt, name, tokens)
    got = run(daemon, prompt, METHODS[name], pb.PLACEMENT_UNSPECIFIED, tokens=tokens)
    assert trace(got) == trace(wanted)
    assert got.final is not None
    assert len({step.device for step in got.final.memory_steps}) == 2


def test_keys_and_values_of_16_bits(prompt: list[int]) -> None:  # noqa: F811
    ids = prompt[:2000]
    with harness.Daemon(models.find("smollm2"), settings={**SETTINGS, "engine.kv_type": "f16"}) as running:
        harness.wait_for("a memory service", lambda: ready(running))
        wanted = trace(run(running, ids, METHODS["token_topk"], pb.PLACEMENT_WORKER, tokens=48))
        resident = run(running, ids, METHODS["token_topk"], pb.PLACEMENT_MEMORY_SERVICE, tokens=48)
        assert trace(resident) == wanted
        assert resident.final is not None
        assert len({step.device for step in resident.final.memory_steps}) == 2


def test_two_at_once_and_metrics(daemon: harness.Daemon, whole: harness.Daemon, prompt: list[int]) -> None:  # noqa: F811
    prompts = [prompt, prompt[:5000]]
    wanted = [trace(inline(whole, ids, "token_topk", 24)) for ids in prompts]
    requests = [ask(ids, METHODS["token_topk"], pb.PLACEMENT_UNSPECIFIED, tokens=24) for ids in prompts]
    calls = [daemon.generation.Generate(request, timeout=280) for request in requests]
    assert [trace(harness.collect(call).check_ok()) for call in calls] == wanted
    (missed,) = [line for line in daemon.metrics().splitlines() if line.startswith("mnemo_memory_hot_tokens_total") and '"miss"' in line]
    assert float(missed.split()[-1]) > 0
    harness.wait_for("no index is left", lambda: all(s.indexes == 0 and s.bytes_used == 0 for s in daemon.status().memory_services))


def test_dense_attention_needs_the_pool(daemon: harness.Daemon, prompt: list[int]) -> None:  # noqa: F811
    request = harness.request(prompt, max_tokens=8)
    result = daemon.generate(request)
    assert result.code == harness.Code.INVALID_ARGUMENT
    assert str(POOL_TOKENS) in result.details


def test_the_death_of_the_service_begins_the_sequence_again(daemon: harness.Daemon, whole: harness.Daemon, prompt: list[int]) -> None:  # noqa: F811
    wanted = inline(whole, prompt, "token_topk", 48)
    got = run(daemon, prompt, METHODS["token_topk"], pb.PLACEMENT_MEMORY_SERVICE, tokens=48, kill_at=20)
    assert trace(got) == trace(wanted)
    assert 'reason="kv_lost"' in daemon.metrics()


def test_a_service_that_does_not_come_back(prompt: list[int]) -> None:  # noqa: F811
    settings = SETTINGS | {"memory.kv_wait_ms": 500, "memory.restart_backoff_ms": 600000, "memory.restart_backoff_max_ms": 600000}
    with harness.Daemon(models.find("smollm2"), settings=settings) as daemon:
        harness.wait_for("a memory service", lambda: ready(daemon))
        request = ask(prompt, METHODS["token_topk"], pb.PLACEMENT_UNSPECIFIED, tokens=400)
        result = collect(daemon, request, kill_at=10)
        assert result.code == harness.Code.UNAVAILABLE
        assert "memory service" in result.details
        # Without sparse attention it serves on.
        daemon.generate(harness.request(prompt[:200], max_tokens=4)).check_ok()


@pytest.mark.parametrize("way", ["unix", "ucx", "ucx, by tcp"])
def test_in_a_service_that_others_run(tiny: pathlib.Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Over each transport: every method; then the service's death in the middle, and another service at the same address."""
    if way == "ucx, by tcp":  # as between machines; on one of them UCX takes shared memory
        monkeypatch.setenv("UCX_TLS", "tcp")
    port = harness.free_port()
    settings = {"attention.dense_layers": 0, "memory.services": 0}
    ids = [1 + i * i % 251 for i in range(5500)]
    with harness.Daemon(tiny, settings=settings) as whole:
        wanted = {name: trace(run(whole, ids, METHODS[name], pb.PLACEMENT_WORKER, budget=192, tokens=80)) for name in METHODS}
    listen = [] if way == "unix" else [f"--remote-listen=127.0.0.1:{port}"]
    with harness.MemoryService("--max-owners=2", *listen) as service:
        address = f"unix:{service.socket}" if way == "unix" else f"ucx:127.0.0.1:{port}"
        far = {"memory.addresses": f'["{address}"]', "memory.kv_residency": "memory_service", "memory.kv_wait_ms": 60000}
        with harness.Daemon(tiny, settings={**settings, **far, "engine.kv_cache_bytes": 1 << 20}) as daemon:
            wait_attached(daemon)
            pool = daemon.status().workers[0].kv_pages_total * 64
            assert pool < len(ids)
            for name, tokens in wanted.items():
                got = run(daemon, ids, METHODS[name], pb.PLACEMENT_UNSPECIFIED, budget=192, tokens=80)
                assert trace(got) == tokens, name
                assert got.devices[pb.MemoryStep.STEP_RETRIEVAL] == {"far:cpu"}
            died = []

            def on_token(result: harness.Result) -> None:
                if len(result.tokens) >= 20 and not died:
                    died.append(len(result.tokens))
                    service.end()
                    service.start()

            for name in ("token_topk", "page_bound"):
                died.clear()
                request = ask(ids, METHODS[name], pb.PLACEMENT_MEMORY_SERVICE, budget=192, tokens=80)
                got = harness.collect(daemon.generation.Generate(request, timeout=120), on_token).check_ok()
                assert died and trace(got) == wanted[name], name
            daemon.wait_idle()

            def indexes() -> list[str]:
                return re.findall(r"^mnemo_memory_service_indexes{.*} (\d+)$", harness.scrape(service.metrics_address), re.MULTILINE)

            harness.wait_for("no index is left", lambda: indexes() == ["0"])

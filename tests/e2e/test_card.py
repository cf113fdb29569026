"""Sparse attention offloaded to a card, by its model in software or by its simulated RTL. Tokens and log probabilities are those of
the worker and of the CPU's memory device. The names of the device, and simulated time, are shown where they belong.

MNEMO_CARD_DEVICE: the kind of memory device (card-model). MNEMO_CARD_OPTIONS: its options, by comma (channels=2).
MNEMO_CARD_TOKENS: number of compared tokens (8; the nightly preset says 32)."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import re
import signal
from collections.abc import Iterator
from typing import Any

import harness
import models
import pytest
import test_metrics
from test_cli import mnemo

pb = harness.pb
KIND = os.environ.get("MNEMO_CARD_DEVICE", "card-model")
OPTIONS = [option for option in os.environ.get("MNEMO_CARD_OPTIONS", "channels=2").split(",") if option]
TOKENS = int(os.environ.get("MNEMO_CARD_TOKENS", "8"))
PROMPT = 1200
BUDGET = 256
DEVICE = f"memory0:{KIND}"
TOPK = pb.ATTENTION_METHOD_TOKEN_TOPK
METHODS = {
    "token_topk, 2 bits": pb.Attention(method=TOPK, key_bits=2),
    "token_topk, 4 bits": pb.Attention(method=TOPK, key_bits=4),
    "token_topk, 8 bits": pb.Attention(method=TOPK, key_bits=8),
    "cascade": pb.Attention(method=pb.ATTENTION_METHOD_CASCADE, first_stage_tokens=600),
    "page_bound": pb.Attention(method=pb.ATTENTION_METHOD_PAGE_BOUND),
    "block_mean": pb.Attention(method=pb.ATTENTION_METHOD_BLOCK_MEAN),
}
STEP = pb.MemoryStep
IN_SERVICE = {STEP.STEP_PREPARE, STEP.STEP_RELEVANCY, STEP.STEP_RETRIEVAL}


def settings(kind: str, **more: Any) -> dict[str, Any]:
    made = {"memory.services": 1, "memory.device": kind, "memory.health_interval_ms": 50, "workers.heartbeat_interval_ms": 50}
    if kind == KIND:
        # A simulated card takes seconds for what a card does in microseconds.
        made |= {"memory.device_options": "[" + ", ".join(f'"{option}"' for option in OPTIONS) + "]", "memory.operation_timeout_ms": 60000}
    return made | more


def serve(model: pathlib.Path, kind: str, workers: int = 1, **more: Any) -> harness.Daemon:
    return harness.Daemon(model, workers=workers, settings=settings(kind, **more))


def wait_attached(daemon: harness.Daemon, workers: int = 1) -> None:
    harness.wait_for("the workers are attached", lambda: daemon.attached(workers), 60)


@pytest.fixture(scope="module")
def card() -> Iterator[harness.Daemon]:
    with serve(models.find("smollm2"), KIND, workers=2) as daemon:
        daemon.wait_workers(2)
        wait_attached(daemon, 2)
        yield daemon


@pytest.fixture(scope="module")
def cpu() -> Iterator[harness.Daemon]:
    with serve(models.find("smollm2"), "cpu") as daemon:
        wait_attached(daemon)
        yield daemon


@pytest.fixture(scope="module")
def prompt(card: harness.Daemon) -> list[int]:
    """A licence that every Debian has."""
    text = pathlib.Path("/usr/share/common-licenses/GPL-3").read_text()
    ids = list(card.generation.Tokenize(pb.TokenizeRequest(text=text), timeout=30).ids)
    assert len(ids) >= PROMPT + 100
    return ids


def ask(prompt: list[int], attention: Any, placement: int, *, budget: int = BUDGET, tokens: int = TOKENS) -> Any:
    request = harness.request(prompt, max_tokens=tokens, ignore_eos=True)
    request.output.logprobs = 1
    request.attention.CopyFrom(attention)
    request.attention.token_budget = budget
    request.attention.placement = placement
    return request


def run(daemon: harness.Daemon, request: Any, on_token: Any = None) -> harness.Result:
    return harness.collect(daemon.generation.Generate(request, timeout=280), on_token).check_ok()


def trace(result: harness.Result) -> list[tuple[int, float]]:
    return [(token.id, token.logprob) for token in result.tokens]


def check_offloaded(result: harness.Result) -> None:
    """Every step but the last is the card's, and has cost something."""
    assert result.final is not None
    assert {step.step for step in result.final.memory_steps} == IN_SERVICE | {STEP.STEP_APPLY}
    for step in result.final.memory_steps:
        assert (step.device == DEVICE) == (step.step in IN_SERVICE), step
        assert step.count > 0 and step.bytes_moved > 0 and step.time.ToNanoseconds() > 0, step


@pytest.mark.parametrize("name", METHODS)
def test_the_card_gives_the_tokens_of_the_worker_and_of_the_cpu_service(
    card: harness.Daemon, cpu: harness.Daemon, prompt: list[int], name: str
) -> None:
    here, there = pb.PLACEMENT_WORKER, pb.PLACEMENT_MEMORY_SERVICE
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        by_cpu = pool.submit(run, cpu, ask(prompt[:PROMPT], METHODS[name], there))  # meanwhile: a card's simulation takes one core
        offloaded = run(card, ask(prompt[:PROMPT], METHODS[name], there))
        check_offloaded(offloaded)
        assert len(offloaded.tokens) == TOKENS
        assert trace(offloaded) == trace(run(card, ask(prompt[:PROMPT], METHODS[name], here)))
        assert trace(offloaded) == trace(by_cpu.result())


def test_heads_that_the_card_lacks_run_in_the_worker(tmp_path: pathlib.Path) -> None:
    model = harness.tiny_model(tmp_path / "tiny.gguf", head_dim=512)
    prompt = [1 + i * i % 250 for i in range(PROMPT)]
    attention = METHODS["token_topk, 2 bits"]
    more = {"attention.dense_layers": 0}
    with serve(model, "cpu", **more) as daemon:
        wait_attached(daemon)
        wanted = run(daemon, ask(prompt, attention, pb.PLACEMENT_MEMORY_SERVICE))
    # Without insisting, on a daemon that places what it can in the service.
    with serve(model, KIND, **more, **{"memory.placement": "memory_service"}) as daemon:
        daemon.wait_workers(1)
        inline = run(daemon, ask(prompt, attention, pb.PLACEMENT_UNSPECIFIED))
        assert inline.final is not None
        assert DEVICE not in {step.device for step in inline.final.memory_steps}
        assert trace(inline) == trace(wanted)


def test_two_workers_at_once(card: harness.Daemon, prompt: list[int]) -> None:
    there = pb.PLACEMENT_MEMORY_SERVICE
    requests = [ask(prompt[at : at + PROMPT], METHODS[name], there, tokens=TOKENS // 2) for at, name in enumerate(METHODS)]
    # The workers have one request each, and then more: their queries reach the card together.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda request: run(card, request), requests))
    for request, result in zip(requests, results, strict=True):
        check_offloaded(result)
        request.attention.placement = pb.PLACEMENT_WORKER
        assert trace(result) == trace(run(card, request))
    served = re.findall(r'^mnemo_memory_round_trip_seconds_count\{worker="(\w+)"\} (\d+)', card.metrics(), re.MULTILINE)
    assert {worker for worker, count in served if int(count) > 0} == {"worker0", "worker1"}


def test_keys_and_values_in_the_service(card: harness.Daemon, prompt: list[int]) -> None:
    """The worker's pool holds less than the prompt: the card selects, and its driver gathers from the host's memory."""
    pool = 1024 // 64 * 64 * 3 * (64 * (2 * 30 + 28) + 4 * 30)  # bytes of pages of 8 bits, as in test_residency
    attention = METHODS["token_topk, 2 bits"]
    with serve(models.find("smollm2"), KIND, **{"memory.kv_residency": "memory_service", "engine.kv_cache_bytes": pool}) as daemon:
        wait_attached(daemon)
        resident = run(daemon, ask(prompt[:PROMPT], attention, pb.PLACEMENT_MEMORY_SERVICE))
        assert resident.devices[STEP.STEP_RELEVANCY] == {DEVICE}
        assert trace(resident) == trace(run(card, ask(prompt[:PROMPT], attention, pb.PLACEMENT_WORKER)))

        def gathered() -> bool:
            return re.search(r'^mnemo_memory_hot_tokens_total\{.*result="miss"\} [1-9]', daemon.metrics(), re.MULTILINE) is not None

        harness.wait_for("tokens were fetched", gathered)


def test_status_and_metrics_name_the_device_and_its_time(card: harness.Daemon, cpu: harness.Daemon, prompt: list[int]) -> None:
    (service,) = card.status().memory_services
    assert (service.device, service.simulated_time) == (KIND, True)
    (plain,) = cpu.status().memory_services
    assert (plain.device, plain.simulated_time) == ("cpu", False)
    assert f" {KIND} (simulated time) " in mnemo(card, "status").stdout
    assert "simulated" not in mnemo(cpu, "status").stdout
    assert json.loads(mnemo(card, "status", "--json").stdout)["memory_services"][0]["simulated_time"] is True
    assert f"{DEVICE}: score, select and gather times are simulated" in card.log()
    run(card, ask(prompt[:PROMPT], METHODS["token_topk, 2 bits"], pb.PLACEMENT_MEMORY_SERVICE, tokens=4))
    assert 'mnemo_memory_service_simulated{service="memory0"} 1' in card.metrics()
    assert 'mnemo_memory_service_simulated{service="memory0"} 0' in cpu.metrics()
    step = rf'^mnemo_memory_step_seconds_count\{{worker="\w+",method="token_topk",step="relevancy",device="{DEVICE}"\}} [1-9]'
    harness.wait_for("the steps are among the metrics", lambda: re.search(step, card.metrics(), re.MULTILINE))


@pytest.mark.parametrize("head_dim", [16, 128])
def test_tiny_models_on_a_service_that_others_run(tmp_path: pathlib.Path, head_dim: int) -> None:
    model = harness.tiny_model(tmp_path / "tiny.gguf", head_dim=head_dim, seed=head_dim)
    prompt = [1 + i * i % 250 for i in range(PROMPT)]
    of_service = test_metrics.table("mnemo-memory")
    options = [f"--device-option={option}" for option in OPTIONS]
    with harness.MemoryService(f"--device={KIND}", *options, "--set=memory.operation_timeout_ms=60000") as service:
        more = {"attention.dense_layers": 0, "memory.services": 0, "memory.addresses": f"[unix:{service.socket}]"}
        with harness.Daemon(model, settings=settings("cpu") | more) as daemon:
            wait_attached(daemon)
            for attention in METHODS.values():
                offloaded = run(daemon, ask(prompt, attention, pb.PLACEMENT_MEMORY_SERVICE))
                assert offloaded.devices[STEP.STEP_RELEVANCY] == {f"far:{KIND}"}
                assert trace(offloaded) == trace(run(daemon, ask(prompt, attention, pb.PLACEMENT_WORKER)))
            # A device that counts its work shows all of the table.
            text = harness.scrape(service.metrics_address)
            assert test_metrics.check(text, of_service) == set(of_service)
            assert f'mnemo_memory_service_device_info{{device="far:{KIND}",kind="{KIND}",time="simulated"}} 1' in text
            assert value(text, "energy_joules_total", 'source="model"') > 0
            assert value(text, "device_refused_total") == 0
            # One stage of jobs a KV head for each query operation at least, each a scan of some beats.
            queries = value(text, "operations_total", 'op="score_select",status="ok"')
            assert value(text, "device_descriptors_total") == queries
            assert value(text, "device_jobs_total") >= queries
            beats = [value(text, "device_channel_beats_total", f'channel="{channel}"') for channel in range(2)]
            assert min(beats) > 0
            assert value(text, "device_channel_bytes_total", 'channel="0"') == 64 * beats[0]


def value(text: str, name: str, labels: str = "") -> float:
    (found,) = re.findall(rf"^mnemo_memory_service_{name}\{{[^}}]*{re.escape(labels)}[^}}]*\}} (\S+)$", text, re.MULTILINE)
    return float(found)


def test_the_death_of_the_service_changes_no_token(card: harness.Daemon, prompt: list[int]) -> None:
    """Runs after all tests that need this service."""
    attention = METHODS["token_topk, 2 bits"]
    wanted = run(card, ask(prompt[:PROMPT], attention, pb.PLACEMENT_WORKER, tokens=4 * TOKENS))
    killed: list[int] = []

    def kill(result: harness.Result) -> None:
        if len(result.tokens) >= 4 and not killed:
            killed.append(card.status().memory_services[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    result = run(card, ask(prompt[:PROMPT], attention, pb.PLACEMENT_MEMORY_SERVICE, tokens=4 * TOKENS), kill)
    assert killed and trace(result) == trace(wanted)
    wait_attached(card, 2)
    check_offloaded(run(card, ask(prompt[:PROMPT], attention, pb.PLACEMENT_MEMORY_SERVICE, tokens=4)))

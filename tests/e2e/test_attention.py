"""Sparse attention from outside: with the real model, in the worker and in a memory service."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Iterator

import pytest
from harness import ROOT, Code, Daemon, Result, admin_pb2, collect, pb, request, wait_for

sys.path.append(str(ROOT / "tests" / "support"))
import models  # noqa: E402

METHODS = {
    "page_bound": pb.ATTENTION_METHOD_PAGE_BOUND,
    "block_mean": pb.ATTENTION_METHOD_BLOCK_MEAN,
    "token_topk": pb.ATTENTION_METHOD_TOKEN_TOPK,
    "cascade": pb.ATTENTION_METHOD_CASCADE,
}
PROMPT = " ".join(f"Entry {i}: the value of item {i * 37 % 101} is {i * i % 997}." for i in range(60))
BUDGET = 192


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(models.find("smollm2")) as running:
        wait_for("the memory service is ready and its worker attached", lambda: attached(running), 30)
        yield running


def attached(daemon: Daemon) -> bool:
    services = daemon.status().memory_services
    ready = all(s.state == admin_pb2.StatusResponse.STATE_READY for s in services) and len(services) > 0
    return ready and daemon.attached()


def sparse(method: int, placement: int, *, max_tokens: int = 40, budget: int = BUDGET) -> pb.GenerateRequest:
    message = request(PROMPT, max_tokens=max_tokens, ignore_eos=True)
    message.attention.method = method  # type: ignore[assignment]
    message.attention.placement = placement  # type: ignore[assignment]
    message.attention.token_budget = budget
    return message


def test_models_list_the_methods(daemon: Daemon) -> None:
    model = daemon.model()
    assert set(METHODS.values()) | {pb.ATTENTION_METHOD_DENSE} == set(model.attention_methods)
    assert {"attention", "token_budget", "placement"} <= set(model.features)


@pytest.mark.parametrize("name", METHODS)
def test_both_placements_give_the_same_tokens(daemon: Daemon, name: str) -> None:
    inline = daemon.generate(sparse(METHODS[name], pb.PLACEMENT_WORKER)).check_ok()
    offloaded = daemon.generate(sparse(METHODS[name], pb.PLACEMENT_MEMORY_SERVICE)).check_ok()
    assert len(inline.ids) == 40
    assert inline.ids == offloaded.ids
    here, there = inline.devices, offloaded.devices
    assert set(here) == set(there) == {1, 2, 3, 4}
    (worker,) = here[pb.MemoryStep.STEP_RELEVANCY]
    (service,) = there[pb.MemoryStep.STEP_RELEVANCY]
    assert worker != service and service.startswith("memory0")
    assert there[pb.MemoryStep.STEP_APPLY] == here[pb.MemoryStep.STEP_APPLY] == {worker}
    assert inline.final is not None
    for step in inline.final.memory_steps:
        assert step.method == name
        assert step.count > 0


def test_a_budget_of_the_whole_context_is_dense(daemon: Daemon) -> None:
    dense = daemon.generate(request(PROMPT, max_tokens=40, ignore_eos=True)).check_ok()
    assert dense.final is not None and len(dense.final.memory_steps) == 0
    message = sparse(pb.ATTENTION_METHOD_TOKEN_TOPK, pb.PLACEMENT_UNSPECIFIED, budget=8192)
    assert daemon.generate(message).check_ok().ids == dense.ids


def test_sparse_without_a_method_is_token_topk(daemon: Daemon) -> None:
    message = sparse(pb.ATTENTION_METHOD_UNSPECIFIED, pb.PLACEMENT_UNSPECIFIED)
    result = daemon.generate(message).check_ok()
    assert result.final is not None
    assert {step.method for step in result.final.memory_steps} == {"token_topk"}


def test_metrics_show_the_steps(daemon: Daemon) -> None:
    daemon.generate(sparse(pb.ATTENTION_METHOD_TOKEN_TOPK, pb.PLACEMENT_WORKER)).check_ok()

    def shown() -> bool:
        text = daemon.metrics()
        return 'mnemo_memory_step_seconds_count{worker="worker0",method="token_topk",step="relevancy"' in text

    wait_for("the steps are among the metrics", shown)
    assert "mnemo_memory_index_bytes" in daemon.metrics()


def test_the_service_dies_in_mid_stream(daemon: Daemon) -> None:
    """Runs after all tests that need the service: the tokens are the same, and the service comes back."""
    message = sparse(pb.ATTENTION_METHOD_TOKEN_TOPK, pb.PLACEMENT_MEMORY_SERVICE, max_tokens=200)
    expected = daemon.generate(message).check_ok().ids
    (service,) = daemon.status().memory_services
    killed = False

    def kill(result: Result) -> None:
        nonlocal killed
        if len(result.ids) >= 20 and not killed:
            killed = True
            os.kill(service.pid, signal.SIGKILL)

    result = collect(daemon.generation.Generate(message, timeout=120), kill)
    assert killed
    assert result.code == Code.OK, result.details
    assert result.ids == expected

    def back() -> bool:
        (now,) = daemon.status().memory_services
        return now.pid not in (0, service.pid) and now.restarts == 1 and attached(daemon)

    wait_for("the service is back and attached", back, 30)
    again = daemon.generate(message).check_ok()
    assert again.ids == expected
    assert next(iter(again.devices[pb.MemoryStep.STEP_RELEVANCY])).startswith("memory0")
    daemon.wait_idle()


def test_bounds_of_placement(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={"memory.services": 0, "attention.dense_layers": 0}) as alone:
        assert len(alone.status().memory_services) == 0
        message = request([1, 2, 3])
        message.attention.placement = pb.PLACEMENT_MEMORY_SERVICE
        result = alone.generate(message)
        assert result.code == Code.FAILED_PRECONDITION and "attention.placement" in result.details
        message.attention.placement = pb.PLACEMENT_UNSPECIFIED
        alone.generate(message).check_ok()


def test_a_request_that_a_stop_string_ends_says_what_its_memory_cost(daemon: Daemon) -> None:
    message = sparse(pb.ATTENTION_METHOD_TOKEN_TOPK, pb.PLACEMENT_WORKER)
    text = daemon.generate(message).check_ok().text
    message.sampling.stop.append(text[len(text) // 2 :][:8])
    stopped = daemon.generate(message).check_ok()
    assert stopped.final is not None and stopped.final.finish_reason == pb.FINISH_REASON_STOP
    assert set(stopped.devices) == {1, 2, 3, 4}

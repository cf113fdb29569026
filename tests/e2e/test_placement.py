"""Sparse attention in the worker and in the memory service gives the same tokens with the same bits of every logprob, on the real model
after a real prompt. With a budget of all positions it equals dense attention. The death of the service changes nothing.

MNEMO_PLACEMENT_TOKENS: number of compared tokens (256; the nightly preset takes 2,000)."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import harness
import models
import pytest

pb = harness.pb
TOKENS = int(os.environ.get("MNEMO_PLACEMENT_TOKENS", "256"))
PROMPT = 6000
BUDGET = 1024
METHODS = {
    "token_topk": pb.Attention(method=pb.ATTENTION_METHOD_TOKEN_TOPK, key_bits=2),
    "token_topk, 8 bits": pb.Attention(method=pb.ATTENTION_METHOD_TOKEN_TOPK, key_bits=8),
    "cascade": pb.Attention(method=pb.ATTENTION_METHOD_CASCADE),
    "page_bound": pb.Attention(method=pb.ATTENTION_METHOD_PAGE_BOUND, reuse_interval=4),
    "block_mean": pb.Attention(method=pb.ATTENTION_METHOD_BLOCK_MEAN),
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[harness.Daemon]:
    with harness.Daemon(models.find("smollm2"), settings={"memory.services": 1}) as running:
        harness.wait_for("a memory service", lambda: ready(running))
        yield running


def ready(daemon: harness.Daemon) -> bool:
    return any(s.state == harness.admin_pb2.StatusResponse.STATE_READY for s in daemon.status().memory_services)


@pytest.fixture(scope="module")
def prompt(daemon: harness.Daemon) -> list[int]:
    """The licences that every Debian has, as one text."""
    text = "".join(pathlib.Path("/usr/share/common-licenses", name).read_text() for name in ("GPL-3", "LGPL-2.1"))
    ids = list(daemon.generation.Tokenize(pb.TokenizeRequest(text=text), timeout=30).ids)
    assert len(ids) >= PROMPT
    return ids[:PROMPT]


def ask(prompt: list[int], attention: Any, placement: int, *, budget: int = BUDGET, tokens: int = TOKENS) -> Any:
    request = harness.request(prompt, max_tokens=tokens, ignore_eos=True)
    request.output.logprobs = 1
    request.attention.CopyFrom(attention)
    if attention.method != pb.ATTENTION_METHOD_DENSE:
        request.attention.token_budget = budget
        request.attention.placement = placement
    return request


def collect(daemon: harness.Daemon, request: Any, kill_at: int | None = None) -> harness.Result:
    """The answer, whatever its status; with `kill_at` the service dies after that number of tokens."""
    killed = []

    def on_token(result: harness.Result) -> None:
        if kill_at is not None and not killed and len(result.tokens) >= kill_at:
            killed.append(daemon.status().memory_services[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    result = harness.collect(daemon.generation.Generate(request, timeout=280), on_token)
    assert kill_at is None or killed
    return result


def run(
    daemon: harness.Daemon,
    prompt: list[int],
    attention: Any,
    placement: int,
    *,
    budget: int = BUDGET,
    tokens: int = TOKENS,
    kill_at: int | None = None,
) -> harness.Result:
    return collect(daemon, ask(prompt, attention, placement, budget=budget, tokens=tokens), kill_at).check_ok()


def trace(result: harness.Result) -> list[tuple[int, float]]:
    return [(token.id, token.logprob) for token in result.tokens]


@pytest.mark.parametrize("name", METHODS)
def test_inline_and_offloaded_are_equal(daemon: harness.Daemon, prompt: list[int], name: str) -> None:
    inline = run(daemon, prompt, METHODS[name], pb.PLACEMENT_WORKER)
    offloaded = run(daemon, prompt, METHODS[name], pb.PLACEMENT_MEMORY_SERVICE)
    assert trace(offloaded) == trace(inline)
    assert inline.final is not None and offloaded.final is not None
    steps = {(s.step, s.device) for s in inline.final.memory_steps}
    worker = {device for _, device in steps}
    assert len(worker) == 1 and {step for step, _ in steps} == {1, 2, 3, 4}
    for step in offloaded.final.memory_steps:
        assert (step.device in worker) == (step.step == pb.MemoryStep.STEP_APPLY)
        assert step.count > 0 and step.bytes_moved > 0 and step.time.ToNanoseconds() > 0


def test_a_budget_of_all_positions_is_dense(daemon: harness.Daemon, prompt: list[int]) -> None:
    dense = run(daemon, prompt, pb.Attention(method=pb.ATTENTION_METHOD_DENSE), 0, tokens=32)
    for placement in (pb.PLACEMENT_WORKER, pb.PLACEMENT_MEMORY_SERVICE):
        whole = run(daemon, prompt, METHODS["token_topk"], placement, budget=PROMPT + 32, tokens=32)
        assert trace(whole) == trace(dense)


def test_the_death_of_the_service_changes_no_token(daemon: harness.Daemon, prompt: list[int]) -> None:
    inline = run(daemon, prompt, METHODS["token_topk"], pb.PLACEMENT_WORKER, tokens=64)
    harness.wait_for("the memory service", lambda: ready(daemon))
    killed = run(daemon, prompt, METHODS["token_topk"], pb.PLACEMENT_MEMORY_SERVICE, tokens=64, kill_at=20)
    assert trace(killed) == trace(inline)

    def offloaded_again() -> bool:
        request = harness.request(prompt, max_tokens=8, ignore_eos=True)
        request.attention.CopyFrom(METHODS["token_topk"])
        request.attention.placement = pb.PLACEMENT_MEMORY_SERVICE
        result = daemon.generate(request)
        return result.code == harness.Code.OK and len({s.device for s in result.final.memory_steps}) == 2

    harness.wait_for("the worker attached again", offloaded_again, timeout=30)
    harness.wait_for("no index is left", lambda: all(s.indexes == 0 for s in daemon.status().memory_services))

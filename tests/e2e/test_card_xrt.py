"""Sparse attention offloaded to a card behind XRT, whose own software emulation runs on the simulated RTL. The tokens are those of the
worker, also when the emulation's device process is killed.

MNEMO_XRT_FOLDER: files of the emulation (`card_emulation FOLDER`). MNEMO_XRT_PRELOAD: the library that cures XRT's emulation."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import harness
import models
import pytest

pb = harness.pb
FOLDER = pathlib.Path(os.environ["MNEMO_XRT_FOLDER"])
PRELOAD = os.environ["MNEMO_XRT_PRELOAD"]
IMAGE = FOLDER / "mnemo_card.xclbin"
DEVICE = "memory0:xrt"
TOKENS = 8
PROMPT = 1200
STEP = pb.MemoryStep
IN_SERVICE = {STEP.STEP_PREPARE, STEP.STEP_RELEVANCY, STEP.STEP_RETRIEVAL}


@pytest.fixture(scope="module", autouse=True)
def emulation() -> Iterator[None]:
    """The environment of XRT's emulation, for the programs that the tests start."""
    variables = dict(line.split("=", 1) for line in (FOLDER / "environment").read_text().splitlines())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, "USER": "mnemo_e2e", "LD_PRELOAD": PRELOAD}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def card(emulation: None) -> Iterator[harness.Daemon]:
    settings = {
        "memory.services": 1,
        "memory.device": "xrt",
        "memory.device_options": f'["xclbin={IMAGE}", "hbm_bytes=67108864"]',
        "memory.operation_timeout_ms": 60000,
        "memory.health_interval_ms": 50,
        "workers.heartbeat_interval_ms": 50,
    }
    with harness.Daemon(models.find("smollm2"), workers=1, settings=settings) as daemon:
        wait_attached(daemon)
        yield daemon


def wait_attached(daemon: harness.Daemon) -> None:
    harness.wait_for("the worker is attached", lambda: daemon.attached(1), 60)


@pytest.fixture(scope="module")
def prompt(card: harness.Daemon) -> list[int]:
    text = pathlib.Path("/usr/share/common-licenses/GPL-3").read_text()
    return list(card.generation.Tokenize(pb.TokenizeRequest(text=text), timeout=30).ids)[:PROMPT]


def attempt(daemon: harness.Daemon, prompt: list[int], placement: int, tokens: int, on_token: Any = None) -> harness.Result:
    request = harness.request(prompt, max_tokens=tokens, ignore_eos=True)
    request.output.logprobs = 1
    request.attention.CopyFrom(pb.Attention(method=pb.ATTENTION_METHOD_TOKEN_TOPK, key_bits=2))
    request.attention.token_budget = 256
    request.attention.placement = placement
    return harness.collect(daemon.generation.Generate(request, timeout=280), on_token)


def run(daemon: harness.Daemon, prompt: list[int], placement: int, tokens: int, on_token: Any = None) -> harness.Result:
    return attempt(daemon, prompt, placement, tokens, on_token).check_ok()


def trace(result: harness.Result) -> list[tuple[int, float]]:
    return [(token.id, token.logprob) for token in result.tokens]


def device_process(service: int) -> int:
    """The process that XRT has started as its device."""
    (child,) = subprocess.run(["pgrep", "-P", str(service)], capture_output=True, text=True, check=True).stdout.split()
    assert pathlib.Path(f"/proc/{child}/exe").resolve().name == "card_emulation"
    return int(child)


def test_the_card_gives_the_tokens_of_the_worker(card: harness.Daemon, prompt: list[int]) -> None:
    offloaded = run(card, prompt, pb.PLACEMENT_MEMORY_SERVICE, TOKENS)
    assert offloaded.final is not None
    assert {step.step for step in offloaded.final.memory_steps if step.device == DEVICE} == IN_SERVICE
    assert len(offloaded.tokens) == TOKENS
    assert trace(offloaded) == trace(run(card, prompt, pb.PLACEMENT_WORKER, TOKENS))
    (service,) = card.status().memory_services
    assert (service.device, service.simulated_time) == ("xrt", True)


def test_a_killed_emulation_changes_no_token_and_comes_back(card: harness.Daemon, prompt: list[int]) -> None:
    wanted = run(card, prompt, pb.PLACEMENT_WORKER, 2 * TOKENS)
    before = card.status().memory_services[0].pid
    killed: list[int] = []

    def kill(result: harness.Result) -> None:
        if len(result.tokens) >= 4 and not killed:
            killed.append(device_process(before))
            os.kill(killed[0], signal.SIGKILL)

    result = run(card, prompt, pb.PLACEMENT_MEMORY_SERVICE, 2 * TOKENS, kill)
    assert killed and trace(result) == trace(wanted)
    # The service has ended with its card, and mnemod has started another.
    harness.wait_for("there is another service", lambda: card.status().memory_services[0].pid not in (0, before), 60)
    # The worker is told of it a little later than this test.
    answers: list[harness.Result] = []

    def offloads_again() -> bool:
        answers.append(attempt(card, prompt, pb.PLACEMENT_MEMORY_SERVICE, 2))
        assert answers[-1].code in (harness.Code.OK, harness.Code.UNAVAILABLE), answers[-1].details
        return bool(answers[-1].code == harness.Code.OK)

    harness.wait_for("the worker offloads again", offloads_again, 60)
    assert DEVICE in answers[-1].devices[STEP.STEP_RELEVANCY]
    assert trace(answers[-1]) == trace(wanted)[:2]
    assert "XRT's emulation: the device process has ended" in card.log()


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["xclbin=/nowhere/card.xclbin"], "xclbin: /nowhere/card.xclbin: No such file or directory"),
        (["memory=disk"], 'device option "memory": "disk"; allowed: host, hbm'),
        ([f"xclbin={IMAGE}", "clock_mhz=900"], "its clock is 250 MHz; at least 900 are asked for by clock_mhz"),
        ([f"xclbin={IMAGE}", "hbm_bytes=34359738368"], "hbm_bytes: 34359738368; allowed: 8388608 to 1073741824"),
    ],
)
def test_bad_options_end_the_service_and_are_named(tmp_path: pathlib.Path, options: list[str], answer: str) -> None:
    command = [str(harness.BIN / "mnemo-memory"), f"--data-socket={tmp_path}/data", f"--control-address=unix:{tmp_path}/control"]
    command += ["--device=xrt", *(f"--device-option={option}" for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert answer in done.stdout + done.stderr

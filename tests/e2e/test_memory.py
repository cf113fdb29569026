"""Memory services from outside, with the tiny model: shares of their memory, and services that mnemod does not start."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
from typing import Any

import pytest
from harness import Code, Daemon, MemoryService, Result, admin_pb2, collect, free_port, pb, process_ended, request, scrape, wait_for
from test_cli import mnemo

MEBIBYTE = 1 << 20
SETTINGS = {"attention.dense_layers": 0, "memory.health_interval_ms": 50, "workers.heartbeat_interval_ms": 50}
# Tokens of an answer: a signal at the 100th comes long before the last, however far the worker is ahead of its client.
LONG = 6000
READY = admin_pb2.StatusResponse.STATE_READY
DOWN = admin_pb2.StatusResponse.STATE_DOWN


def sparse(prompt_tokens: int, placement: int, *, max_tokens: int = 40, method: int = pb.ATTENTION_METHOD_TOKEN_TOPK) -> pb.GenerateRequest:
    message = request([1 + i * i % 250 for i in range(prompt_tokens)], max_tokens=max_tokens, ignore_eos=True)
    message.attention.method = method  # type: ignore[assignment]
    message.attention.placement = placement  # type: ignore[assignment]
    message.attention.token_budget = 128
    return message


def counts(result: Result, step: int) -> int:
    assert result.final is not None
    return sum(s.count for s in result.final.memory_steps if s.step == step)


def fallbacks(daemon: Daemon) -> dict[str, int]:
    found = re.findall(r'^mnemo_memory_fallbacks_total\{.*reason="(\w+)"\} (\d+)', daemon.metrics(), re.MULTILINE)
    return {reason: int(count) for reason, count in found if int(count) > 0}


def kill_at(tokens: int, pid: int, number: int = signal.SIGKILL) -> Any:
    """For collect(): sends the signal once, after that number of tokens."""
    sent = []

    def on_token(result: Result) -> None:
        if len(result.ids) >= tokens and not sent:
            sent.append(pid)
            os.kill(pid, number)

    return on_token


def wait_attached(daemon: Daemon, workers: int = 1) -> None:
    wait_for("the workers are attached", lambda: daemon.attached(workers), 30)


def quotas(daemon: Daemon) -> list[int]:
    return [int(quota) for quota in re.findall(r"attached as \d+, quota (\d+) bytes", daemon.log())]


def test_the_only_worker_of_a_service_has_all_of_its_memory(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={**SETTINGS, "memory.services": 1, "memory.index_bytes": MEBIBYTE}) as daemon:
        wait_attached(daemon)
        assert quotas(daemon) == [MEBIBYTE]
        # Again and again, also when the end of the last attachment has not been noticed yet.
        for turn in range(3):
            pid = daemon.status().workers[0].pid
            os.kill(pid, signal.SIGKILL)
            wait_for("the worker has ended", lambda pid=pid: process_ended(pid))
            daemon.wait_workers(1)
            wait_for("it is attached again", lambda turn=turn: quotas(daemon) == [MEBIBYTE] * (turn + 2))
        # More than half of it for one sequence.
        message = sparse(12000, pb.PLACEMENT_MEMORY_SERVICE, max_tokens=30)
        message.attention.key_bits = 8
        call = daemon.generation.Generate(message, timeout=60)
        next(call)
        used = wait_for("the index is full", lambda: daemon.status().memory_services[0].bytes_used >= MEBIBYTE // 2, 30)
        assert used
        list(call)


def test_workers_share_a_service_evenly(tiny: pathlib.Path) -> None:
    settings = {**SETTINGS, "memory.services": 2, "memory.index_bytes": MEBIBYTE}
    with Daemon(tiny, workers=3, settings=settings) as daemon:
        daemon.wait_workers(3)
        wait_attached(daemon, 3)
        assert sorted(quotas(daemon)) == [MEBIBYTE // 2, MEBIBYTE // 2, MEBIBYTE]


@pytest.mark.parametrize("way", ["unix", "ucx"])
def test_a_service_that_others_run(tiny: pathlib.Path, way: str) -> None:
    port = free_port()
    listen = [f"--remote-listen=127.0.0.1:{port}"] if way == "ucx" else []
    with MemoryService("--max-owners=2", *listen) as service:
        address = f"unix:{service.socket}" if way == "unix" else f"ucx:127.0.0.1:{port}"
        with Daemon(tiny, settings={**SETTINGS, "memory.services": 0, "memory.addresses": f'["{address}"]'}) as daemon:
            wait_attached(daemon)
            (shown,) = daemon.status().memory_services
            assert (shown.name, shown.address, shown.state, shown.pid) == ("memory0", address, READY, 0)
            # mnemod does not know the size of its indexes, so it shows none.
            assert re.search(r"^memory0 +\S+ +cpu +0 +0 +- +- ", mnemo(daemon, "status").stdout, re.MULTILINE)
            inline = daemon.generate(sparse(1000, pb.PLACEMENT_WORKER)).check_ok()
            offloaded = daemon.generate(sparse(1000, pb.PLACEMENT_MEMORY_SERVICE)).check_ok()
            assert offloaded.ids == inline.ids
            assert offloaded.devices[pb.MemoryStep.STEP_RELEVANCY] == {"far:cpu"}
            service.end()
            wait_for("it is down", lambda: daemon.status().memory_services[0].state == DOWN)
            assert daemon.status().memory_services[0].detail == "no worker is attached"
            assert daemon.generate(sparse(1000, pb.PLACEMENT_UNSPECIFIED)).check_ok().ids == inline.ids
            service.start()
            wait_attached(daemon)
            assert daemon.generate(sparse(1000, pb.PLACEMENT_MEMORY_SERVICE)).check_ok().ids == inline.ids



def test_steps_of_a_killed_worker_are_summed(tiny: pathlib.Path) -> None:
    """A worker reports its steps every 16 tokens, and the next worker repeats them: the sum has both."""
    with Daemon(tiny, settings={**SETTINGS, "memory.services": 1}) as daemon:
        for turn, placement in enumerate((pb.PLACEMENT_WORKER, pb.PLACEMENT_MEMORY_SERVICE)):
            wait_attached(daemon)
            # A prompt of its own, so that neither run finds pages of another one.
            message = sparse(1000 + turn, placement, max_tokens=LONG)
            whole = daemon.generate(message).check_ok()
            pid = daemon.status().workers[0].pid
            killed = collect(daemon.generation.Generate(message, timeout=60), kill_at(100, pid)).check_ok()
            assert killed.ids == whole.ids
            assert whole.final is not None and whole.final.replays == 0
            assert killed.final is not None and killed.final.replays == 1
            assert killed.devices == whole.devices
            assert counts(killed, pb.MemoryStep.STEP_RELEVANCY) > counts(whole, pb.MemoryStep.STEP_RELEVANCY)
            for step in (pb.MemoryStep.STEP_RETRIEVAL, pb.MemoryStep.STEP_APPLY):
                # Each decode step once in the second attempt, and some of them, 96 at least, in the first.
                assert counts(whole, step) * (1 + 90 / LONG) < counts(killed, step) <= counts(whole, step) * 2
            assert counts(killed, pb.MemoryStep.STEP_PREPARE) > counts(whole, pb.MemoryStep.STEP_PREPARE)
            keys = [(s.step, s.method, s.device) for s in killed.final.memory_steps]
            assert len(set(keys)) == len(keys)


def test_a_service_lost_in_the_middle_shows_both_devices(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={**SETTINGS, "memory.services": 1, "memory.placement": "memory_service"}) as daemon:
        for turn, placement in enumerate((pb.PLACEMENT_MEMORY_SERVICE, pb.PLACEMENT_UNSPECIFIED)):
            wait_attached(daemon)
            message = sparse(1000, placement, max_tokens=LONG)
            expected = daemon.generate(sparse(1000, pb.PLACEMENT_WORKER, max_tokens=LONG)).check_ok().ids
            pid = daemon.status().memory_services[0].pid
            result = collect(daemon.generation.Generate(message, timeout=60), kill_at(50, pid)).check_ok()
            assert result.ids == expected
            shown = result.devices
            for step in (pb.MemoryStep.STEP_PREPARE, pb.MemoryStep.STEP_RELEVANCY, pb.MemoryStep.STEP_RETRIEVAL):
                assert shown[step] == {"cpu0", "memory0:cpu"}
            assert shown[pb.MemoryStep.STEP_APPLY] == {"cpu0"}
            wait_for("it is counted", lambda turn=turn: fallbacks(daemon) == {"service_lost": turn + 1})
            wait_for("the service is another one", lambda pid=pid: daemon.status().memory_services[0].pid not in (0, pid), 30)


# The tokens that the sequence may still append are reserved at once: more than the service has in all.
TOO_LARGE = {"prompt_tokens": 300, "max_tokens": 16000}


def too_large(placement: int, stop_id: int) -> pb.GenerateRequest:
    message = sparse(TOO_LARGE["prompt_tokens"], placement, max_tokens=TOO_LARGE["max_tokens"])
    message.attention.key_bits = 8
    message.sampling.stop_token_ids.append(stop_id)
    return message


@pytest.mark.parametrize("configured", ["memory_service", "inline"])
def test_a_full_service(tiny: pathlib.Path, configured: str) -> None:
    settings = {**SETTINGS, "memory.services": 1, "memory.index_bytes": MEBIBYTE, "memory.placement": configured}
    with Daemon(tiny, settings=settings) as daemon:
        wait_attached(daemon)
        short = sparse(TOO_LARGE["prompt_tokens"], pb.PLACEMENT_WORKER, max_tokens=100)
        short.attention.key_bits = 8
        ids = daemon.generate(short).check_ok().ids
        stop_id = ids[60]
        expected = ids[: ids.index(stop_id) + 1]
        # With the placement named: refused before it starts, and the worker stays in service.
        refused = daemon.generate(too_large(pb.PLACEMENT_MEMORY_SERVICE, stop_id), timeout=20)
        assert refused.code == Code.RESOURCE_EXHAUSTED, f"{refused.code}: {refused.details}"
        assert "is full" in refused.details and not refused.ids and "grpc-retry-pushback-ms" in refused.trailers
        assert daemon.serving() and fallbacks(daemon) == {}
        # With the placement left to the server: in the worker, and counted as a fallback of offloading.
        result = daemon.generate(too_large(pb.PLACEMENT_UNSPECIFIED, stop_id)).check_ok()
        assert result.ids == expected
        assert set().union(*result.devices.values()) == {"cpu0"}
        # A small one fits the service.
        small = daemon.generate(sparse(1000, pb.PLACEMENT_UNSPECIFIED)).check_ok()
        assert small.devices[pb.MemoryStep.STEP_RELEVANCY] == {"memory0:cpu" if configured == "memory_service" else "cpu0"}
        named = daemon.generate(sparse(1000, pb.PLACEMENT_MEMORY_SERVICE)).check_ok()
        assert named.devices[pb.MemoryStep.STEP_RELEVANCY] == {"memory0:cpu"}
        if configured == "memory_service":
            wait_for("it is counted", lambda: fallbacks(daemon) == {"service_full": 1})
        else:
            assert fallbacks(daemon) == {}


def test_the_largest_budget_of_a_service(tiny: pathlib.Path) -> None:
    """The largest budget is 8,192 entries of a selection: tokens, or pages of 16."""
    with Daemon(tiny, settings={**SETTINGS, "memory.services": 1}) as daemon:
        wait_attached(daemon)

        def ask(method: int, placement: int) -> Result:
            message = sparse(9000, placement, method=method, max_tokens=20)
            message.attention.token_budget = 8500
            return daemon.generate(message)

        refused = ask(pb.ATTENTION_METHOD_TOKEN_TOPK, pb.PLACEMENT_MEMORY_SERVICE)
        assert refused.code == Code.RESOURCE_EXHAUSTED and "at most 8192" in refused.details, refused.details
        pages = [ask(pb.ATTENTION_METHOD_PAGE_BOUND, p).check_ok() for p in (pb.PLACEMENT_WORKER, pb.PLACEMENT_MEMORY_SERVICE)]
        assert pages[0].ids == pages[1].ids
        assert pages[1].devices[pb.MemoryStep.STEP_RELEVANCY] == {"memory0:cpu"}


def test_an_absent_service(tiny: pathlib.Path) -> None:
    backoff = {"memory.restart_backoff_ms": 3_600_000, "memory.restart_backoff_max_ms": 3_600_000}
    with Daemon(tiny, settings={**SETTINGS, **backoff, "memory.services": 1, "memory.placement": "memory_service"}) as daemon:
        wait_attached(daemon)
        message = sparse(1000, pb.PLACEMENT_MEMORY_SERVICE, max_tokens=LONG)
        expected = daemon.generate(message).check_ok().ids
        # In the middle, with the worker: the replay finds no service, and is not refused any more.
        service = daemon.status().memory_services[0].pid
        worker = daemon.status().workers[0].pid

        def kill_both(result: Result) -> None:
            if len(result.ids) >= 100 and not process_ended(service):
                os.kill(service, signal.SIGKILL)
                os.kill(worker, signal.SIGKILL)
                wait_for("both have ended", lambda: process_ended(service) and process_ended(worker))

        result = collect(daemon.generation.Generate(message, timeout=60), kill_both).check_ok()
        assert result.ids == expected
        assert result.final is not None and result.final.replays == 1
        assert result.devices[pb.MemoryStep.STEP_RELEVANCY] == {"cpu0", "memory0:cpu"}
        wait_for("it is counted", lambda: fallbacks(daemon) == {"service_absent": 1})
        # Before it starts: told at once, and the worker stays in service.
        refused = daemon.generate(message, timeout=20)
        assert refused.code == Code.UNAVAILABLE, f"{refused.code}: {refused.details}"
        assert "attention.placement" in refused.details and not refused.ids
        assert daemon.serving()
        alone = daemon.generate(sparse(1000, pb.PLACEMENT_UNSPECIFIED, max_tokens=LONG)).check_ok()
        assert alone.ids == expected
        wait_for("it is counted", lambda: fallbacks(daemon) == {"service_absent": 2})


def check_with_promtool(text: str) -> None:
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert check.returncode == 0 and not check.stderr.strip(), check.stdout + check.stderr


def label_names(text: str, metric: str) -> set[str]:
    found = re.search(rf"^{metric}\{{(.*)\}} ", text, re.MULTILINE)
    assert found, f"{metric} is not there:\n{text}"
    return set(re.findall(r'(\w+)="', found.group(1)))


def test_metrics_after_sparse_requests_pass_promtool(tiny: pathlib.Path) -> None:
    with MemoryService("--max-owners=1") as service:
        # One service that mnemod starts, one at an address; one worker at each.
        settings = {**SETTINGS, "memory.services": 1, "memory.addresses": f"[unix:{service.socket}]", "memory.placement": "memory_service"}
        with Daemon(tiny, workers=2, settings=settings) as daemon:
            daemon.wait_workers(2)
            wait_attached(daemon, 2)
            methods = (pb.ATTENTION_METHOD_TOKEN_TOPK, pb.ATTENTION_METHOD_PAGE_BOUND)
            calls = [
                daemon.generation.Generate(sparse(1000, placement, max_tokens=300, method=method), timeout=60)
                for method in methods
                for placement in (pb.PLACEMENT_WORKER, pb.PLACEMENT_MEMORY_SERVICE)
                for _ in range(2)
            ]
            for call in calls:
                collect(call).check_ok()

            def steps_of(text: str) -> set[tuple[str, str, str]]:
                return set(re.findall(r'mnemo_memory_step_seconds_count\{.*method="(\w+)",step="(\w+)",device="([\w:]+)"\}', text))

            # The worker of a request depends on timing; of two at once, each gets one sooner or later.
            def both_services_worked() -> bool:
                pair = [daemon.generation.Generate(sparse(1000, pb.PLACEMENT_MEMORY_SERVICE, max_tokens=300), timeout=60) for _ in range(2)]
                for call in pair:
                    collect(call).check_ok()
                return {device for _, step, device in steps_of(daemon.metrics()) if step == "relevancy"} >= {"memory0:cpu", "far:cpu"}

            wait_for("both services have worked", both_services_worked, 30)
            # For a fallback: the service of mnemod's own dies while requests run on both.
            lost = daemon.generation.Generate(sparse(1000, pb.PLACEMENT_UNSPECIFIED, max_tokens=LONG), timeout=60)
            also = daemon.generation.Generate(sparse(1000, pb.PLACEMENT_UNSPECIFIED, max_tokens=LONG), timeout=60)
            collect(lost, kill_at(1, daemon.status().memory_services[0].pid)).check_ok()
            collect(also).check_ok()
            wait_for("the fallback is counted", lambda: fallbacks(daemon), 30)
            text = daemon.metrics()
            check_with_promtool(text)
            for metric, labels in {
                "mnemo_memory_step_seconds_count": {"worker", "method", "step", "device"},
                "mnemo_memory_round_trip_seconds_count": {"worker"},
                "mnemo_memory_bytes_total": {"worker", "direction"},
                "mnemo_memory_selected_tokens_count": {"worker"},
                "mnemo_memory_fallbacks_total": {"worker", "reason"},
                "mnemo_memory_indexes": {"place"},
                "mnemo_memory_index_bytes": {"place"},
            }.items():
                assert label_names(text, metric) == labels, metric
            steps = steps_of(text)
            for method in ("token_topk", "page_bound"):
                assert {step for m, step, _ in steps if m == method} == {"prepare", "relevancy", "retrieval", "apply"}
            assert {device for _, step, device in steps if step == "relevancy"} == {"cpu0", "memory0:cpu", "far:cpu"}
            assert {device for _, step, device in steps if step == "apply"} == {"cpu0"}
            own = scrape(service.metrics_address)
            check_with_promtool(own)
            assert 'mnemo_memory_service_operations_total{device="far:cpu",op="score_select",status="ok"}' in own
            for name in ("step_seconds_total", "bytes_total", "batches_total", "capacity_bytes", "index_bytes", "indexes", "quota_bytes"):
                assert label_names(own, f"mnemo_memory_service_{name}") >= {"device"}

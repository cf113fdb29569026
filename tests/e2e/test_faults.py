"""Processes that die or hang: streams continue without a gap, and nothing stays behind."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time

import models
from harness import Code, Daemon, Result, collect, pb, process_ended, request, seeded, wait_for

LENGTH = 40
PROMPT = "Once upon a time there was a small village at the foot of a mountain, and"


def kill_worker_of(daemon: Daemon, number: int) -> int:
    """Sends the signal to the worker that runs the only request."""
    busy = [w for w in daemon.status().workers if w.requests_running > 0]
    assert len(busy) == 1, daemon.status()
    os.kill(busy[0].pid, number)
    return int(busy[0].pid)


def test_killed_and_stopped_workers_break_no_stream() -> None:
    """20 times, kill -9 and SIGSTOP in turn, greedy and seeded, after a token drawn from the seed."""
    with seeded("kills") as rng, Daemon(models.find("smollm2"), workers=2, settings={"workers.hang_timeout_ms": 1000}) as daemon:
        daemon.wait_workers(2)
        requests = [
            request(PROMPT, max_tokens=LENGTH, ignore_eos=True),
            request(PROMPT, max_tokens=LENGTH, ignore_eos=True, temperature=0.9, top_p=0.95, repetition_penalty=1.1, seed=11),
        ]
        requests[1].output.logprobs = 2
        expected = [daemon.generate(r).check_ok() for r in requests]
        for turn in range(20):
            number = signal.SIGKILL if turn % 2 == 0 else signal.SIGSTOP
            which = (turn // 2) % 2
            after = rng.randrange(1, LENGTH // 2)
            killed: list[int] = []

            def on_message(result: Result, after: int = after, number: int = number, killed: list[int] = killed) -> None:
                if not killed and len(result.ids) >= after:
                    killed.append(kill_worker_of(daemon, number))

            daemon.wait_workers(2)
            result = collect(daemon.generation.Generate(requests[which], timeout=60), on_message).check_ok()
            about = f"turn {turn}: signal {number} after token {after}"
            assert killed, about
            assert result.text == expected[which].text, about
            assert result.ids == expected[which].ids, about
            assert [t.logprob for t in result.tokens] == [t.logprob for t in expected[which].tokens], about
            assert result.final is not None and result.final.replays == 1, about
            assert result.final.usage.completion_tokens == LENGTH
            wait_for(f"{about}: the worker has ended", lambda pid=killed[0]: process_ended(pid), 10)
        daemon.wait_workers(2)
        daemon.wait_idle()
        assert sum(w.restarts for w in daemon.status().workers) == 20


def test_the_only_worker_is_restarted_and_takes_its_requests_up(tiny: pathlib.Path) -> None:
    with Daemon(tiny, workers=1) as daemon:
        requests = [request([i, i + 1], max_tokens=3000, ignore_eos=True) for i in range(4)]
        expected = [daemon.generate(r).check_ok().ids for r in requests]
        calls = [daemon.generation.Generate(r, timeout=60) for r in requests]
        results = [Result() for _ in calls]
        for call, result in zip(calls, results):
            while not result.ids:
                result.add(next(call))
        os.kill(daemon.status().workers[0].pid, signal.SIGKILL)
        for call, result, want in zip(calls, results, expected):
            for message in call:
                result.add(message)
            assert result.ids == want
        daemon.wait_idle()


def test_a_request_on_two_dead_workers_ends_internal() -> None:
    with Daemon(models.find("smollm2"), workers=2) as daemon:
        daemon.wait_workers(2)
        killed: list[tuple[int, int]] = []

        def on_message(result: Result) -> None:
            if len(killed) < 2 and (not killed or len(result.ids) > killed[-1][0]):
                killed.append((len(result.ids), kill_worker_of(daemon, signal.SIGKILL)))

        result = collect(daemon.generation.Generate(request(PROMPT, max_tokens=400, ignore_eos=True), timeout=60), on_message)
        assert result.code == Code.INTERNAL, f"{result.code}: {result.details}"
        daemon.wait_workers(2)
        daemon.wait_idle()
        daemon.generate(request(PROMPT)).check_ok()


def test_workers_that_are_killed_together_end_no_request(tiny: pathlib.Path) -> None:
    """A request that is sent to the second worker after the first one's death never ran there: that worker is dead, too."""
    with Daemon(tiny, workers=2) as daemon:
        daemon.wait_workers(2)
        requests = [request([i, i + 1], max_tokens=2000, ignore_eos=True) for i in range(8)]
        expected = [daemon.generate(r).check_ok().ids for r in requests]
        for _ in range(3):
            daemon.wait_workers(2)
            pids = [w.pid for w in daemon.status().workers]
            calls = [daemon.generation.Generate(r, timeout=60) for r in requests]
            results = [Result() for _ in calls]
            for call, result in zip(calls, results):
                while not result.ids:
                    result.add(next(call))
            # Both are stopped first: between two kills the second worker could take the requests of the first.
            for end in (signal.SIGSTOP, signal.SIGKILL):
                for pid in pids:
                    os.kill(pid, end)
            for call, result, want in zip(calls, results, expected):
                for message in call:
                    result.add(message)
                assert result.ids == want
        daemon.wait_idle()


def test_no_worker_within_the_bound_is_unavailable(tiny: pathlib.Path) -> None:
    settings = {"workers.no_worker_timeout_ms": 500, "workers.restart_backoff_ms": 5000, "workers.restart_backoff_max_ms": 5000}
    with Daemon(tiny, workers=1, settings=settings) as daemon:
        pid = daemon.status().workers[0].pid
        os.kill(pid, signal.SIGKILL)
        wait_for("NOT_SERVING without a worker", lambda: not daemon.serving(), 10)
        began = time.monotonic()
        result = daemon.generate(request([1]))
        assert result.code == Code.UNAVAILABLE, f"{result.code}: {result.details}"
        assert time.monotonic() - began < 4


def test_children_end_with_a_killed_mnemod(tiny: pathlib.Path) -> None:
    with Daemon(tiny, workers=2) as daemon:
        daemon.wait_workers(2)
        pids = [w.pid for w in daemon.status().workers]
        call = daemon.generation.Generate(request([1], max_tokens=16000, ignore_eos=True))
        next(call)
        daemon.process.kill()
        daemon.process.wait(10)
        for pid in pids:
            wait_for(f"worker {pid} has ended", lambda pid=pid: process_ended(pid), 10)


def test_started_without_standard_streams(tiny: pathlib.Path) -> None:
    """Connections and files do not get these descriptors, or log lines would be written into them."""
    with Daemon(tiny, workers=1, settings={"memory.services": 1}, closed=(0, 1, 2)) as daemon:
        daemon.generate(request([1], max_tokens=4)).check_ok()
        status = daemon.status()
        pids = [daemon.process.pid, *[w.pid for w in status.workers], *[m.pid for m in status.memory_services if m.pid]]
        assert len(pids) >= 2
        for pid in pids:
            assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3


def test_sigterm_drains(tiny: pathlib.Path) -> None:
    with Daemon(tiny, workers=1, settings={"server.drain_timeout_ms": 20000}) as daemon:
        pids = [w.pid for w in daemon.status().workers]
        req = request([1], max_tokens=2000, ignore_eos=True)
        expected = daemon.generate(req).check_ok().ids
        call = daemon.generation.Generate(req, timeout=60)
        next(call)
        daemon.process.send_signal(signal.SIGTERM)
        ids = [t.id for message in call for t in message.delta.tokens]
        assert ids == expected, "a running stream is finished"
        assert daemon.process.wait(20) == 0
        for pid in pids:
            wait_for(f"worker {pid} has ended", lambda pid=pid: process_ended(pid), 5)


def test_sigterm_cuts_what_does_not_end(tiny: pathlib.Path) -> None:
    with Daemon(tiny, workers=1, settings={"server.drain_timeout_ms": 300, "server.slow_reader_timeout_ms": 60000}) as daemon:
        req = request([1], max_tokens=16000, ignore_eos=True)
        req.output.logprobs = 20
        call = daemon.generation.Generate(req, timeout=60)
        next(call)
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
        assert time.monotonic() - began < 10
        call.cancel()


def test_sighup_reloads_limits_and_a_bad_file_changes_nothing(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text("limits:\n  max_tokens: 0\nlog:\n  level: info\n")
    with Daemon(tiny, config=config) as daemon:
        pid = daemon.status().workers[0].pid
        daemon.generate(request([1], max_tokens=20, ignore_eos=True)).check_ok()

        def refused() -> bool:
            return daemon.generate(request([1], max_tokens=20, ignore_eos=True)).code == Code.INVALID_ARGUMENT

        config.write_text("limits:\n  max_tokens: 5\nlog:\n  level: debug\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("the new limit", refused, 10)
        daemon.generate(request([1], max_tokens=5, ignore_eos=True)).check_ok()
        config.write_text("limits:\n  max_tokns: 0\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("the error in the log", lambda: "max_tokns" in daemon.log(), 10)
        assert refused()
        assert daemon.process.poll() is None and daemon.status().workers[0].pid == pid


def test_metrics_are_what_happened_and_pass_promtool(tiny: pathlib.Path) -> None:
    with Daemon(tiny, workers=2) as daemon:
        daemon.wait_workers(2)
        for _ in range(3):
            daemon.generate(request([1, 2, 3, 4], max_tokens=7, ignore_eos=True)).check_ok()
        bad = request([1], max_tokens=7)
        bad.sampling.top_p = 7.0
        daemon.generate(bad)
        cancelled = daemon.generation.Generate(request([1], max_tokens=16000, ignore_eos=True))
        next(cancelled)
        cancelled.cancel()
        os.kill(daemon.status().workers[0].pid, signal.SIGKILL)
        wait_for("a restart", lambda: sum(w.restarts for w in daemon.status().workers) == 1)
        daemon.wait_workers(2)
        daemon.wait_idle()
        text = daemon.metrics()
        check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
        assert check.returncode == 0 and not check.stderr.strip(), check.stdout + check.stderr
        values = _sums(text)
        for name in (
            "time_to_first_token_seconds",
            "inter_token_latency_seconds",
            "request_time_per_output_token_seconds",
            "e2e_request_latency_seconds",
            "request_queue_time_seconds",
            "request_prefill_time_seconds",
            "request_decode_time_seconds",
        ):
            assert values[f"mnemo_{name}_count"] >= 3, name
        for name in (
            "num_requests_running",
            "num_requests_waiting",
            "kv_cache_usage_ratio",
            "prefix_cache_queries_total",
            "prefix_cache_hits_total",
            "num_preemptions_total",
        ):
            assert f"mnemo_{name}" in values, name
        assert values["mnemo_prompt_tokens_total"] >= 12
        assert values["mnemo_generation_tokens_total"] >= 21
        assert values["mnemo_request_success_total"] == 3
        assert values["mnemo_requests_rejected_total"] == 1
        assert values["mnemo_worker_restarts_total"] == 1
        assert values["mnemo_num_requests_running"] == 0 and values["mnemo_kv_cache_usage_ratio"] == 0
        assert 'finish_reason="length"' in text


def _sums(text: str) -> dict[str, float]:
    """Samples by metric name, summed over labels."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name = line.split("{")[0].split()[0]
            sums[name] = sums.get(name, 0.0) + float(line.rsplit(None, 1)[1])
    return sums


def test_models_of_the_tests_differ(tiny: pathlib.Path) -> None:
    """The tiny model must not repeat one token, or comparing streams would prove little."""
    with Daemon(tiny) as daemon:
        ids = daemon.generate(request([1, 2, 3], max_tokens=200, ignore_eos=True)).check_ok().ids
        assert len(set(ids)) > 10, ids
        assert daemon.model().name == "tiny"
        reply = daemon.generation.Detokenize(pb.DetokenizeRequest(ids=[104, 105]), timeout=10)
        assert reply.text

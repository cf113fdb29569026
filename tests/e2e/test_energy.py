"""Joules of requests and steps against an oracle of this file, on a scripted meter (powercap.py).

The oracle reads the daemon's record, which is in its log at the level debug (docs/ENERGY.md). The record has intervals of meters, spans
of work, and the begin and end of each request. The division is computed here from the published formula."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import signal
from collections.abc import Iterator
from typing import Any

import grpc
import harness
import pytest
from harness import Code, Daemon, admin_pb2, pb, request, tiny_model, wait_for
from powercap import Meter

IDLE_WATTS = 8.0
BUSY_WATTS = 42.0
WATTS = {"cpu0": BUSY_WATTS, "dram0": BUSY_WATTS / 4}  # of the scripted meter
STEPS = {"prepare": 1, "relevancy": 2, "retrieval": 3, "apply": 4}  # numbers of pb.MemoryStep.Step


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    root = tmp_path_factory.mktemp("powercap")
    # The package wraps after a second, the memory after five.
    with Meter(root, {"package-0": WATTS["cpu0"], "dram": WATTS["dram0"]}, begin_uj=Meter.RANGE_UJ - 50_000_000):
        yield root


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", layers=4)


def settings(meter: pathlib.Path, **more: Any) -> dict[str, Any]:
    return {
        "energy.powercap_root": meter,
        "energy.sources": "[rapl]",
        "energy.socket": "",
        # Short, so that the time after the last reading, which a Final estimates, is a small part of a request.
        "energy.interval_ms": 25,
        "energy.idle_watts": f"[cpu0={IDLE_WATTS}, dram0=1]",
        "log.level": "debug",
        **more,
    }


class Record:
    """The daemon's record, as its log has it."""

    LINE = re.compile(r"energy: (interval|span|begin|end|settled) ((?:\w+=\S* ?)+)")

    def __init__(self, log: str) -> None:
        self.intervals: list[dict[str, str]] = []
        self.spans: list[dict[str, str]] = []
        self.begins: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.settled: dict[tuple[str, str, str], float] = {}
        # The most that one interval gave a request, by request and device.
        self.most: dict[tuple[str, str], float] = collections.defaultdict(float)
        for kind, text in self.LINE.findall(log):
            fields = dict(field.split("=", 1) for field in text.strip().rstrip('",}').split())
            if kind == "interval":
                self.intervals.append(fields)
            elif kind == "settled":
                self.settled[self.names[fields["request"]], fields["device"], fields["step"]] = float(fields["joules"])
            elif kind == "span":
                self.spans.append(fields)
            elif kind == "begin":
                self.begins[fields["request"]] = int(fields["at_ns"])
                self.names[fields["request"]] = fields["request_id"]
            else:
                self.ends[fields["request"]] = int(fields["at_ns"])

    def lag(self, device: str) -> float:
        """Joules that the scripted counter was behind or ahead of its power: its thread waits for a core like any other."""
        apart = [0.0]
        for interval in self.intervals:
            if interval["device"] == device:
                seconds = (int(interval["end_ns"]) - int(interval["begin_ns"])) / 1e9
                apart.append(apart[-1] + float(interval["joules"]) - WATTS[device] * seconds)
        return max(apart) - min(apart)

    def divide(self, byte: float = 0, operation: float = 0, pays_idle: bool = True) -> dict[tuple[str, str, str], float]:
        """Joules by request id, device and step; without a request: "", device and use. A model of work adds joules for each byte and
        multiply-add of the spans."""
        sums: dict[tuple[str, str, str], float] = collections.defaultdict(float)
        for interval in self.intervals:
            before = dict(sums)
            device, begin, end = interval["device"], int(interval["begin_ns"]), int(interval["end_ns"])
            joules = float(interval["joules"])
            idle = min(joules, float(interval["idle_watts"]) * (end - begin) / 1e9)
            own = (joules - idle) * float(interval["own_share"])
            sums["", device, "other"] += joules - idle - own

            def inside(start: int, stop: int, begin: int = begin, end: int = end) -> int:
                return max(0, min(stop, end) - max(start, begin))

            work = []
            for span in self.spans:
                start, stop = int(span["begin_ns"]), int(span["end_ns"])
                share = inside(start, stop) / (stop - start)
                if share > 0:
                    work.append((span["request"], span["step"], float(span["work_ns"]) * share))
                    modelled = byte * float(span["bytes"]) + operation * float(span["operations"])
                    sums[self.names[span["request"]], device, span["step"]] += modelled * share
            whole = sum(part for _, _, part in work)
            for number, step, part in work:
                sums[self.names[number], device, step] += own * part / whole
            if not work:
                sums["", device, "overhead"] += own
            flights = {n: inside(at, self.ends.get(n, end)) for n, at in self.begins.items()}
            marks = sorted({begin, end, *(t for n, at in self.begins.items() for t in (at, self.ends.get(n, end)) if begin < t < end)})
            occupied = 0
            for left, right in zip(marks, marks[1:]):
                if any(at <= left and self.ends.get(n, end) >= right for n, at in self.begins.items()):
                    occupied += right - left
            paid = idle * occupied / (end - begin) if pays_idle else 0.0
            sums["", device, "idle"] += idle - paid
            for number, time_ns in flights.items():
                if time_ns > 0:
                    sums[self.names[number], device, "idle"] += paid * time_ns / sum(flights.values())
            for name in self.names.values():
                given = sum(j - before.get(key, 0.0) for key, j in sums.items() if key[:2] == (name, device))
                self.most[name, device] = max(self.most[name, device], given)
        return dict(sums)


def settled(daemon: Daemon) -> Record:
    """The record when all intervals of the requests that have ended are in it."""

    def complete() -> Record | None:
        record = Record(daemon.log())
        newest = collections.defaultdict(int)
        for interval in record.intervals:
            newest[interval["device"]] = max(newest[interval["device"]], int(interval["end_ns"]))
        ended = len(record.ends) == len(record.begins) and record.ends
        done = {name for name, _, _ in record.settled} == set(record.names.values())
        return record if ended and done and newest and min(newest.values()) > max(record.ends.values()) else None

    return wait_for("a settled record", complete, 30, 0.2)


def samples(text: str, family: str) -> dict[tuple[str, ...], float]:
    """Samples of a family by the values of their labels, in the order of the labels' names."""
    found = {}
    for labels, value in re.findall(rf"^{family}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        found[tuple(v for _, v in sorted(re.findall(r'(\w+)="([^"]*)"', labels)))] = float(value)
    return found


def check_counters(daemon: Daemon) -> None:
    """Uses sum to the devices' joules, steps to those of requests, in one scrape."""
    text = daemon.metrics()
    uses = samples(text, "mnemo_energy_use_joules_total")
    steps = samples(text, "mnemo_step_energy_joules_total")
    for (device, _, source), joules in samples(text, "mnemo_energy_joules_total").items():
        assert source == "rapl"
        assert sum(v for (d, _), v in uses.items() if d == device) == pytest.approx(joules, rel=1e-6)
        assert sum(v for (d, _, _), v in steps.items() if d == device) == pytest.approx(uses[device, "request"], rel=1e-6)
    assert not re.search(r'"first"|"second"|request_id', text), "a label with a request's id"


def run_two(daemon: Daemon, *requests: pb.GenerateRequest) -> list[harness.Result]:
    calls = []
    for name, message in zip(("first", "second"), requests):
        message.request_id = name
        calls.append(daemon.generation.Generate(message, timeout=120))
    return [harness.collect(call).check_ok() for call in calls]


def check_requests(record: Record, results: list[harness.Result]) -> dict[tuple[str, str, str], float]:
    """Settled joules of each request and step are within 2 % of what the record comes to. Each Final, which estimates the time since the
    last reading, may differ by an interval more, and by what the counter was late. Returns what the record comes to."""
    sums = record.divide()
    for key in {k for k in sums if k[0]} | set(record.settled):
        assert record.settled.get(key, 0.0) == pytest.approx(sums.get(key, 0.0), rel=0.02, abs=1e-6), key
    for result in results:
        assert result.final is not None and result.started is not None
        name = result.started.request_id
        assert {d.device for d in result.final.energy.devices} == {"cpu0", "dram0"}
        for device in result.final.energy.devices:
            assert device.source == "rapl"
            expected = sum(j for (r, d, _), j in sums.items() if (r, d) == (name, device.device))
            late = record.most[name, device.device] + record.lag(device.device)
            assert abs(device.joules - expected) <= 0.02 * expected + late
        assert result.final.energy.joules == pytest.approx(sum(d.joules for d in result.final.energy.devices))
        for step, number in STEPS.items():
            entries = [s for s in result.final.memory_steps if s.step == number]
            expected = sum(j for (r, _, s), j in sums.items() if (r, s) == (name, step))
            if entries:
                error = sum(record.most[name, device] + record.lag(device) for device in WATTS)
                assert abs(sum(s.joules for s in entries) - expected) <= 0.02 * expected + error
    return sums


def long_request(seed: int, tokens: int) -> pb.GenerateRequest:
    return request([(seed * 31 + i * 7) % 250 for i in range(1500)], max_tokens=tokens, ignore_eos=True)


@pytest.mark.parametrize("placement", ["dense", "inline", "offloaded"])
def test_two_requests_get_what_the_oracle_says(tiny: pathlib.Path, meter: pathlib.Path, placement: str) -> None:
    first, second = long_request(1, 9000), long_request(2, 9000)
    if placement != "dense":
        for message in (first, second):
            message.attention.method = pb.ATTENTION_METHOD_TOKEN_TOPK
            message.attention.token_budget = 256
            message.attention.placement = pb.PLACEMENT_WORKER if placement == "inline" else pb.PLACEMENT_MEMORY_SERVICE
    with Daemon(tiny, settings=settings(meter, **{"memory.services": 1})) as daemon:
        wait_for("the memory service", daemon.attached, 20)
        wait_for("a reading", lambda: samples(daemon.metrics(), "mnemo_energy_joules_total"))
        results = run_two(daemon, first, second)
        sums = check_requests(settled(daemon), results)
        method = "dense" if placement == "dense" else "token_topk"
        steps = samples(daemon.metrics(), "mnemo_step_energy_joules_total")
        for (device, label, step), joules in steps.items():
            assert label == method
            expected = sum(j for (r, d, s), j in sums.items() if r and (d, s) == (device, step))
            assert joules == pytest.approx(expected, rel=0.02, abs=1e-6)
        assert {step for (_, _, step), joules in steps.items() if joules > 0} >= (
            {"prefill", "decode", "idle"} | (set() if placement == "dense" else {"relevancy", "retrieval", "apply"})
        )
        check_counters(daemon)
        watts = samples(daemon.metrics(), "mnemo_power_watts")["cpu0",]

        def is_recorded() -> bool:
            """The power is the mean of about a second; the record has its intervals when they settle."""
            intervals = [i for i in Record(daemon.log()).intervals if i["device"] == "cpu0"]
            for last in range(len(intervals)):
                joules = 0.0
                for interval in reversed(intervals[: last + 1]):
                    joules += float(interval["joules"])
                    length_ns = int(intervals[last]["end_ns"]) - int(interval["begin_ns"])
                    if length_ns > 1.5e9:
                        break
                    if length_ns > 0.5e9 and joules / length_ns * 1e9 == pytest.approx(watts, rel=1e-6):
                        return True
            return False

        wait_for("the intervals of the power", is_recorded)
        assert samples(daemon.metrics(), "mnemo_idle_power_watts") == {("cpu0", "configured"): IDLE_WATTS, ("dram0", "configured"): 1}
        wait_for("the histogram", lambda: "mnemo_request_energy_joules_count 2" in daemon.metrics())


def test_a_replayed_request_carries_both_attempts(tiny: pathlib.Path, meter: pathlib.Path) -> None:
    message = long_request(3, 9000)
    message.request_id = "first"
    with Daemon(tiny, settings=settings(meter, **{"workers.restart_backoff_ms": 50})) as daemon:
        wait_for("a reading", lambda: samples(daemon.metrics(), "mnemo_energy_joules_total"))
        pid = daemon.status().workers[0].pid
        killed = []

        def kill(result: harness.Result) -> None:
            if len(result.tokens) > 3000 and not killed:
                running = daemon.admin.Energy(admin_pb2.EnergyRequest(), timeout=10).requests
                killed.append(running[0].joules)
                assert running[0].request_id == "first" and running[0].completion_tokens > 0
                os.kill(pid, signal.SIGKILL)

        result = harness.collect(daemon.generation.Generate(message, timeout=120), kill).check_ok()
        assert result.final is not None and result.final.replays == 1
        check_requests(settled(daemon), [result])
        assert result.final.energy.joules > killed[0] > 0
        check_counters(daemon)


def test_admin_energy_agrees_with_the_metrics(tiny: pathlib.Path, meter: pathlib.Path) -> None:
    with Daemon(tiny, settings=settings(meter)) as daemon:
        daemon.generate(long_request(4, 500)).check_ok()
        settled(daemon)
        reply = daemon.admin.Energy(admin_pb2.EnergyRequest(), timeout=10)
        assert [d.device for d in reply.devices] == ["cpu0", "dram0"]
        for device in reply.devices:
            uses = device.request_joules + device.overhead_joules + device.idle_joules + device.other_joules
            assert uses == pytest.approx(device.joules, rel=1e-9)
            assert device.source == "rapl" and device.meter_up
            steps = sum(s.joules for s in reply.steps if s.device == device.device)
            assert steps == pytest.approx(device.request_joules, rel=1e-9)
        assert not reply.requests


@pytest.mark.parametrize("why", ["no meter", "not enabled"])
def test_without_meter_and_model_energy_is_absent_everywhere(
    tiny: pathlib.Path, tmp_path: pathlib.Path, meter: pathlib.Path, why: str
) -> None:
    import subprocess

    changed = {"energy.powercap_root": tmp_path} if why == "no meter" else {"energy.enabled": "false"}
    with Daemon(tiny, settings={**settings(meter), **changed}) as daemon:
        message = long_request(5, 30)
        message.attention.method = pb.ATTENTION_METHOD_TOKEN_TOPK
        result = daemon.generate(message).check_ok()
        assert result.final is not None and not result.final.HasField("energy")
        assert all(step.joules == 0 for step in result.final.memory_steps)
        assert not re.search("joule|energy|watt", daemon.metrics())
        with pytest.raises(grpc.RpcError) as error:
            daemon.admin.Energy(admin_pb2.EnergyRequest(), timeout=10)
        assert error.value.code() == Code.UNIMPLEMENTED and "energy.model" in error.value.details()
        command = [str(harness.BIN / "mnemo"), "generate", "hello", "--address", daemon.address, "--max-tokens", "5"]
        done = subprocess.run([*command, "--json", "--stats"], capture_output=True, text=True, check=True, timeout=60)
        assert "energy" not in json.loads(done.stdout) and "joules" not in done.stdout and " J" not in done.stderr


def dense_operations(prompt: int, output: int) -> int:
    """Multiply-adds of a dense request to `tiny`, from the sizes in harness.tiny_model. The last token is not fed."""
    layers, dim, ffn, heads, kv_heads, head_dim, vocabulary = 4, 64, 128, 4, 2, 16, 259
    rows = prompt + output - 1
    matrices = dim * (heads + 2 * kv_heads) * head_dim + heads * head_dim * dim + 3 * dim * ffn
    # Each position attends to itself and to all before it: a product with a key and one with a value.
    attention = 2 * heads * head_dim * sum(range(1, rows + 1))
    return layers * (rows * matrices + attention) + output * dim * vocabulary


def test_a_model_of_work_gives_joules_for_bytes_and_operations(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    byte, operation = 3e-9, 2e-9
    changed = {
        "energy.sources": "[]",
        "energy.model": f'["cpu0 idle=8 byte={byte} operation={operation}"]',
        "energy.idle_watts": "[]",
        # Idle energy goes to nobody: what requests have is that of their work.
        "energy.idle_share": "none",
        "engine.prefix_cache": "false",
    }
    sparse = long_request(6, 700)
    sparse.attention.method = pb.ATTENTION_METHOD_TOKEN_TOPK
    sparse.attention.token_budget = 256
    with Daemon(tiny, settings={**settings(tmp_path), **changed}) as daemon:
        wait_for("a reading", lambda: samples(daemon.metrics(), "mnemo_energy_joules_total"))
        results = run_two(daemon, long_request(5, 600), sparse)
        record = settled(daemon)
        sums = record.divide(byte, operation, pays_idle=False)
        assert {key[2] for key in sums if key[0] and sums[key] > 0} >= {"prefill", "decode", "relevancy", "retrieval", "apply"}
        for key in {k for k in sums if k[0]} | set(record.settled):
            assert record.settled.get(key, 0.0) == pytest.approx(sums.get(key, 0.0), rel=0.02, abs=1e-9), key
        for result in results:
            assert result.started is not None and result.final is not None
            assert [(d.device, d.source) for d in result.final.energy.devices] == [("cpu0", "model")]
            # The work is known when a request ends: nothing is estimated.
            expected = sum(joules for (name, _, _), joules in sums.items() if name == result.started.request_id)
            assert result.final.energy.joules == pytest.approx(expected, rel=0.02)
            for step in result.final.memory_steps:
                name = next(name for name, number in STEPS.items() if number == step.step)
                assert step.joules == pytest.approx(sums[result.started.request_id, "cpu0", name], rel=0.02)
        # The work itself, counted from the network's sizes. A span drops fractions.
        spans = [s for s in record.spans if record.names[s["request"]] == "first"]
        operations = sum(float(s["operations"]) for s in spans)
        assert abs(operations - dense_operations(1500, 600)) <= len(spans)
        text = daemon.metrics()
        uses = samples(text, "mnemo_energy_use_joules_total")
        ((labels, joules),) = samples(text, "mnemo_energy_joules_total").items()
        assert labels == ("cpu0", "cpu", "model")
        assert sum(uses.values()) == pytest.approx(joules, rel=1e-6)
        assert uses["cpu0", "other"] == pytest.approx(0, abs=1e-6) and uses["cpu0", "idle"] > 0
        assert uses["cpu0", "request"] == pytest.approx(sum(j for (name, _, _), j in sums.items() if name), rel=0.02)
        # Without work the model's power is that of a device without work.
        wait_for("an interval without work", lambda: samples(daemon.metrics(), "mnemo_power_watts")["cpu0",] == pytest.approx(8))
        (device,) = daemon.admin.Energy(admin_pb2.EnergyRequest(), timeout=10).devices
        assert device.source == "model" and device.meter_up and device.watts == pytest.approx(8)
        assert device.idle_watts == 8 and not device.idle_watts_measured


def test_tokens_do_not_depend_on_energy(tiny: pathlib.Path, meter: pathlib.Path) -> None:
    tokens = []
    for enabled in ("true", "false"):
        with Daemon(tiny, settings={**settings(meter), "energy.enabled": enabled}) as daemon:
            tokens.append(daemon.generate(request([1, 2, 3], max_tokens=300, ignore_eos=True, temperature=0.9, seed=5)).check_ok().ids)
    assert tokens[0] == tokens[1]

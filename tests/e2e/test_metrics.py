"""docs/METRICS.md against scrapes of live programs: every metric of the table appears when the table says, and no other does."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from harness import Daemon, MemoryService, pb, request, scrape, tiny_model, wait_for
from test_memory import SETTINGS, sparse, wait_attached

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs/METRICS.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)


class Metric(NamedTuple):
    type: str
    labels: frozenset[str]
    since: str
    help: str


def table(program: str) -> dict[str, Metric]:
    section = TABLE.read_text().split(f"\n## {program}\n")[1].split("\n## ")[0]
    rows = ROW.findall(section)
    found = {name: Metric(kind, frozenset(re.findall(r"`(\w+)`", labels)), since, text) for name, kind, labels, since, text in rows}
    assert len(found) == len(rows) > 10
    return found


def check(text: str, known: dict[str, Metric]) -> set[str]:
    """Names of an exposition, each of which has type, help and labels of its row; a metric has at least one sample."""
    helps = dict(re.findall(r"^# HELP (\w+) (.*)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\w+) (.*)$", text, re.MULTILINE))
    own = {name: kind for name, kind in types.items() if name.startswith("mnemo_")}
    assert set(own) <= set(known), set(own) - set(known)
    for name, kind in own.items():
        metric = known[name]
        assert (kind, helps[name]) == (metric.type, metric.help), name
        ending = "_count" if kind == "histogram" else ""
        samples = re.findall(rf"^{name}{ending}(?:\{{(.*)\}})? \S+$", text, re.MULTILINE)
        assert samples, name
        for labels in samples:
            assert set(re.findall(r'(\w+)="', labels)) == metric.labels, name
    return set(own)


def since(known: dict[str, Metric], *whens: str) -> set[str]:
    names = {name for name, metric in known.items() if metric.since in whens}
    assert {known[name].since for name in names} == set(whens)
    return names


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    yield tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def test_a_daemon_without_memory_service_and_meter(tiny: pathlib.Path) -> None:
    known = table("mnemod")
    with Daemon(tiny, settings={"energy.enabled": "false", "memory.services": 0}) as daemon:
        wanted = since(known, "the start", "the first ready worker")
        assert check(daemon.metrics(), known) == wanted
        daemon.generate(request("hello", max_tokens=4)).check_ok()
        assert check(daemon.metrics(), known) == wanted


def test_every_metric_appears_when_the_table_says(tiny: pathlib.Path) -> None:
    known, of_service = table("mnemod"), table("mnemo-memory")
    settings: dict[str, Any] = {**SETTINGS, "memory.services": 0, "memory.placement": "memory_service"}
    settings |= {"energy.sources": "[]", "energy.socket": "", "energy.model": '["cpu0 idle=2 busy=20"]'}
    with MemoryService("--memory-bytes=16777216") as service:
        assert check(scrape(service.metrics_address), of_service) == since(of_service, "the start")
        settings["memory.addresses"] = f"[unix:{service.socket}]"
        with Daemon(tiny, settings=settings) as daemon:
            wait_attached(daemon)
            attached = since(of_service, "the start", "the first attached worker")
            assert check(scrape(service.metrics_address), of_service) == attached

            # mnemod tells no figure of the service that it does not know.
            expected = since(known, "the start", "the first ready worker", "the first memory service")
            expected |= since(known, "the first meter or model of energy", "the first measured interval")
            wait_for("an interval is measured", lambda: check(daemon.metrics(), known) >= expected)
            assert check(daemon.metrics(), known) == expected

            daemon.generate(sparse(400, pb.PLACEMENT_UNSPECIFIED)).check_ok()
            expected |= since(known, "the first request with sparse attention", "the first request with energy")
            wait_for("the request is counted", lambda: check(daemon.metrics(), known) >= expected)
            assert check(daemon.metrics(), known) == expected
            # The CPU's device counts nothing itself.
            all_of_cpu = set(of_service) - since(of_service, "a device that counts its work")
            assert check(scrape(service.metrics_address), of_service) == all_of_cpu
            assert expected == set(known) - since(known, "the first memory service that mnemod starts", "a device that counts its work")
            assert 'mnemo_memory_indexes{place="memory0"}' in daemon.metrics()
            assert 'mnemo_memory_index_bytes{place="memory0"}' not in daemon.metrics()


def test_mnemod_tells_what_the_card_of_its_service_counts(tiny: pathlib.Path) -> None:
    known, of_service = table("mnemod"), table("mnemo-memory")
    wanted = since(known, "a device that counts its work")
    assert wanted == since(of_service, "a device that counts its work")
    card = {"memory.services": 1, "memory.device": "card-model", "memory.device_options": '["channels=2"]', "memory.health_interval_ms": 100}
    with Daemon(tiny, settings={**SETTINGS, **card, "memory.placement": "memory_service"}) as daemon:
        wait_attached(daemon)
        wait_for("figures of the card", lambda: check(daemon.metrics(), known) >= wanted)

        def count(metric: str) -> float:
            values = re.findall(rf'^{metric}\{{.*device="memory0:card-model".*\}} (\S+)$', daemon.metrics(), re.MULTILINE)
            assert values, metric
            return sum(float(value) for value in values)

        assert count("mnemo_memory_service_device_descriptors_total") == 0
        daemon.generate(sparse(400, pb.PLACEMENT_UNSPECIFIED)).check_ok()
        wait_for("descriptors are counted", lambda: count("mnemo_memory_service_device_descriptors_total") > 0)
        wait_for("joules are counted", lambda: count("mnemo_memory_service_energy_joules_total") > 0)
        assert count("mnemo_memory_service_device_channel_beats_total") > 0
        text = daemon.metrics()
        for channel in (0, 1):
            assert f'mnemo_memory_service_device_channel_bytes_total{{device="memory0:card-model",channel="{channel}"}}' in text

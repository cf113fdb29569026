"""Real crash loops, from the kill to the message: mnemod's metrics, Prometheus with the rules as they are shipped, Alertmanager, a webhook."""

from __future__ import annotations

import os
import pathlib
import re
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from harness import ROOT, Daemon, admin_pb2, wait_for
from monitoring import RULES, Alertmanager, Prometheus, Webhook

# More than the bound of both alerts: three in ten minutes.
CRASHES = 4


class Chain(NamedTuple):
    daemon: Daemon
    prometheus: Prometheus
    webhook: Webhook


@pytest.fixture(scope="module")
def chain(tiny: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    settings = {"workers.restart_backoff_ms": 50, "workers.restart_backoff_max_ms": 100}
    with (
        Webhook() as webhook,
        Alertmanager(folder / "alertmanager", webhook.url) as alertmanager,
        Daemon(tiny, settings=settings) as daemon,
        Prometheus(folder / "prometheus", daemon.metrics_address, alertmanager=alertmanager.address) as prometheus,
    ):
        # A change needs a value from before.
        wait_for("two scrapes", lambda: prometheus.has_values("count_over_time(mnemo_worker_restarts_total[1m]) >= 2"), 30, 0.2)
        assert not webhook.alerts
        yield Chain(daemon, prometheus, webhook)


def crash_worker(daemon: Daemon) -> None:
    """Kills the worker, and waits until another process takes requests."""
    pid = daemon.status().workers[0].pid
    os.kill(pid, signal.SIGKILL)

    def another_is_ready() -> bool:
        worker = daemon.status().workers[0]
        return worker.state == admin_pb2.StatusResponse.STATE_READY and worker.pid != pid

    wait_for("another worker", another_is_ready, 30)


def wait_firing(chain: Chain, name: str) -> dict[str, Any]:
    """The alert as the webhook has it, with all that a person on duty needs."""
    firing = wait_for(f"{name} reaches the webhook", lambda: chain.webhook.find(name, "firing"), 60, 0.2)[0]
    assert firing["labels"]["severity"] == "critical"
    assert firing["labels"]["instance"] == chain.daemon.metrics_address
    summary = firing["annotations"]["summary"]
    assert chain.daemon.metrics_address in summary
    counted = re.search(r"\((\d+) times in 10 minutes\)", summary)
    # Prometheus extrapolates an increase: with few scrapes it is no whole number.
    assert counted and int(counted.group(1)) > 3, summary
    path, anchor = firing["annotations"]["runbook"].split("#")
    titles = re.findall(r"^## (.+)$", (ROOT / "docs" / pathlib.Path(path).name).read_text(), re.MULTILINE)
    assert anchor in {title.lower() for title in titles}
    return dict(firing)


def test_crashes_of_a_worker_reach_the_webhook_and_resolve(chain: Chain) -> None:
    for _ in range(CRASHES):
        crash_worker(chain.daemon)
    firing = wait_firing(chain, "MnemoRestarts")
    assert firing["labels"]["worker"] == "worker0"
    assert not chain.webhook.find("MnemoRestarts", "resolved")

    # The alert looks ten minutes back. The test is not so patient: the same expression looks five seconds back from here on.
    shipped = RULES.read_text()
    shortened = re.sub(r"(increase\(mnemo_\w+_restarts_total)\[10m\]", r"\1[5s]", shipped)
    assert shortened != shipped
    (chain.prometheus.folder / RULES.name).write_text(shortened)
    chain.prometheus.reload()
    resolved = wait_for("the end of the alert reaches the webhook", lambda: chain.webhook.find("MnemoRestarts", "resolved"), 60, 0.2)[0]
    assert resolved["labels"] == firing["labels"]
    # Nothing else was wrong with the node.
    assert {alert["labels"]["alertname"] for alert in chain.webhook.alerts} == {"MnemoRestarts"}


def test_crashes_of_mnemod_reach_the_webhook(chain: Chain) -> None:
    for number in range(1, CRASHES + 1):
        chain.daemon.crash()
        starts = f"changes(mnemo_start_time_seconds[10m]) >= {number}"
        wait_for("a scrape of the new process", lambda starts=starts: chain.prometheus.query(starts), 30, 0.2)
    wait_firing(chain, "MnemoDaemonRestarts")

"""Monitoring of a live node: named metrics in its scrape, data behind each rule and panel in real Prometheus, curves in Chromium."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import harness
import pytest
import yaml
from harness import ROOT, Daemon, pb, process_ended, request, wait_for
from monitoring import DEPLOY, RULES, Browser, Load, Prometheus, load_request, program
from powercap import Meter

# Scraped families of the contract, with the labels of each.
ENERGY_FAMILIES = {
    "mnemo_energy_joules_total": {"device", "kind", "source"},
    "mnemo_energy_use_joules_total": {"device", "use"},
    "mnemo_step_energy_joules_total": {"device", "method", "step"},
    "mnemo_request_energy_joules_bucket": {"le"},
    "mnemo_output_token_energy_joules_bucket": {"le"},
    "mnemo_power_watts": {"device"},
    "mnemo_idle_power_watts": {"device", "origin"},
    "mnemo_energy_meter_up": {"device", "source"},
    "mnemo_energy_samples_dropped_total": {"device", "reason"},
}
# Names programs that begin like metrics.
NO_METRICS = "PERFORMANCE.md"


class Node:
    """mnemod under load on a scripted meter, with a memory service, and Prometheus that has scraped all of it."""

    def __init__(self, daemon: Daemon, prometheus: Prometheus):
        self.daemon = daemon
        self.prometheus = prometheus


def provoke_events(daemon: Daemon) -> None:
    """Causes what load alone does not: a refusal, a failure, a fallback, a restart of each kind and a replay."""
    assert daemon.generate(request([1], max_tokens=-1)).code == harness.Code.INVALID_ARGUMENT
    cancelled = daemon.generation.Generate(request([1], max_tokens=5000, ignore_eos=True))
    next(cancelled)
    cancelled.cancel()
    # In this order: the counters of a worker end with it.
    for kind in ("worker", "memory service"):
        message = load_request(6)
        message.sampling.max_tokens = 6000
        killed: list[int] = []

        def kill(result: harness.Result, kind: str = kind, killed: list[int] = killed) -> None:
            if len(result.tokens) >= 100 and not killed:
                status = daemon.status()
                killed.append(status.workers[0].pid if kind == "worker" else status.memory_services[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        harness.collect(daemon.generation.Generate(message, timeout=60), kill).check_ok()
        wait_for(f"the {kind} has ended", lambda killed=killed: process_ended(killed[0]))
        daemon.wait_workers(1)
        wait_for("the worker is attached", daemon.attached, 30)
    wait_for("a fallback", lambda: re.search(r'mnemo_memory_fallbacks_total\{.*reason="service_lost"\} [1-9]', daemon.metrics()))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    model = harness.tiny_model(folder / "tiny.gguf", layers=4)
    settings = {
        "energy.powercap_root": folder / "powercap",
        "energy.sources": "[rapl]",
        "energy.socket": "",
        "energy.idle_watts": "[cpu0=8, dram0=2]",
        "attention.dense_layers": 0,
        "memory.services": 1,
        # A device that counts its own work.
        "memory.device": "card-model",
        "memory.device_options": '["channels=2"]',
        "memory.restart_backoff_ms": 50,
        "workers.restart_backoff_ms": 50,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(Meter(folder / "powercap", {"package-0": 40, "dram": 10}))
        daemon = stack.enter_context(Daemon(model, settings=settings))
        wait_for("the memory service", daemon.attached, 30)
        prometheus = stack.enter_context(
            Prometheus(folder / "prometheus", daemon.metrics_address, consoles=DEPLOY / "prometheus" / "consoles")
        )
        wait_for("a scrape", lambda: prometheus.has_values("mnemo_ready"), 30, 0.2)
        load = stack.enter_context(Load(daemon))
        provoke_events(daemon)
        # The new worker shows a step of a method from the first such step on.
        load.wait_round()
        # A rate needs two scrapes, and one of a joule two readings of the meter.
        wait_for("joules of requests", lambda: "mnemo_request_energy_joules_count" in daemon.metrics())
        wait_for("a rate of joules", lambda: prometheus.has_values('rate(mnemo_energy_use_joules_total{use="request"}[5m]) > 0'), 30, 0.2)
        yield Node(daemon, prometheus)


def panels() -> list[dict[str, Any]]:
    return list(yaml.safe_load((DEPLOY / "dashboards" / "panels.yaml").read_text())["panels"])


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def sample_names(text: str) -> set[str]:
    """Names of the samples of a scrape, and of the histograms that three of them make."""
    names = set(re.findall(r"^(mnemo_\w+)[{ ]", text, re.MULTILINE))
    return names | set(re.findall(r"^# TYPE (mnemo_\w+) histogram", text, re.MULTILINE))


def named_metrics() -> dict[str, set[str]]:
    """Metrics by the file that names them."""
    files = [RULES, ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(path for path in (ROOT / "docs").glob("*.md") if path.name != NO_METRICS)]
    files += [path for folder in ("dashboards", "grafana", "prometheus/consoles") for path in (DEPLOY / folder).iterdir() if path.is_file()]
    functions = {name for path in (ROOT / "cmake").glob("*.cmake") for name in re.findall(r"function\((mnemo_\w+)", path.read_text())}
    named = {}
    for path in files:
        text = path.read_text()
        # A name with a dot and letters behind it is a file's.
        names = set(re.findall(r"\bmnemo_[a-z0-9_]*[a-z0-9]\b(?!\.[a-z])", text)) - functions
        if names:
            named[str(path.relative_to(ROOT))] = names
    return named


@pytest.fixture(scope="module")
def service_scrape(tiny: pathlib.Path) -> Iterator[str]:
    """The scrape of a memory service that runs alone, with work for it. Its device is one that has counters of its own."""
    with harness.MemoryService("--device=card-model", "--device-option=channels=2") as service:
        settings = {"memory.services": 0, "memory.addresses": f"[unix:{service.socket}]", "attention.dense_layers": 0}
        with Daemon(tiny, settings=settings) as daemon:
            wait_for("the memory service", daemon.attached, 30)
            daemon.generate(load_request(6)).check_ok()
            yield harness.scrape(service.metrics_address)


def test_every_named_metric_is_in_the_live_scrape(node: Node, service_scrape: str) -> None:
    there = sample_names(node.daemon.metrics()) | sample_names(service_scrape)
    named = named_metrics()
    assert {"deploy/prometheus/mnemo.rules.yml", "docs/RUNBOOK.md", "docs/ENERGY.md", "docs/OPERATIONS.md"} <= set(named)
    assert {file: names - there for file, names in named.items() if names - there} == {}


def wait_evaluated(node: Node) -> None:
    wait_for("an evaluation of each rule", lambda: all(rule["health"] == "ok" for rule in node.prometheus.rules()), 30, 0.2)


def test_a_healthy_node_fires_no_alert(node: Node) -> None:
    wait_evaluated(node)
    assert [alert for rule in node.prometheus.rules() for alert in rule.get("alerts", []) if alert["state"] == "firing"] == []


def test_families_of_energy_have_the_labels_of_the_contract(node: Node) -> None:
    text = node.daemon.metrics()
    for family, labels in ENERGY_FAMILIES.items():
        samples = re.findall(rf"^{family}\{{(.*)\}} ", text, re.MULTILINE)
        assert samples, family
        for sample in samples:
            assert set(re.findall(r'(\w+)="', sample)) == labels, family
    # A card's own joules are another family; the node's have them only where a meter reads the card.
    names = {name for name in sample_names(text) if not name.startswith("mnemo_memory_service_")}
    assert {name for name in names if "joule" in name or "watt" in name or "energy" in name} <= {
        name + suffix for family in ENERGY_FAMILIES for name in [family.removesuffix("_bucket")] for suffix in ("", "_bucket", "_count", "_sum")
    }


def test_every_rule_is_evaluated_and_every_recording_rule_has_data(node: Node) -> None:
    wait_evaluated(node)
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert len(recorded) > 8
    for name in recorded:
        wait_for(f"data of {name}", lambda name=name: node.prometheus.has_values(name), 30, 0.2)


def test_every_selector_of_the_alerts_finds_series(node: Node) -> None:
    """An alert whose expression finds nothing is silent for ever: each metric with its labels must find series, also beside the bound."""
    selectors = {s for rule in rules() for s in re.findall(r"\b((?:mnemo_|mnemo:|up\b)[a-z0-9_:]*(?:\{[^}]*\})?)", rule["expr"])}
    assert len(selectors) > 20
    for selector in selectors:
        wait_for(f"series of {selector}", lambda selector=selector: node.prometheus.query(selector), 30, 0.2)
    assert [sample["value"][1] for sample in node.prometheus.query('up{job="mnemo"}')] == ["1"]


def test_every_panel_has_data(node: Node) -> None:
    expressions = [(panel["title"], query["expr"]) for panel in panels() for query in panel["queries"]]
    assert len(expressions) > 60
    for title, template in expressions:
        expression = template.replace("$instance", ".+").replace("$window", "1m")
        wait_for(f"{title}: {expression}", lambda expression=expression: node.prometheus.has_values(expression), 30, 0.2)


def test_fallbacks_are_counted_from_0(node: Node) -> None:
    """An increase is seen by Prometheus only where a count was there before."""
    reasons = {sample["metric"]["reason"]: sample["value"][1] for sample in node.prometheus.query("mnemo_memory_fallbacks_total")}
    assert set(reasons) == {"service_full", "service_incapable", "service_absent", "service_lost", "kv_lost"}
    assert reasons["service_full"] == "0"


def test_the_scrapes_pass_promtool(node: Node, service_scrape: str) -> None:
    for text in (node.daemon.metrics(), service_scrape):
        done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


def test_build_info_is_one_series_that_says_what_runs(node: Node) -> None:
    (sample,) = node.prometheus.query("mnemo_build_info")
    labels = sample["metric"]
    version = subprocess.run([harness.BIN / "mnemod", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert labels["version"] in version and labels["version"]
    assert labels["model"] == node.daemon.model().name
    assert labels["numerics_id"] == node.daemon.model().numerics_id
    assert sample["value"][1] == "1"


def series(text: str) -> set[str]:
    """Names and labels of all samples."""
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line.startswith("mnemo_")}


def odd_requests(marker: str) -> list[pb.GenerateRequest]:
    """Requests with the marker in each text that a client may set; some are refused, some end well."""
    ids = [marker, marker + '"} 1', f"{marker}\n# TYPE mnemo_{marker} counter", f"{marker}\\", f"{marker} é ☃", marker * 50]
    found = []
    for number, request_id in enumerate(ids):
        message = load_request(number) if number % 2 else request(f"{marker} asks", max_tokens=4)
        message.request_id = request_id
        message.sampling.max_tokens = 4
        message.sampling.stop.append(f"{marker} stop")
        message.session_id = f"{marker}-session"
        found.append(message)
    for name in ("model", "request_id", "session_id"):
        message = request(f"{marker} asks", max_tokens=4)
        setattr(message, name, f"{marker} {name}")
        found.append(message)
    unknown = request(marker, max_tokens=4)
    unknown.attention.method = 97  # type: ignore[assignment]
    chat = request(max_tokens=4)
    chat.chat.messages.add(role=f"{marker} role", content=marker)
    return [*found, unknown, chat]


def test_no_label_holds_what_a_client_sends(node: Node) -> None:
    """Series are as many after requests with other ids and texts as before, and none holds a part of them."""

    def send(marker: str) -> int:
        codes = [node.daemon.generate(message).code for message in odd_requests(marker)]
        assert harness.Code.OK in codes and any(code != harness.Code.OK for code in codes)
        return len(codes)

    before = series(node.daemon.metrics())
    assert send("marker1") > 8
    send("marker2")
    text = node.daemon.metrics()
    assert series(text) == before
    assert "marker" not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def open_console(browser: Browser, node: Node, page: str) -> None:
    browser.errors()  # those of the page before
    browser.driver.get(f"{node.prometheus.url}/consoles/{page}?range=5m&refresh=off")
    wait_for("the page has its data", lambda: browser.run("return document.body.dataset.state") != "loading", 30, 0.1)


PAGES = sorted(path.name for path in (DEPLOY / "prometheus" / "consoles").glob("*.html"))
# Texts that stand where a number or a name should.
NO_VALUES = re.compile(r"\bNaN\b|undefined|\bnull\b|\[object|\{\{|<no value>")


@pytest.mark.parametrize("page", PAGES)
def test_chromium_draws_every_panel(node: Node, browser: Browser, page: str) -> None:
    browser.set_width(1200)
    open_console(browser, node, page)
    found = browser.run(
        """
        return [...document.querySelectorAll("article")].map((article) => ({
          title: (article.querySelector("h2 span") || article.querySelector("h2")).textContent,
          state: article.dataset.state,
          isTile: article.classList.contains("tile"),
          value: (article.querySelector(".value") || {}).textContent,
          legends: [...article.querySelectorAll(".legend button span")].map((span) => span.textContent),
          curves: [...article.querySelectorAll("svg path.curve")].map((path) => path.getTotalLength()),
          height: article.getBoundingClientRect().height,
        }));
        """
    )
    expected = [panel for panel in panels() if panel["dashboard"] == page.removesuffix(".html")]
    assert sorted(panel["title"] for panel in found) == sorted(panel["title"] for panel in expected)
    for panel in found:
        assert panel["state"] == "ok", panel
        assert panel["curves"] and max(panel["curves"]) > 0 and panel["height"] > 0, panel
        if panel["isTile"]:
            assert re.search(r"\d", panel["value"]), panel
        else:
            assert panel["legends"] and all(panel["legends"]), panel
    text = browser.run("return document.body.innerText")
    assert not NO_VALUES.search(text), text
    # Messages for the reader: of the whole page, of a tile and of a card.
    messages = browser.run("return [...document.querySelectorAll('#notice, .note, .none, .failed')].filter((e) => !e.hidden).map((e) => e.innerText)")
    assert messages == []
    assert browser.run("return document.body.dataset.state") == "ready"
    assert browser.errors() == []


@pytest.mark.parametrize("page", PAGES)
def test_a_narrow_page_does_not_scroll_sideways(node: Node, browser: Browser, page: str) -> None:
    browser.set_width(400)
    open_console(browser, node, page)
    assert browser.run("return window.innerWidth") == 400
    assert browser.run("return document.documentElement.scrollWidth") <= 400
    # Also no part is cut off at the right.
    wide = browser.run(
        """
        return [...document.querySelectorAll("article, header, h1, h2, svg, button, select")]
          .filter((element) => element.getBoundingClientRect().right > 400.5).map((element) => element.outerHTML.slice(0, 200));
        """
    )
    assert wide == []


def test_pages_follow_the_colours_of_the_system(node: Node, browser: Browser) -> None:
    def brightness(css: str) -> float:
        color = browser.run("return getComputedStyle(document.body)[arguments[0]]", css)
        return sum(float(part) for part in re.findall(r"[\d.]+", color)[:3]) / (3 * 255)

    browser.set_width(1200)
    for scheme, is_dark in (("light", False), ("dark", True)):
        browser.set_scheme(scheme)
        open_console(browser, node, PAGES[0])
        assert (brightness("backgroundColor") < 0.3) == is_dark
        # Text that can be read on it.
        assert abs(brightness("backgroundColor") - brightness("color")) > 0.5


def test_a_card_of_a_service_that_others_run(tiny: pathlib.Path, browser: Browser, tmp_path: pathlib.Path) -> None:
    """mnemod does not know its figures: Prometheus has them from the service, and the pages list it as a node."""
    expressions = [query["expr"] for panel in panels() if panel["dashboard"] == "card" for query in panel["queries"]]
    assert len(expressions) > 15
    with harness.MemoryService("--device=card-model", "--device-option=channels=2") as service:
        settings = {"memory.services": 0, "memory.addresses": f"[unix:{service.socket}]", "attention.dense_layers": 0}
        with (
            Daemon(tiny, settings=settings) as daemon,
            Prometheus(tmp_path, daemon.metrics_address, service.metrics_address, consoles=DEPLOY / "prometheus" / "consoles") as prometheus,
        ):
            wait_for("the memory service", daemon.attached, 30)
            with Load(daemon) as load:
                load.wait_round()
                for template in expressions:
                    expression = template.replace("$instance", re.escape(service.metrics_address).replace("\\", "\\\\")).replace("$window", "1m")
                    wait_for(expression, lambda expression=expression: prometheus.has_values(expression), 30, 0.2)
            assert "mnemo_memory_service_device_" not in daemon.metrics()
            node = Node(daemon, prometheus)
            open_console(browser, node, "card.html")
            choices = browser.run("return [...document.querySelectorAll('#instance option')].map((option) => option.value)")
            assert choices == ["", *sorted([daemon.metrics_address, service.metrics_address])]

            def states() -> list[str]:
                browser.driver.get(f"{prometheus.url}/consoles/card.html?range=5m&refresh=off&instance={service.metrics_address}")
                wait_for("the page has its data", lambda: browser.run("return document.body.dataset.state") != "loading", 30, 0.1)
                return browser.run("return [...document.querySelectorAll('article')].map((article) => article.dataset.state)")

            # A rate needs values at both ends of its window, which a young service may lack: the page is asked again.
            with Load(daemon):
                wait_for("every panel has values", lambda: set(states()) == {"ok"}, 60, 0.5)
            assert browser.errors() == []
            # Its end is told, as that of mnemod is.
            service.end()
            wait_for("the alert is due", lambda: prometheus.query(f'ALERTS{{alertname="MnemoDown",instance="{service.metrics_address}"}}'), 30, 0.2)

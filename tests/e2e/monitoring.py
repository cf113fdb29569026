"""Real Prometheus, Alertmanager and Chromium for tests, and a node under load that they look at."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import yaml
from harness import ROOT, Daemon, free_port, pb, request, wait_for
from selenium import webdriver

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "mnemo.rules.yml"


def program(*names: str) -> str:
    """The path of a program. A machine without it has not run scripts/setup.sh: the test fails."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise AssertionError(f"none of {', '.join(names)} is installed: scripts/setup.sh installs it")


def get(url: str) -> Any:
    """A document in JSON."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as reply:
        return json.load(reply)


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10):
            return True
    except OSError:
        return False


class Server:
    """A program that serves HTTP on the loopback, with its output shown when a test fails inside `with`."""

    def __init__(self, folder: pathlib.Path, name: str, ready: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.ready = ready
        self.output = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes]

    def start(self, command: list[str]) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

        def ready() -> bool:
            assert self.process.poll() is None, f"{command[0]} ended: {self.output.read_text()}"
            return answers(self.url + self.ready)

        wait_for(command[0], ready, 30, 0.1)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            print(f"--- {self.output.name}\n{self.output.read_text(errors='replace')[-4000:]}\n---", file=sys.stderr)
        self.process.terminate()
        self.process.wait(20)


class Prometheus(Server):
    """Prometheus that scrapes mnemod and services, as the job "mnemo", and evaluates the rules once a second."""

    def __init__(self, folder: pathlib.Path, *targets: str, alertmanager: str | None = None, consoles: pathlib.Path | None = None):
        super().__init__(folder, "prometheus", "/-/ready")
        self.consoles = consoles
        shutil.copy(RULES, folder / RULES.name)
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [RULES.name],
            "scrape_configs": [{"job_name": "mnemo", "static_configs": [{"targets": list(targets)}]}],
        }
        if alertmanager is not None:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        command = [program("prometheus"), f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data"]
        command += [f"--web.listen-address={self.address}", "--web.enable-lifecycle", "--log.level=warn"]
        if self.consoles is not None:
            command += [f"--web.console.templates={self.consoles}", f"--web.console.libraries={self.consoles}/lib"]
        self.start(command)
        return self

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of an instant vector: "metric" has the labels, "value" time and value."""
        reply = get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert reply["status"] == "success", reply
        return list(reply["data"]["result"])

    def has_values(self, expression: str) -> bool:
        """True when there is at least one sample, and one that is a number."""
        return any(not math.isnan(float(sample["value"][1])) for sample in self.query(expression))

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in get(f"{self.url}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]

    def reload(self) -> None:
        """Reads its files again."""
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(f"{self.url}/-/reload", method="POST"), timeout=10
        ).close()


class Webhook:
    """Receiver of alerts: a server that keeps the messages of Alertmanager."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.alerts.extend(body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/alerts"

    def __enter__(self) -> Webhook:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    def find(self, name: str, status: str) -> list[dict[str, Any]]:
        return [alert for alert in self.alerts if alert["labels"]["alertname"] == name and alert["status"] == status]


class Alertmanager(Server):
    """Alertmanager that hands each alert to one webhook at once."""

    def __init__(self, folder: pathlib.Path, webhook: str):
        super().__init__(folder, "alertmanager", "/-/ready")
        config = {
            "route": {"receiver": "webhook", "group_by": ["alertname", "instance"], "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "webhook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
        }
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Alertmanager:
        command = [program("prometheus-alertmanager", "alertmanager"), f"--config.file={self.folder}/alertmanager.yml"]
        command += [f"--storage.path={self.folder}/data", f"--web.listen-address={self.address}", "--cluster.listen-address="]
        self.start(command)
        return self


class Browser:
    """Chromium without a window, driven by its WebDriver."""

    def __init__(self, folder: pathlib.Path):
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        # Root, who builds in containers, cannot have Chromium's sandbox. The pages are our own.
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(program("chromedriver")))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: Any) -> None:
        self.driver.quit()

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs a script in the page, and returns its result."""
        return self.driver.execute_script(script, *arguments)

    def set_width(self, pixels: int) -> None:
        metrics = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def set_scheme(self, scheme: str) -> None:
        """The colours that the system wants: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def errors(self) -> list[str]:
        """Messages of the console that are errors, since the last call. A page without an icon is none."""
        entries = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [entry["message"] for entry in entries if "favicon.ico" not in entry["message"]]


METHODS = ("DENSE", "TOKEN_TOPK", "CASCADE", "PAGE_BOUND", "BLOCK_MEAN")


def load_request(number: int) -> pb.GenerateRequest:
    """Prompts that share a beginning, so that the prefix cache has hits; every method, in the worker and in the memory service."""
    message = request([1 + i * i % 250 for i in range(600)] + [1 + number % 250] * 40, max_tokens=60, ignore_eos=True)
    method = METHODS[number % len(METHODS)]
    if method != "DENSE":
        message.attention.method = pb.AttentionMethod.Value(f"ATTENTION_METHOD_{method}")
        message.attention.token_budget = 256
        places = (pb.PLACEMENT_WORKER, pb.PLACEMENT_MEMORY_SERVICE)
        message.attention.placement = places[number // len(METHODS) % 2]
    return message


class Load:
    """Requests without an end, one after another, with a pause between them: the machine has other work."""

    def __init__(self, daemon: Daemon, pause_s: float = 0.1):
        self.daemon = daemon
        self.pause_s = pause_s
        self.done = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self.stop.wait(self.pause_s):
            result = self.daemon.generate(load_request(number))
            self.done += result.code == grpc.StatusCode.OK
            number += 1

    def __enter__(self) -> Load:
        self.thread.start()
        self.wait_round()
        return self

    def wait_round(self) -> None:
        """Until a request of each kind has begun and ended after this call."""
        # One that began before may end first.
        goal = self.done + 2 * len(METHODS) + 1
        wait_for("a request of each kind", lambda: self.done >= goal, 60)

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.thread.join()

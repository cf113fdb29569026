"""Dashboards: the generated files are current, their metrics exist, promtool parses each expression, mistakes are named."""

from __future__ import annotations

import copy
import html.parser
import http.server
import importlib.util
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models import dashboard as grafana_models
from test_rules import ROOT, promtool, samples

DEPLOY = ROOT / "deploy"


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("make_dashboards", DEPLOY / "dashboards/make_dashboards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generator = load_generator()
DOCUMENT = generator.load()
EXPRESSIONS = [query["expr"] for panel in DOCUMENT["panels"] for query in panel["queries"]]


def boards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))}


class Page(html.parser.HTMLParser):
    """The data, the links and the addresses of a console page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.data = ""
        self.is_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.is_data = named.get("id") == "panels"
        if tag == "a":
            self.links.append(named["href"] or "")
        self.sources += [named[name] or "" for name in ("src", "srcset", "data") if name in named]
        if tag == "link":
            self.sources.append(named["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.is_data = False

    def handle_data(self, data: str) -> None:
        if self.is_data:
            self.data += data


def pages() -> dict[str, Page]:
    return {path.stem: Page(path.read_text()) for path in sorted((DEPLOY / "prometheus/consoles").glob("*.html"))}


def test_generated_files_are_current() -> None:
    assert generator.stale() == [], "run deploy/dashboards/make_dashboards.py"


def test_every_dashboard_has_panels_of_its_subject() -> None:
    names = {dashboard["name"] for dashboard in DOCUMENT["dashboards"]}
    assert names == {"overview", "latency", "memory", "card", "energy"}
    assert set(boards()) == {f"mnemo-{name}" for name in names} and set(pages()) == names
    for name in names:
        kinds = [panel["kind"] == "value" for panel in DOCUMENT["panels"] if panel["dashboard"] == name]
        assert any(kinds) and not all(kinds), name


def test_metrics_are_in_the_table() -> None:
    named = {name for expr in EXPRESSIONS for name in re.findall(r"\bmnemo_[a-z0-9_]+", expr)}
    assert len(named) > 30
    assert not named - samples()
    # Recorded series would be missing where the rules are not loaded.
    assert not [expr for expr in EXPRESSIONS if "mnemo:" in expr]


def test_every_selector_has_the_chosen_nodes() -> None:
    for expr in EXPRESSIONS:
        selectors = re.findall(r'mnemo_[a-z0-9_]+(\{(?:[^"}]|"[^"]*")*\})?', expr)
        assert selectors and all('instance=~"$instance"' in selector for selector in selectors), expr
        windows = set(re.findall(r"\[([^\]]+)\]", expr))
        assert windows <= {"$window", "1h"}, expr


def test_promtool_parses_every_expression(tmp_path: pathlib.Path) -> None:
    rules = []
    for i, expr in enumerate(EXPRESSIONS):
        rules.append({"record": f"panel:{i}", "expr": expr.replace("$instance", ".+").replace("$window", "1m")})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yml", folder=tmp_path)


def test_legends_name_labels_of_their_result() -> None:
    """Every label of a legend is one that the expression keeps: of its outer `by`, or of the metric itself."""
    for panel in DOCUMENT["panels"]:
        for query in panel["queries"]:
            kept = re.findall(r"\bby \(([^)]*)\)", query["expr"])
            for label in re.findall(r"\{(\w+)\}", query["legend"]):
                assert not kept or any(label in labels.replace(" ", "").split(",") for labels in kept), (panel["title"], label)


def test_grafana_has_every_panel_with_variables() -> None:
    for dashboard in DOCUMENT["dashboards"]:
        board = boards()[f"mnemo-{dashboard['name']}"]
        expected = [panel for panel in DOCUMENT["panels"] if panel["dashboard"] == dashboard["name"]]
        assert sorted(panel["title"] for panel in board["panels"]) == sorted(panel["title"] for panel in expected)
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance"]
        assert "id" not in board and board["uid"] == f"mnemo-{dashboard['name']}"
        identifiers = [panel["id"] for panel in board["panels"]]
        assert len(set(identifiers)) == len(identifiers)
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == "${datasource}" and panel["description"]
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
            taken |= cells
            for target in panel["targets"]:
                assert "$window" not in target["expr"] and not re.search(r"(?<!\{)\{\w+\}(?!\})", target["legendFormat"])


def lost(before: Any, after: Any, path: str) -> list[str]:
    """Paths of what is in `before` and not, or not the same, in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [found for key in before for found in lost(before[key], after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [found for i, pair in enumerate(zip(before, after)) for found in lost(*pair, f"{path}[{i}]")]
    return [] if before == after else [path]


def through_grafana(board: dict[str, Any]) -> Any:
    """The dashboard as Grafana's own classes read and write it: a field that they do not know is gone."""
    return json.loads(encoder.JSONEncoder().encode(grafana_models.Dashboard.from_json(board)))


def test_grafana_knows_every_field() -> None:
    plugins.register_default_plugins()
    for name, board in boards().items():
        assert lost(board, through_grafana(board), name) == []
    # The classes know options of panels and queries too.
    board = next(iter(boards().values()))
    board["titel"] = board["panels"][0]["targets"][0]["legend"] = board["panels"][-1]["options"]["legends"] = "x"
    board["panels"][-1]["fieldConfig"]["defaults"]["custom"]["lineWith"] = 2
    assert len(lost(board, through_grafana(board), "")) == 4


def test_consoles_need_nothing_from_elsewhere() -> None:
    names = [dashboard["name"] for dashboard in DOCUMENT["dashboards"]]
    for name, page in pages().items():
        assert page.links == [f"{other}.html" for other in names] and page.sources == []
        text = (DEPLOY / "prometheus/consoles" / f"{name}.html").read_text()
        # The one address is the name of SVG's namespace, which nobody fetches.
        assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
        assert "{{" not in text and "innerHTML" not in text and "url(" not in text and "@import" not in text
        data = json.loads(page.data)
        assert [panel["queries"] for panel in data["panels"]] == [p["queries"] for p in DOCUMENT["panels"] if p["dashboard"] == name]


MISTAKES = [
    (lambda d: d["panels"][0].update(unit="furlongs"), r"panels\[0\] \(Ready workers\): unit is 'furlongs'; allowed: seconds, "),
    (lambda d: d["panels"][0].update(kind="pie"), r"panels\[0\] \(Ready workers\): kind is 'pie'; allowed: value, lines, stack"),
    (lambda d: d["panels"][1].update(dashboard="none"), r"panels\[1\] \(Output\): dashboard is 'none'; allowed: overview, "),
    (lambda d: d["panels"][1].pop("help"), r"panels\[1\]: help is missing"),
    (lambda d: d["panels"][1].update(helps="x"), r"panels\[1\]: helps is unknown"),
    (lambda d: d["panels"][1].update(queries=[]), r"panels\[1\]: queries has a value of another type, or none"),
    (lambda d: d["panels"][1]["queries"].append(d["panels"][1]["queries"][0]), r"queries of a value is one query"),
    (lambda d: d["panels"][1]["queries"][0].pop("legend"), r"queries\[0\]: legend is missing"),
    (lambda d: d["panels"].append(d["panels"][0]), r"title is there twice in overview"),
    (lambda d: d["dashboards"][0].update(name="A b"), r"dashboards\[0\]: name is not of"),
    (lambda d: d["dashboards"].append({"name": "x", "title": "X", "help": "x"}), r"dashboards: x has no panel"),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
def test_a_mistake_is_named(spoil: Any, message: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    spoil(document)
    with pytest.raises(generator.PanelError, match=message):
        generator.check(document)


class Exposition(http.server.BaseHTTPRequestHandler):
    """A daemon of two metrics."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b'mnemo_ready 1\nmnemo_worker_ready{worker="worker0"} 1\n')

    def log_message(self, *arguments: Any) -> None:
        pass


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def lines(text: str) -> list[str]:
    """Lines but for comments of JavaScript, which Go's templates leave out."""
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]


def test_the_script_serves_the_pages_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    daemon = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exposition)
    threading.Thread(target=daemon.serve_forever, daemon=True).start()
    target = f"127.0.0.1:{daemon.server_port}"
    script = subprocess.Popen(
        [ROOT / "scripts/dashboard.sh", target], stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    try:
        assert script.stderr is not None
        told = script.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/consoles/overview\.html", told)
        assert found, told + script.stderr.read()
        origin = f"http://127.0.0.1:{found[1]}"
        for name in pages():
            served = get(f"{origin}/consoles/{name}.html")
            assert lines(served) == lines((DEPLOY / "prometheus/consoles" / f"{name}.html").read_text())
        panel = next(panel for panel in DOCUMENT["panels"] if panel["title"] == "Ready workers")
        expr = panel["queries"][0]["expr"].replace("$instance", re.escape(target).replace("\\", "\\\\"))
        result = []
        for _ in range(600):
            result = json.loads(get(f"{origin}/api/v1/query?" + urllib.parse.urlencode({"query": expr})))["data"]["result"]
            if result:
                break
            time.sleep(0.1)
        assert [value["value"][1] for value in result] == ["1"]
        rules = json.loads(get(f"{origin}/api/v1/rules"))["data"]["groups"]
        assert {group["name"] for group in rules} == {"mnemo-limits", "mnemo-recording", "mnemo-alerts"}
    finally:
        script.send_signal(signal.SIGTERM)
        assert script.wait(timeout=60) == 143
        daemon.shutdown()
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(found[1]))) != 0, "Prometheus still listens"


def test_the_script_names_a_wrong_address() -> None:
    done = subprocess.run([ROOT / "scripts/dashboard.sh", 'a"b:1'], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, 'dashboard.sh: not HOST:PORT: a"b:1\n')

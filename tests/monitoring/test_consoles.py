"""Console pages in a browser, before a Prometheus of this test: what they draw, ask and say; their colours, by WCAG's formula."""

from __future__ import annotations

import dataclasses
import html.parser
import http.server
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_dashboards import DEPLOY, DOCUMENT, pages

CHROMIUM = shutil.which("chromium")
HOSTILE = "<img src=x onerror=document.body.dataset.owned=1>"

Answer = Callable[[str, dict[str, str]], tuple[int, Any]]


def success(data: Any) -> tuple[int, Any]:
    return 200, {"status": "success", "data": data}


def matrix(value: float, *labels: dict[str, str]) -> Answer:
    """Answers of a Prometheus that has one node; every query gives curves with the labels, of one value."""

    def answer(path: str, asked: dict[str, str]) -> tuple[int, Any]:
        if path.endswith("/values"):
            return success(["node:1"])
        start, end, step = (int(asked[name]) for name in ("start", "end", "step"))
        samples = [[time, str(value)] for time in range(start, end + 1, step)]
        return success({"resultType": "matrix", "result": [{"metric": metric, "values": samples} for metric in labels]})

    return answer


class Prometheus(http.server.ThreadingHTTPServer):
    """Serves the console pages below /prom, and the API as `answer` says; `asked` has every request of the API."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = matrix(1)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.strays: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Prometheus

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        parameters = dict(urllib.parse.parse_qsl(url.query))
        if url.path.startswith("/prom/api/v1/"):
            self.server.asked.append((url.path, parameters))
            status, body = self.server.answer(url.path, parameters)
            self.send(status, "application/json", body if isinstance(body, str) else json.dumps(body))
        elif url.path.startswith("/prom/consoles/"):
            self.send(200, "text/html", (DEPLOY / "prometheus/consoles" / pathlib.Path(url.path).name).read_text())
        elif url.path == "/narrow":
            # A window has a least width; a frame does not.
            frame = f'<iframe id="f" width="400" height="4000" src="/prom/consoles/{parameters["page"]}.html?refresh=off"></iframe>'
            read = "document.body.dataset.width = f.contentDocument.documentElement.scrollWidth"
            self.send(200, "text/html", f"<!DOCTYPE html><body>{frame}<script>setTimeout(() => {{ {read} }}, 5000)</script>")
        else:
            self.server.strays.append(self.path)
            self.send(404, "text/plain", "")

    def send(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@dataclasses.dataclass
class Article:
    kind: str
    state: str
    title: str = ""
    text: str = ""
    curves: int = 0


class Drawn(html.parser.HTMLParser):
    """The content of a page: its tiles and cards, its notice, tags and attributes of the body."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.articles: list[Article] = []
        self.body: dict[str, str | None] = {}
        self.notice = ""
        self.targets = ""
        self.tags: set[str] = set()
        self.where = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.add(tag)
        if tag == "body":
            self.body = named
        elif tag == "article":
            self.articles.append(Article((named["class"] or "").split()[0], named["data-state"] or ""))
        elif tag == "path" and named.get("class") == "curve" and self.articles:
            self.articles[-1].curves += 1
        elif tag == "a" and self.where == "notice":
            self.targets = named["href"] or ""
        if tag == "h2" or named.get("id") == "notice":
            self.where = named.get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "div"):
            self.where = ""

    def handle_data(self, data: str) -> None:
        if self.where == "notice":
            self.notice += data
        elif self.articles:
            if self.where == "h2" and self.articles[-1].title == "":
                self.articles[-1].title = data
            self.articles[-1].text += data

    def article(self, kind: str, title: str) -> Article:
        (found,) = [one for one in self.articles if (one.kind, one.title) == (kind, title)]
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    made = Prometheus()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def draw(server: Prometheus, tmp_path: pathlib.Path) -> Callable[[str, Answer], Drawn]:
    assert CHROMIUM is not None, "chromium is not installed; scripts/setup.sh installs it"

    def drawn(path: str, answer: Answer) -> Drawn:
        server.answer = answer
        server.asked.clear()
        server.strays.clear()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path}", "--window-size=1280,900"]
        done = subprocess.run(
            [CHROMIUM, *options, "--virtual-time-budget=10000", "--dump-dom", f"http://127.0.0.1:{server.server_port}{path}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert set(server.strays) <= {"/favicon.ico"}, "a page asks for the API below its own path alone"
        return Drawn(done.stdout)

    return drawn


@pytest.mark.parametrize("name", [dashboard["name"] for dashboard in DOCUMENT["dashboards"]])
def test_every_panel_is_drawn(name: str, draw: Callable[[str, Answer], Drawn]) -> None:
    shown = draw(f"/prom/consoles/{name}.html?refresh=off", matrix(0.25, {}))
    assert shown.body["data-state"] == "ready" and shown.notice == ""
    panels = [panel for panel in DOCUMENT["panels"] if panel["dashboard"] == name]
    assert len(shown.articles) == len(panels)
    texts = {"seconds": "250 ms", "ratio": "25 %", "watts": "250 mW", "joules": "250 mJ", "bytes": "0.25 B", "count": "0.25"}
    for panel in panels:
        kind = "tile" if panel["kind"] == "value" else "card"
        article = shown.article(kind, panel["title"])
        assert (article.state, article.curves) == ("ok", len(panel["queries"])), panel["title"]
        expected = texts.get(panel["unit"], "0.25")
        spaces = str.maketrans({"\u00a0": "", "\u2009": "", " ": ""})
        assert expected.translate(spaces) in article.text.translate(spaces), panel["title"]


@pytest.mark.parametrize(("value", "marks"), [(0, {"Ready workers": "low"}), (6, {"First token, 95 %": "high", "Refused or failed": "high"})])
def test_a_value_beyond_its_bound_is_marked(value: float, marks: dict[str, str], draw: Callable[[str, Answer], Drawn]) -> None:
    shown = draw("/prom/consoles/overview.html?refresh=off", matrix(value, {}))
    found = {one.title: mark[1] for one in shown.articles if (mark := re.search("\u26a0 (low|high)", one.text))}
    assert found == marks


def test_labels_are_text(draw: Callable[[str, Answer], Drawn]) -> None:
    shown = draw("/prom/consoles/overview.html?refresh=off", matrix(1, {"worker": HOSTILE, "instance": "node:1"}))
    assert HOSTILE in shown.article("card", "KV pages in use").text
    assert "data-owned" not in shown.body and "img" not in shown.tags


def test_a_failed_query_is_named_with_prometheus_message(draw: Callable[[str, Answer], Drawn]) -> None:
    good = matrix(1, {})

    def answer(path: str, asked: dict[str, str]) -> tuple[int, Any]:
        if "mnemo_connections" in asked.get("query", ""):
            return 422, {"status": "error", "errorType": "execution", "error": "too <b>many</b> samples"}
        return good(path, asked)

    shown = draw("/prom/consoles/overview.html?refresh=off", answer)
    card = shown.article("card", "Connections")
    assert card.state == "error" and "execution: too <b>many</b> samples" in card.text
    assert 'sum(mnemo_connections{instance=~".+"})' in card.text
    assert shown.body["data-state"] == "error"
    assert [one.title for one in shown.articles if one.state != "ok"] == ["Connections"]


def test_nothing_recorded_is_said(draw: Callable[[str, Answer], Drawn]) -> None:
    def answer(path: str, asked: dict[str, str]) -> tuple[int, Any]:
        return success([] if path.endswith("/values") else {"resultType": "matrix", "result": []})

    shown = draw("/prom/consoles/energy.html?refresh=off", answer)
    assert "no metrics of mnemo" in shown.notice and shown.targets == "/prom/targets"
    assert {one.state for one in shown.articles} == {"empty"} and not any(one.curves for one in shown.articles)
    empty = next(dashboard["empty"] for dashboard in DOCUMENT["dashboards"] if dashboard["name"] == "energy")
    assert empty in shown.article("card", "Power by device").text


def test_a_quantile_of_nothing_is_no_data(draw: Callable[[str, Answer], Drawn]) -> None:
    shown = draw("/prom/consoles/latency.html?refresh=off", matrix(float("nan"), {}))
    assert {one.state for one in shown.articles} == {"empty"}


def test_a_proxy_without_json_is_said(draw: Callable[[str, Answer], Drawn]) -> None:
    shown = draw("/prom/consoles/memory.html?refresh=off", lambda path, asked: (502, "<h1>Bad gateway</h1>"))
    assert shown.notice == "Prometheus answers with status 502 and no JSON"
    assert {one.state for one in shown.articles} == {"error"}


def test_range_and_node_are_asked_for(server: Prometheus, draw: Callable[[str, Answer], Drawn]) -> None:
    node = 'a.b|c"d:1'
    draw("/prom/consoles/overview.html?" + urllib.parse.urlencode({"refresh": "off", "range": "6h", "instance": node}), matrix(1, {}))
    queries = [asked for path, asked in server.asked if path.endswith("/query_range")]
    assert len(queries) == sum(len(panel["queries"]) for panel in DOCUMENT["panels"] if panel["dashboard"] == "overview")
    for asked in queries:
        assert int(asked["end"]) - int(asked["start"]) == 6 * 3600 and int(asked["step"]) == 90
        assert 'instance=~"a\\\\.b\\\\|c\\"d:1"' in asked["query"] and "$" not in asked["query"]
        assert set(re.findall(r"\[(\w+)\]", asked["query"])) <= {"113s"}


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_narrow_page_does_not_scroll_sideways(name: str, draw: Callable[[str, Answer], Drawn]) -> None:
    labels = [{"step": step, "device": "memory0:cpu", "worker": "worker0"} for step in ("prepare", "relevancy", "retrieval", "apply")]
    shown = draw(f"/narrow?page={name}", matrix(123456.789, *labels))
    assert shown.body["data-width"] == "400"


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_curves_have_enough_contrast() -> None:
    css = (DEPLOY / "dashboards/console.css").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", css)]
    assert len(themes) == 2
    for theme in themes:
        texts = [("text", "card"), ("text", "page"), ("soft", "card"), ("soft", "page"), ("accent", "card"), ("accent", "accent-soft")]
        texts += [("bad", "bad-soft"), ("bad", "card"), ("text", "bad-soft")]
        curves = [(f"c{i}", "card") for i in range(8)]
        low = {pair: contrast(theme[pair[0]], theme[pair[1]]) for pair in itertools.chain(texts, curves)}
        assert not {pair: ratio for pair, ratio in low.items() if ratio < (3 if pair in curves else 4.5)}

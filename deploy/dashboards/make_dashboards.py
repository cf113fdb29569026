#!/usr/bin/env python3
"""Writes Grafana's dashboards and Prometheus's console templates from panels.yaml.

usage: deploy/dashboards/make_dashboards.py [--check]
--check writes nothing: it names the files that differ from what would be written, and ends with 1 if there are any.
"""

from __future__ import annotations

import html
import json
import pathlib
import re
import sys
from typing import Any

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent
DEPLOY = FOLDER.parent
UNITS = {
    "seconds": "s",
    "tokens_per_second": "suffix: tokens/s",
    "requests_per_second": "reqps",
    "per_minute": "suffix: /min",
    "ratio": "percentunit",
    "bytes": "bytes",
    "bytes_per_second": "binBps",
    "watts": "watt",
    "joules": "joule",
    "tokens": "short",
    "count": "short",
}
KINDS = ("value", "lines", "stack")
# Series that each mnemod has, and each memory service that is scraped itself.
NODES = '{__name__=~"mnemo_ready|mnemo_memory_service_device_info"}'
# Required and optional fields with their types.
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dashboards": ({"name": str, "title": str, "help": str}, {"empty": str}),
    "panels": (
        {"dashboard": str, "kind": str, "title": str, "unit": str, "help": str, "queries": list},
        {"above": (int, float), "below": (int, float), "empty": str, "order": list},
    ),
    "queries": ({"expr": str, "legend": str}, {}),
}


class PanelError(ValueError):
    """A mistake in panels.yaml; the text names the entry and the field."""


def check_fields(entry: Any, where: str, kind: str) -> None:
    required, optional = FIELDS[kind]
    if not isinstance(entry, dict):
        raise PanelError(f"{where} is no mapping")
    for name in entry:
        if name not in required and name not in optional:
            raise PanelError(f"{where}: {name} is unknown; allowed: {', '.join([*required, *optional])}")
    for name, types in {**required, **optional}.items():
        if name not in entry:
            if name in required:
                raise PanelError(f"{where}: {name} is missing")
        elif not isinstance(entry[name], types) or entry[name] in ("", []):
            raise PanelError(f"{where}: {name} has a value of another type, or none")


def check(document: Any) -> None:
    """Raises PanelError unless the document is a list of panels as the head of panels.yaml describes it."""
    if not isinstance(document, dict) or set(document) != {"dashboards", "panels"}:
        raise PanelError("panels.yaml: its keys are dashboards and panels")
    for i, dashboard in enumerate(document["dashboards"]):
        check_fields(dashboard, f"dashboards[{i}]", "dashboards")
        if not re.fullmatch("[a-z][a-z0-9_]*", dashboard["name"]):
            raise PanelError(f"dashboards[{i}]: name is not of a-z, 0-9 and _")
    names = [dashboard["name"] for dashboard in document["dashboards"]]
    seen = set()
    for i, panel in enumerate(document["panels"]):
        where = f"panels[{i}]"
        check_fields(panel, where, "panels")
        where += f" ({panel['title']})"
        for name, allowed in (("dashboard", names), ("kind", KINDS), ("unit", UNITS)):
            if panel[name] not in allowed:
                raise PanelError(f"{where}: {name} is {panel[name]!r}; allowed: {', '.join(allowed)}")
        for j, query in enumerate(panel["queries"]):
            check_fields(query, f"{where}: queries[{j}]", "queries")
        if panel["kind"] == "value" and len(panel["queries"]) != 1:
            raise PanelError(f"{where}: queries of a value is one query")
        if panel["kind"] != "value" and ("above" in panel or "below" in panel):
            raise PanelError(f"{where}: above and below are for values")
        key = (panel["dashboard"], panel["kind"] == "value", panel["title"])
        if key in seen:
            raise PanelError(f"{where}: title is there twice in {panel['dashboard']}")
        seen.add(key)
    for name in names:
        if not any(panel["dashboard"] == name for panel in document["panels"]):
            raise PanelError(f"dashboards: {name} has no panel")


def load() -> dict[str, Any]:
    try:
        document: dict[str, Any] = yaml.safe_load((FOLDER / "panels.yaml").read_text())
    except yaml.YAMLError as error:
        raise PanelError(f"panels.yaml: {error}") from error
    check(document)
    return document


def panels_of(document: dict[str, Any], dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Panels of one dashboard, in order, with the dashboard's text for the lack of data where they have none."""
    panels = [panel for panel in document["panels"] if panel["dashboard"] == dashboard["name"]]
    return [{"empty": dashboard["empty"], **panel} if "empty" in dashboard else panel for panel in panels]


def grafana_thresholds(panel: dict[str, Any]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "red" if "below" in panel else "text", "value": None}]
    if "below" in panel:
        steps.append({"color": "text", "value": panel["below"]})
    if "above" in panel:
        steps.append({"color": "red", "value": panel["above"]})
    return {"mode": "absolute", "steps": steps}


def grafana_panel(panel: dict[str, Any], identifier: int, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    defaults: dict[str, Any] = {"unit": UNITS[panel["unit"]], "min": 0}
    options: dict[str, Any]
    if panel["kind"] == "value":
        defaults |= {"thresholds": grafana_thresholds(panel), "color": {"mode": "thresholds"}}
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "value",
        }
    else:
        is_stack = panel["kind"] == "stack"
        defaults |= {
            "color": {"mode": "palette-classic"},
            "custom": {
                "drawStyle": "line",
                "lineWidth": 1 if is_stack else 2,
                "fillOpacity": 50 if is_stack else 8,
                "showPoints": "auto",
                "spanNulls": False,
                "stacking": {"mode": "normal" if is_stack else "none", "group": "A"},
            },
        }
        options = {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "none"},
        }
    if "empty" in panel:
        defaults["noValue"] = panel["empty"]
    targets = [
        {
            "refId": chr(ord("A") + i),
            "datasource": source,
            "expr": query["expr"].replace("$window", "$__rate_interval"),
            "legendFormat": re.sub(r"\{(\w+)\}", r"{{\1}}", query["legend"]),
            "range": True,
        }
        for i, query in enumerate(panel["queries"])
    ]
    return {
        "id": identifier,
        "type": "stat" if panel["kind"] == "value" else "timeseries",
        "title": panel["title"],
        "description": panel["help"],
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def grafana(document: dict[str, Any], dashboard: dict[str, Any]) -> str:
    panels = panels_of(document, dashboard)
    values = [panel for panel in panels if panel["kind"] == "value"]
    curves = [panel for panel in panels if panel["kind"] != "value"]
    width = 24 // max(len(values), 1)
    places = [{"x": width * i, "y": 0, "w": width, "h": 4} for i in range(len(values))]
    places += [{"x": 12 * (i % 2), "y": 4 + 8 * (i // 2), "w": 12, "h": 8} for i in range(len(curves))]
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1},
        {
            "name": "instance",
            "label": "Node",
            "type": "query",
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": f"label_values({NODES}, instance)", "refId": "instance"},
            "refresh": 2,
            "sort": 1,
            "includeAll": True,
            "multi": True,
            "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        },
    ]
    board = {
        "uid": f"mnemo-{dashboard['name']}",
        "title": f"mnemo: {dashboard['title']}",
        "description": dashboard["help"],
        "tags": ["mnemo"],
        "schemaVersion": 36,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": variables},
        "links": [
            {
                "title": "mnemo",
                "type": "dashboards",
                "tags": ["mnemo"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "icon": "external link",
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {"list": []},
        "panels": [grafana_panel(panel, i + 1, place) for i, (panel, place) in enumerate(zip([*values, *curves], places))],
    }
    return json.dumps(board, indent=2) + "\n"


def console(document: dict[str, Any], dashboard: dict[str, Any]) -> str:
    # "<" is escaped, so that no text ends the script element.
    panels = [{key: panel[key] for key in panel if key != "dashboard"} for panel in panels_of(document, dashboard)]
    data = {"dashboard": dashboard["name"], "panels": panels}
    links = "\n".join(
        f'        <a href="{other["name"]}.html"{" aria-current=" + chr(34) + "page" + chr(34) if other is dashboard else ""}>'
        f"{html.escape(other['title'])}</a>"
        for other in document["dashboards"]
    )
    parts = {
        "TITLE": html.escape(dashboard["title"]),
        "HELP": html.escape(dashboard["help"]),
        "LINKS": links.strip(),
        "PANELS": json.dumps(data, indent=1).replace("<", "\\u003c"),
        "STYLE": (FOLDER / "console.css").read_text().strip(),
        "SCRIPT": (FOLDER / "console.js").read_text().strip(),
    }
    page = re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], (FOLDER / "console.html").read_text())
    if "{{" in page:
        raise PanelError(f"{dashboard['name']}.html: two opening braces in a row begin an action of Go's templates")
    return page


def made() -> dict[pathlib.Path, str]:
    """Text of every generated file by its path."""
    document = load()
    files = {}
    for dashboard in document["dashboards"]:
        name = dashboard["name"]
        files[DEPLOY / "grafana" / f"mnemo-{name}.json"] = grafana(document, dashboard)
        files[DEPLOY / "prometheus/consoles" / f"{name}.html"] = console(document, dashboard)
    return files


def stale() -> list[pathlib.Path]:
    """Files that are missing, differ, or that no dashboard has any more."""
    files = made()
    there = {*(DEPLOY / "grafana").glob("*"), *(DEPLOY / "prometheus/consoles").glob("*")}
    differ = {path for path, text in files.items() if not path.is_file() or path.read_text() != text}
    return sorted(differ | (there - set(files)))


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    try:
        old = stale()
        if arguments:
            for path in old:
                print(f"{path.relative_to(DEPLOY.parent)} is not what make_dashboards.py writes", file=sys.stderr)
            return 1 if old else 0
        files = made()
        for path in old:
            if path in files:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(files[path])
            else:
                path.unlink()
    except PanelError as error:
        print(f"make_dashboards.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

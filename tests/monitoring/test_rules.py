"""Rules, alerts and scrape examples, checked by promtool; every alert has its section in the runbook."""

from __future__ import annotations

import pathlib
import re
import subprocess
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"


def promtool(*arguments: str | pathlib.Path, folder: pathlib.Path = DEPLOY) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "mnemo.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def anchors() -> set[str]:
    titles = re.findall(r"^## (.+)$", (ROOT / "docs" / "RUNBOOK.md").read_text(), re.MULTILINE)
    return {title.lower().replace(" ", "-") for title in titles}


def test_rules_and_scrape_examples_are_valid() -> None:
    promtool("check", "rules", "--lint=all", "mnemo.rules.yml")
    for example in DEPLOY.glob("prometheus-*.yml"):
        promtool("check", "config", example.name)


def test_alerts_fire_stay_silent_and_resolve() -> None:
    promtool("test", "rules", "mnemo.rules.test.yml", folder=pathlib.Path(__file__).parent)


def test_every_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load((pathlib.Path(__file__).parent / "mnemo.rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    resolves = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == resolves == set(alerts())


def test_every_alert_has_summary_severity_and_runbook() -> None:
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert alert["annotations"]["summary"], name
        path, anchor = alert["annotations"]["runbook"].split("#")
        assert path == "/usr/share/doc/mnemo/RUNBOOK.md" and anchor in anchors(), name
    assert anchors() == {name.lower() for name in alerts()}


def table() -> dict[str, str]:
    """Types of all metrics by name."""
    return dict(re.findall(r"^\| `(mnemo_\w+)` \| (\w+) ", (ROOT / "docs" / "METRICS.md").read_text(), re.MULTILINE))


def samples() -> set[str]:
    endings = {"histogram": ("_bucket", "_count", "_sum")}
    return {name + ending for name, kind in table().items() for ending in endings.get(kind, ("",))}


def test_named_metrics_are_in_the_table() -> None:
    def named(text: str) -> set[str]:
        return set(re.findall(r"\bmnemo_[a-z0-9_]+", text))

    in_rules = named("\n".join(rule["expr"] for rule in rules()))
    assert len(in_rules) > 15
    assert not in_rules - samples()
    assert not named((ROOT / "docs" / "RUNBOOK.md").read_text()) - samples() - set(table())

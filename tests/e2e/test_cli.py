"""The program mnemo against a real daemon: a load with sparse attention is sparse, with the options of its requests."""

from __future__ import annotations

import json
import pathlib
import subprocess

import harness
import pytest
from harness import Daemon


def mnemo(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(harness.BIN / "mnemo"), arguments[0], "--address", daemon.address, *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("placement", "devices"), [("inline", 1), ("memory-service", 2)])
def test_a_load_of_sparse_attention(tiny: pathlib.Path, placement: str, devices: int) -> None:
    with Daemon(tiny, settings={"attention.dense_layers": 0, "memory.services": 1}) as daemon:
        harness.wait_for("a memory service", daemon.attached)
        load = ["bench", "-n", "4", "-c", "2", "-i", "500", "-o", "8", "--json"]
        sparse = ["--attention", "token_topk", "--budget", "128", "--placement", placement, "--key-bits", "4", "--top-k", "5", "--temperature", "0.9"]
        dense = mnemo(daemon, *load)
        assert dense.returncode == 0 and not [line for line in daemon.metrics().splitlines() if 'method="token_topk"' in line]
        result = mnemo(daemon, *load, *sparse, "--session", "s", "--sessions", "2")
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["requests"]["succeeded"] == 4 and report["tokens"]["output"] == 32
        assert report["run"]["options"] == {
            "session": "s",
            "temperature": "0.9",
            "top-k": "5",
            "attention": "token_topk",
            "budget": "128",
            "key-bits": "4",
            "placement": placement,
        }

        def counted() -> list[str]:  # workers tell it with their heartbeats
            return [line for line in daemon.metrics().splitlines() if 'method="token_topk"' in line]

        harness.wait_for("steps of memory processing", counted)
        assert any("memory0" in line for line in counted()) == (devices == 2)


def test_what_the_daemon_refuses_is_counted(tiny: pathlib.Path) -> None:
    with Daemon(tiny, settings={"attention.dense_layers": 0, "memory.services": 0}) as daemon:
        result = mnemo(daemon, "bench", "-n", "2", "--placement", "memory-service", "--json")
        assert result.returncode == 1 and json.loads(result.stdout)["requests"]["errors"] == {"FAILED_PRECONDITION": 2}
        refused = mnemo(daemon, "bench", "-n", "2", "--retry-overload", "3")
        assert refused.returncode == 2 and refused.stderr.startswith("mnemo: --retry-overload: not with this command: ")


def test_chats_from_files(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]))
    with Daemon(tiny, settings={"memory.services": 0}) as daemon:
        generated = mnemo(daemon, "generate", "--messages", str(messages), "-n", "2", "--json")
        tokens = mnemo(daemon, "tokenize", "--messages", str(messages))
        assert generated.returncode == tokens.returncode == 0
        assert json.loads(generated.stdout)["usage"]["prompt_tokens"] == len(tokens.stdout.split())
        assert mnemo(daemon, "bench", "-n", "2", "-o", "2", "--prompts", str(tmp_path / "none")).returncode == 2
        prompts = tmp_path / "prompts"
        prompts.write_text("hello\n" + json.dumps({"messages": json.loads(messages.read_text()), "max_tokens": 3}) + "\n")
        report = json.loads(mnemo(daemon, "bench", "-n", "2", "-o", "2", "--chat", "--prompts", str(prompts), "--json").stdout)
        assert report["tokens"]["output"] == 5

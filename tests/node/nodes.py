"""Throw-away nodes for tests: a script that runs under systemd as PID 1 (boot.sh)."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOOT = pathlib.Path(__file__).resolve().parent / "boot.sh"
BIN = pathlib.Path(os.environ.get("MNEMO_BIN", ROOT / "build" / "release" / "bin"))
NO_NODE = 77
TOO_LONG = 124


def boot(script: pathlib.Path, seconds: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `script` on a node of its own for at most `seconds`; standard output and error are one text. Variables MNEMO_* reach it. Skips
    the test where the machine cannot have a node."""
    paths = f"{ROOT}:{BIN}:{pathlib.Path.home() / '.cache'}"
    variables = {**os.environ, "MNEMO_NODE_PATHS": paths, "MNEMO_BIN": str(BIN), "MNEMO_ROOT": str(ROOT), **environment}
    done = subprocess.run(
        [str(BOOT), str(script), str(seconds)],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode == NO_NODE:
        pytest.skip(done.stdout.strip())
    return done

"""`mnemo completion`: each shell itself completes commands, options, choices and files, in a terminal of its own."""

from __future__ import annotations

import os
import pathlib
import shutil

import pexpect
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MNEMO_BIN", ROOT / "build" / "release" / "bin"))
SHELLS = {
    "bash": (["--norc", "--noprofile"], "source <(mnemo completion bash)"),
    "zsh": (["-f"], "autoload -U compinit; compinit -D; source <(mnemo completion zsh)"),
    "fish": (["--no-config"], "mnemo completion fish | source"),
}
# Text that is typed before the tabulator, and text that the line then has.
CASES = [
    ("mnemo gen", "generate"),
    ("mnemo drain --ti", "--timeout"),
    ("mnemo generate --attention page", "page_bound"),
    ("mnemo generate --file some-", "some-prompt.txt"),
]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, tmp_path: pathlib.Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "some-prompt.txt").write_text("hello\n")
    options, load = SHELLS[shell]
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "TERM": "dumb", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "PS1": "ready> "}
    for typed, completed in CASES:
        child = pexpect.spawn(shell, options, cwd=str(tmp_path), env=environment, encoding="utf-8", timeout=30, dimensions=(24, 200))
        # The marks are not in what is typed, so that the terminal's echo is not taken for them.
        child.sendline(load + "; echo lo''aded")
        child.expect("loaded\r?\n")
        child.send(typed + "\t")
        child.expect_exact(completed)
        child.close(force=True)

"""Format and size of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import tree

MAX_LINES = 900


def test_format() -> None:
    if shutil.which("clang-format") is None:
        pytest.fail("clang-format is not installed: run scripts/setup.sh")
    names = [str(path) for path in tree.files(".h", ".cc")]
    assert names
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *names], cwd=tree.ROOT, capture_output=True, text=True)
    bad = sorted(set(re.findall(r"^([^:\n]+):\d+:\d+: error", done.stderr, re.MULTILINE)))
    assert done.returncode == 0, f"run: clang-format -i {' '.join(bad)}"


def test_files_are_of_a_readable_size() -> None:
    long = {str(path): tree.read(path).count("\n") for path in tree.files(".h", ".cc", ".py", ".sh", ".proto")}
    long = {name: lines for name, lines in long.items() if lines > MAX_LINES}
    assert not long, f"longer than {MAX_LINES} lines, split by meaning: {long}"


def test_nothing_is_left_to_do() -> None:
    """Work that is left belongs into an issue."""
    mark = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]))
    wrong = []
    for path in tree.files(".h", ".cc", ".py", ".sh", ".proto", ".cmake", ".md", ".yaml", ".txt"):
        for number, line in enumerate(tree.read(path).splitlines(), 1):
            if re.search(rf"\b({mark.pattern})\b", line):
                wrong.append(f"{path}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_text_files_are_clean() -> None:
    wrong = []
    for path in tree.files(".h", ".cc", ".py", ".sh", ".proto", ".cmake", ".md", ".yaml", ".service"):
        text = tree.read(path)
        if text and not text.endswith("\n"):
            wrong.append(f"{path}: no newline at the end")
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip() or "\t" in line:
                wrong.append(f"{path}:{number}: blank at the end, or a tab")
    assert not wrong, "\n".join(wrong)


def test_scripts_parse() -> None:
    names = [path for path in tree.files() if path.suffix == ".sh" or path.parts[:2] == (".ci", "run")]
    assert len(names) >= 4
    for name in names:
        done = subprocess.run(["bash", "-n", str(tree.ROOT / name)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert name.name == "common.sh" or (tree.ROOT / name).stat().st_mode & 0o111, f"{name} cannot be executed"

"""Every header can be included alone."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess

import tree


def commands() -> dict[str, list[str]]:
    """Compiler arguments by source file, without its own name and output."""
    result = {}
    for entry in json.loads((tree.BUILD / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        launcher = next((i for i, word in enumerate(words) if pathlib.Path(word).name == "ccache"), -1)
        words = words[launcher + 1 :]
        if "-include" in words:  # the precompiled header
            at = words.index("-include")
            words = [word for i, word in enumerate(words) if i not in (at, at + 1) and word != "-Winvalid-pch"]
        at = words.index("-o")
        words = [word for i, word in enumerate(words) if i not in (at, at + 1) and word not in ("-c", entry["file"])]
        result[entry["file"]] = words
    return result


def arguments(header: pathlib.Path, known: dict[str, list[str]]) -> list[list[str]]:
    """Arguments of a source beside the header: its namesake, else one of the folder, else one of a folder above or below.
    There are several where the folder has several layers: the header belongs to one of them."""
    namesakes = [str(tree.ROOT / header.with_suffix(".cc")), str(tree.ROOT / header.with_name(header.stem + "_test.cc"))]
    for name in namesakes:
        if name in known:
            return [known[name]]
    folder = tree.ROOT / header.parent
    of_tests = "testing" in header.parts
    while folder != tree.ROOT:
        beside = sorted(name for name in known if pathlib.Path(name).is_relative_to(folder))
        # A test sees more than the layer does.
        beside.sort(key=lambda name: (name.endswith("_test.cc") != of_tests, len(pathlib.Path(name).parts)))
        if beside:
            different = {tuple(word for word in known[name] if word.startswith("-I")): known[name] for name in reversed(beside)}
            return list(reversed(different.values()))
        folder = folder.parent
    return []


def proven_by_source(header: pathlib.Path, known: dict[str, list[str]]) -> bool:
    """True when a built source includes its own header first, which proves the same at no cost."""
    source = tree.ROOT / header.with_suffix(".cc")
    if str(source) not in known:
        return False
    first = re.search(r"^#include .*$", source.read_text(), re.MULTILINE)
    return first is not None and first.group(0) == f'#include "{header}"'


def headers() -> list[pathlib.Path]:
    """All headers but the bodies that are included once for each instruction set."""
    return [path for path in tree.files(".h") if not path.name.endswith("-inl.h")]


def test_headers_are_self_contained() -> None:
    known = commands()
    jobs = []
    for header in headers():
        choices = [] if proven_by_source(header, known) else arguments(header, known)
        if choices:
            include = f'#include "{header}"\n#include "{header}"\n'
            commands_of = [[*words, "-O0", "-fsyntax-only", "-x", "c++", "-"] for words in choices]
            jobs.append((header, commands_of, include))
    assert len(jobs) > 10

    def compile_one(job: tuple[pathlib.Path, list[list[str]], str]) -> str:
        header, choices, text = job
        first_error = ""
        for command in choices:
            done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=tree.BUILD)
            if done.returncode == 0:
                return ""
            first_error = first_error or f"{header}:\n{done.stderr[:2000]}"
        return first_error

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = [error for error in pool.map(compile_one, jobs) if error]
    assert not errors, "\n".join(errors)


def test_headers_are_guarded() -> None:
    wrong = [str(path) for path in headers() if "\n#pragma once\n" not in "\n" + tree.read(path)]
    assert not wrong, f"no #pragma once: {wrong}"

"""Helpers of the tests of the tree: its files, as git would take them, and its layers, as CMake reads them."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MNEMO_BUILD", ROOT / "build" / "release"))


@functools.cache
def files(*suffixes: str) -> list[pathlib.Path]:
    """The tree's files with one of the suffixes (all without any), relative to the root. With git: tracked files, and new ones that it
    does not ignore. Without git: all files outside hidden folders and build/."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        names = [pathlib.Path(name) for name in listed.stdout.split("\0") if name]
    else:
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        names = [name for name in names if name.parts[0] != "build" and not any(part.startswith(".") for part in name.parts[:-1])]
    return sorted(name for name in names if (not suffixes or name.suffix in suffixes) and (ROOT / name).is_file())


def read(name: pathlib.Path | str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@dataclasses.dataclass
class Layer:
    name: str
    folder: str
    headers: set[str]  # public ones, relative to the root
    public: list[str]
    private: list[str]

    @property
    def links(self) -> list[str]:
        return self.public + self.private


KEYWORDS = {"PRECOMPILED", "DIR", "HEADERS", "SRCS", "DEPS", "PRIVATE_DEPS", "LABELS", "TIMEOUT", "PRIVATE_OF"}


def calls(function: str) -> list[tuple[pathlib.Path, list[str]]]:
    """All calls of a CMake function in the tree, with the folder that each stands in and its words."""
    found = []
    for name in files(".txt"):
        if name.name != "CMakeLists.txt":
            continue
        text = re.sub(r"#.*", "", read(name))
        for match in re.finditer(rf"\b{function}\(([^)]*)\)", text):
            found.append((name.parent, match.group(1).split()))
    return found


def sections(words: list[str]) -> dict[str, list[str]]:
    """Words of a call by the keyword in front of them."""
    result: dict[str, list[str]] = {}
    key = ""
    for word in words:
        if word in KEYWORDS:
            key = word
        else:
            result.setdefault(key, []).append(word)
    return result


@functools.cache
def layers() -> dict[str, Layer]:
    result = {}
    for _, (name, *words) in calls("mnemo_layer"):
        parts = sections(words)
        folder = parts["DIR"][0]
        named = parts.get("HEADERS")
        if named:
            headers = {f"{folder}/{header}" for header in named}
        else:
            headers = {str(path) for path in files(".h") if str(path.parent) == folder or str(path).startswith(folder + "/")}
        result[name] = Layer(name, folder, headers, parts.get("DEPS", []), parts.get("PRIVATE_DEPS", []))
    # Targets that are linked under a condition are added apart.
    for _, (name, *words) in calls("target_link_libraries"):
        if name in result:
            result[name].private += [word for word in words if word not in ("PUBLIC", "PRIVATE", "INTERFACE")]
    return result


def reachable(name: str) -> set[str]:
    """The layer and all layers whose public headers it sees: the linked ones, and those that they link publicly."""
    known = layers()
    seen: set[str] = set()
    todo = [name, *known[name].links]
    while todo:
        at = todo.pop()
        if at in known and at not in seen:
            seen.add(at)
            todo += known[at].public if at != name else known[at].links
    return seen

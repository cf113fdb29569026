"""Layers point one way (ARCHITECTURE.md). CMake gives each target the headers of what it links and no others; this tells the same
faster, and says which layers may link which at all."""

from __future__ import annotations

import pathlib
import re

import tree

# Which folders a layer of a folder may link. A name stands for the folder and what is below it.
ALLOWED = {
    "fpga/layout": [],
    "fpga/device": ["fpga/layout", "devices/base", "devices/cpu"],
    "fpga/service": ["fpga", "devices/base", "devices/transport", "server/link", "server/telemetry"],
    "devices/base": [],
    "devices/transport": ["devices/base", "fpga/layout"],
    "devices": ["devices"],
    # Kernels of memory indexes.
    "devices/cpu": ["devices", "fpga/layout"],
    "config": ["devices/base"],
    "proto": [],
    "server/model": ["devices", "server/model"],
    "server/telemetry": ["devices/base"],
    "server/link": ["devices/base"],
    "server/memory": ["devices", "fpga/device", "fpga/layout", "server/memory", "server/model"],
    "server/worker": ["devices", "server/memory", "server/model", "server/telemetry", "server/worker"],
    "server/worker/service": [
        "config", "devices", "server/link", "server/memory", "server/model", "server/telemetry", "server/worker"
    ],
    # Of the worker, only its command line and the weights' image; of the memory service, its command line.
    "server/frontend/dispatch": [
        "config", "devices", "fpga/service", "server/link", "server/telemetry", "server/frontend/dispatch", "server/worker/service"
    ],
    "server/frontend": ["config", "devices", "server/link", "server/memory", "server/model", "server/telemetry", "server/frontend"],
    # Of the server, a client knows the vocabulary alone: `mnemo tokenize` works offline.
    "client": ["client", "devices/base", "server/model"],
    "tests": ["config", "devices", "server", "tests"],
}


def below(folder: str, parent: str) -> bool:
    return folder == parent or folder.startswith(parent + "/")


def rule(layer: tree.Layer) -> list[str]:
    """The rule of the nearest folder that has one. A layer that only tests link may have models made for tests."""
    folder = layer.folder
    nearest = max((known for known in ALLOWED if below(folder, known)), key=len, default=None)
    assert nearest is not None, f"{folder}: no rule; add one to {__file__}"
    return ALLOWED[nearest] + (["tests/support"] if layer.name.endswith("_testing") else [])


def test_the_layers_are_found() -> None:
    assert {"mnemo_base", "mnemo_config", "mnemo_telemetry", "mnemo_devices"} <= set(tree.layers())


def test_layers_link_only_what_is_below_them() -> None:
    known = tree.layers()
    wrong = [
        f"{layer.name} ({layer.folder}) links {name} ({known[name].folder})"
        for layer in known.values()
        for name in layer.links
        if name in known and not any(below(known[name].folder, allowed) for allowed in rule(layer))
    ]
    assert not wrong, "\n".join(wrong)


def test_layers_have_no_cycle() -> None:
    known = tree.layers()
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name in known and name not in done:
            for link in known[name].links:
                visit(link, [*path, name])
            done.add(name)

    for name in known:
        visit(name, [])


def test_every_include_is_of_a_linked_layer() -> None:
    known = tree.layers()
    owners: dict[str, list[str]] = {}
    for layer in known.values():
        for header in layer.headers:
            owners.setdefault(header, []).append(layer.name)
    # A source or a private header belongs to the layers of its folder, or of the nearest folder above that has any.
    folders: dict[str, list[str]] = {}
    for layer in known.values():
        folders.setdefault(layer.folder, []).append(layer.name)
    headers = {str(path) for path in tree.files(".h")}
    of_tests = sources_of_tests()
    wrong = []
    for path in tree.files(".h", ".cc"):
        if path in of_tests or path.parts[0] == "tests":
            continue
        at = path.parent
        while str(at) not in folders and at != pathlib.Path("."):
            at = at.parent
        mine = folders.get(str(at), [])
        seen = set().union(*(tree.reachable(name) for name in mine)) if mine else set()
        for include in re.findall(r'^#include "([^"]+)"', tree.read(path), re.MULTILINE):
            assert include in headers or ".pb.h" in include, f"{path} includes {include}, which is not in the tree"
            if include not in headers or below(str(pathlib.Path(include).parent), str(at)):
                continue
            if not seen & set(owners.get(include, [])) and not is_main(path):
                wrong.append(f"{path} includes {include}, which {' and '.join(mine)} do not link")
    assert not wrong, "\n".join(wrong)


def sources_of_tests() -> set[pathlib.Path]:
    """Sources of tests and of layers that only tests link, and the headers beside these by name or in a folder for tests."""
    found = set()
    for folder, (name, *words) in tree.calls("mnemo_test") + tree.calls("mnemo_layer"):
        parts = tree.sections(words)
        if "DIR" not in parts or name.endswith("_testing"):
            for source in parts.get("SRCS", []):
                found |= {folder / source, (folder / source).with_suffix(".h")}
    return found | {path for path in tree.files(".h", ".cc") if "testing" in path.parts}


def is_main(path: pathlib.Path) -> bool:
    """A program's main file sees what the program links, which CMake checks when it is built."""
    return path.suffix == ".cc" and re.search(r"^int main\(", tree.read(path), re.MULTILINE) is not None

"""Layers point one way (ARCHITECTURE.md). CMake gives each target the headers of the targets that it links and no others. This test
reports a violation faster, and holds the table of allowed links."""

from __future__ import annotations

import pathlib
import re

import tree

# Folders that a layer of a folder may link. A name stands for the folder and all folders below it.
ALLOWED = {
    "proto/layout": [],
    "proto": ["proto/layout"],
    "devices/base": [],
    # The table of memory methods: a vocabulary for configuration and clients too.
    "server/memory/methods": ["devices/base", "proto/layout"],
    "devices": ["devices/base"],
    # Kernels of memory indexes.
    "devices/cpu": ["devices/base", "devices", "proto/layout"],
    "devices/reference": ["devices/base", "devices"],
    "devices/factory": ["devices"],
    "devices/memory": ["devices/base", "devices/cpu", "proto/layout"],
    "devices/memory/cpu": ["devices/base", "devices/cpu", "devices/memory", "proto/layout"],
    # The card: its driver and model, the simulation of its RTL, and the kinds of memory device that stand on them.
    "fpga/card": ["devices/base", "devices/memory", "proto/layout"],
    "fpga/sim": ["devices/base", "fpga/card", "proto/layout"],
    "fpga/xrt": ["devices/base", "fpga/card", "fpga/sim", "proto/layout"],
    "fpga/report": ["devices/base", "devices/memory", "fpga/card", "fpga/sim", "proto/layout"],
    "fpga/tools": ["devices/base", "devices/memory", "fpga/card", "fpga/xrt", "proto/layout"],
    "fpga/tests": ["devices/base", "devices/memory", "fpga", "proto/layout"],
    "devices/memory/card_model": ["devices/base", "devices/memory", "fpga/card", "proto/layout"],
    "devices/memory/rtl": ["devices/base", "devices/memory", "fpga/card", "fpga/sim", "proto/layout"],
    "devices/memory/xrt": ["devices/base", "devices/memory", "fpga/card", "fpga/xrt", "proto/layout"],
    "devices/memory/factory": ["devices/base", "devices/memory"],
    "devices/memory/testing": ["devices/base", "devices/memory"],
    "devices/transport": ["devices/base", "proto/layout"],
    "config": ["devices/base", "server/memory/methods"],
    "devices/energy": ["config", "devices/base"],
    "server/model": ["devices"],
    "server/telemetry": ["devices/base"],
    "server/telemetry/energy": ["devices/base", "devices/energy"],
    "server/link": ["devices/base"],
    "server/memory_service": [
        "config", "devices/base", "devices/memory", "devices/transport", "proto", "server/link", "server/telemetry"
    ],
    "server/memory": ["devices", "proto/layout", "server/model"],
    "server/worker": ["devices", "server/memory", "server/model", "server/telemetry"],
    "server/worker/service": [
        "config", "devices", "proto", "server/link", "server/memory", "server/model", "server/telemetry", "server/worker"
    ],
    # The worker's command line and the weights' image; the memory service's command line.
    "server/dispatch": [
        "config", "devices", "proto", "server/link", "server/memory_service", "server/telemetry", "server/worker/service"
    ],
    "server/frontend": [
        "config", "devices", "proto", "server/dispatch", "server/link", "server/memory", "server/model",
        "server/telemetry",
    ],
    "server/energy_service": ["config", "devices/base", "devices/energy", "server/telemetry"],
    # A client knows the server's vocabulary alone: `mnemo tokenize` works offline. Calibration reads the CPUs' times.
    "client": ["client", "devices/base", "devices/energy", "proto", "server/memory/methods", "server/model"],
    "tests": ["config", "devices", "proto", "server", "tests"],
}


def below(folder: str, parent: str) -> bool:
    return folder == parent or folder.startswith(parent + "/")


def rule(layer: tree.Layer) -> list[str]:
    """The nearest folder that has a rule, and the folders that the rule allows. A layer that only tests link may link tests/support."""
    folder = layer.folder
    nearest = max((known for known in ALLOWED if below(folder, known)), key=len, default=None)
    assert nearest is not None, f"{folder}: no rule; add one to {__file__}"
    return [nearest, *ALLOWED[nearest]] + (["tests/support"] if layer.name.endswith("_testing") else [])


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


def generated(include: str) -> bool:
    """True for headers that the build makes: of messages, and of Verilated modules (cmake/MnemoVerilate.cmake) with Verilator's own."""
    return ".pb.h" in include or re.fullmatch(r"(V[a-z]|verilated)\w*\.h", include) is not None


def build_order() -> list[str]:
    """MNEMO_FOLDERS of the root's CMakeLists.txt, lowest folder first."""
    match = re.search(r"set\(MNEMO_FOLDERS([^)]*)\)", tree.read("CMakeLists.txt"))
    assert match, "CMakeLists.txt: no MNEMO_FOLDERS"
    return match.group(1).split()


def test_no_folder_includes_one_above_it() -> None:
    order = build_order()
    of_tests = sources_of_tests()

    def place(path: str) -> int:
        return order.index(max((folder for folder in order if below(str(pathlib.Path(path).parent), folder)), key=len))

    wrong = [
        f"{path} includes {include}"
        for path in tree.files(".h", ".cc")
        if path not in of_tests
        for include in re.findall(r'^#include "([^"]+)"', tree.read(path), re.MULTILINE)
        if not generated(include) and place(include) > place(str(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_folders_share_a_namespace() -> None:
    """A namespace belongs to one folder; a folder of the parts of one thing (server/memory/methods) counts as one."""
    owners: dict[str, set[str]] = {}
    for path in tree.files(".h"):
        text = tree.read(path)
        for match in re.finditer(r"^namespace (mnemo[\w:]*) \{\n(?!(?:(?:class|struct) \w+;\n)+\})", text, re.MULTILINE):
            folder = path.parent.parent if path.parent.parent.name == "methods" else path.parent
            owners.setdefault(match.group(1), set()).add(str(folder))
    shared = [f"{name}: {', '.join(sorted(folders))}" for name, folders in owners.items() if len(folders) > 1]
    assert not shared, "\n".join(shared)


def test_the_request_core_knows_no_grpc() -> None:
    """Headers of the system are open to every target, so that only this and a link without gRPC hold the seam."""
    headers = {str(path) for path in tree.files(".h")}
    [sources] = [
        [str(folder / source) for source in tree.sections(words)["SRCS"]]
        for folder, (name, *words) in tree.calls("mnemo_layer")
        if name == "mnemo_request_core"
    ]
    todo, seen, wrong = sources, set(), []
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        includes = re.findall(r'^#include [<"]([^>"]+)[>"]', tree.read(path), re.MULTILINE)
        wrong += [f"{path} includes {include}" for include in includes if "grpc" in include]
        todo += [include for include in includes if include in headers]
    assert not wrong, "\n".join(wrong)


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
            assert include in headers or generated(include), f"{path} includes {include}, which is not in the tree"
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
    """True for a program's main file: it sees all that the program links, which CMake checks when it is built."""
    return path.suffix == ".cc" and re.search(r"^int main\(", tree.read(path), re.MULTILINE) is not None

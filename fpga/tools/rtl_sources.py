"""The SystemVerilog of the card: its files, what each needs, and which packages, interfaces and modules it defines.

    rtl_sources.py TOP [FILE...]    the files that a module needs, packages first, relative to the root; FILE: a bench beside fpga/rtl

The one list of sources: simulations, lint, synthesis and the kernel's package take theirs from here."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RTL = ROOT / "fpga" / "rtl"
CARD = "card_top"  # the module of the whole card


@dataclasses.dataclass(frozen=True)
class Unit:
    name: str
    kind: str  # package, interface or module
    path: pathlib.Path
    uses: frozenset[str]  # names of other units


def code(text: str) -> str:
    """The text without comments and strings."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)


DEFINITION = re.compile(r"^\s*(package|interface|module)\s+(?:automatic\s+|static\s+)?(\w+)", re.MULTILINE)


def parse(paths: list[pathlib.Path]) -> dict[str, Unit]:
    """Units by name. Several units of one file share what the file uses."""
    texts = {path: code(path.read_text(encoding="utf-8")) for path in paths}
    defined = {path: [(match.group(1), match.group(2)) for match in DEFINITION.finditer(text)] for path, text in texts.items()}
    names = {name for units in defined.values() for _, name in units}
    found: dict[str, Unit] = {}
    for path, units in defined.items():
        words = set(re.findall(r"\b([A-Za-z_]\w*)\s*::", texts[path]))
        words |= set(re.findall(r"\b([A-Za-z_]\w*)\s+(?:#\s*\(|[A-Za-z_]\w*\s*(?:\[[^;]*?\]\s*)?\()", texts[path]))
        words |= set(re.findall(r"\b([A-Za-z_]\w*)\s*#\s*\(", texts[path]))
        for kind, name in units:
            if name in found:
                raise ValueError(f"{path}: {name} is also defined in {found[name].path}")
            found[name] = Unit(name, kind, path, frozenset((words & names) - {other for _, other in units}))
    return found


@functools.cache
def units(folder: pathlib.Path = RTL) -> dict[str, Unit]:
    return parse(sorted(folder.rglob("*.sv")))


def closure(top: str, known: dict[str, Unit] | None = None) -> list[pathlib.Path]:
    """The files that `top` needs, each behind those that it uses, packages first."""
    known = known or units()
    if top not in known:
        raise KeyError(f"no module {top} in fpga/rtl; there are: {', '.join(modules(known))}")
    order: list[Unit] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for other in sorted(known[name].uses):
            visit(other)
        order.append(known[name])

    visit(top)
    order.sort(key=lambda unit: ("package", "interface", "module").index(unit.kind))
    return list(dict.fromkeys(unit.path for unit in order))


def modules(known: dict[str, Unit] | None = None) -> list[str]:
    return sorted(name for name, unit in (known or units()).items() if unit.kind == "module")


def short(path: pathlib.Path | str) -> str:
    """The path as seen from the root."""
    return os.path.relpath(path, ROOT)


def main(arguments: list[str]) -> None:
    if not arguments:
        raise SystemExit(__doc__)
    top, *benches = arguments
    try:
        known = parse(sorted(RTL.rglob("*.sv")) + [pathlib.Path(bench).resolve() for bench in benches])
        print("\n".join(short(path) for path in closure(top, known)))
    except (KeyError, ValueError, OSError) as error:
        raise SystemExit(f"rtl_sources: {error.args[0] if isinstance(error, KeyError) else error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])

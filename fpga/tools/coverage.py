"""Lines and cover points of the RTL that its tests reach.

Builds the tests of fpga/tests with models that count (build/rtl-coverage), runs them and prints, by file, how many lines ran. Ends with 1
if a test fails or less than --bound percent is covered."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

import rtl_sources


@dataclasses.dataclass
class Coverage:
    lines: dict[str, dict[int, int]]  # of a file: how often each line ran, the largest of its blocks
    points: dict[str, int]  # cover points: FILE:LINE NAME, how often it was reached

    def merge(self, text: str) -> None:
        """Adds a file of Verilator: C 'KEY VALUE KEY VALUE ...' COUNT, with marks 1 and 2 before keys and values."""
        for match in re.finditer(r"^C '(.*)' (\d+)$", text, re.MULTILINE):
            fields = dict(part.split("\2", 1) for part in match.group(1).split("\1") if "\2" in part)
            count, path = int(match.group(2)), rtl_sources.short(fields["f"])
            if fields.get("page", "").startswith("v_line"):
                of_file = self.lines.setdefault(path, {})
                for line in lines_of(fields.get("S", fields["l"])):
                    of_file[line] = max(of_file.get(line, 0), count)
            elif fields.get("page", "").startswith("v_user"):
                point = f"{path}:{fields['l']} {fields.get('o', '')}".rstrip()
                self.points[point] = self.points.get(point, 0) + count


def lines_of(text: str) -> list[int]:
    """Numbers of a list such as 7,9-11."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def ranges(numbers: list[int]) -> str:
    """The reverse of lines_of."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def read(folder: pathlib.Path) -> Coverage:
    coverage = Coverage({}, {})
    for path in sorted(folder.glob("*.dat")):
        coverage.merge(path.read_text(encoding="utf-8"))
    return coverage


def report(coverage: Coverage, bound: float) -> int:
    """Prints the table; returns the number of faults."""
    known = {path: lines for path, lines in sorted(coverage.lines.items()) if path.startswith("fpga/rtl/")}
    everything = ran = 0
    for path, lines in known.items():
        missing = sorted(line for line, count in lines.items() if count == 0)
        everything += len(lines)
        ran += len(lines) - len(missing)
        share = 100 * (len(lines) - len(missing)) / len(lines)
        print(f"{share:6.1f} %  {len(lines) - len(missing):4d} of {len(lines):4d}  {path}" + (f"  not: {ranges(missing)}" if missing else ""))
    untested = [rtl_sources.short(unit.path) for unit in rtl_sources.units().values()
                if unit.kind == "module" and rtl_sources.short(unit.path) not in coverage.lines]
    for path in sorted(untested):
        print(f"       -                {path}  no line counted")
    missed = sorted(point for point, count in coverage.points.items() if count == 0)
    for point in missed:
        print(f"cover point never reached: {point}")
    if not everything:
        print("coverage: no line of fpga/rtl was counted", file=sys.stderr)
        return 1
    share = 100 * ran / everything
    print(f"{share:6.1f} %  {ran} of {everything} lines; {len(coverage.points) - len(missed)} of {len(coverage.points)} cover points")
    if share < bound:
        print(f"coverage: {share:.1f} % of the lines, bound {bound} %", file=sys.stderr)
    return int(share < bound) + len(missed)


def build_and_test(build: pathlib.Path, data: pathlib.Path, jobs: int, pattern: str) -> bool:
    flags = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DMNEMO_RTL_COVERAGE=ON", "-DMNEMO_GRPC=OFF"]
    subprocess.run(["cmake", "-S", str(rtl_sources.ROOT), "-B", str(build), *flags], check=True, stdout=subprocess.DEVNULL)
    listed = subprocess.run(["ctest", "--test-dir", str(build), "-N", "-R", pattern], check=True, capture_output=True, text=True).stdout
    tests = re.findall(r"Test\s+#\d+: (\S+)", listed)
    if not tests:
        sys.exit(f"coverage: no test fits {pattern}: is verilator installed?")
    if subprocess.run(["cmake", "--build", str(build), "--parallel", str(jobs), "--target", *tests]).returncode:
        sys.exit("coverage: the tests do not build")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    environment = dict(os.environ, MNEMO_COVERAGE_FOLDER=str(data))
    command = ["ctest", "--test-dir", str(build), "-R", pattern, "--parallel", str(jobs), "--output-on-failure"]
    return subprocess.run(command, env=environment).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/card.sh coverage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=rtl_sources.ROOT / "build" / "rtl-coverage", help="the folder to build in")
    parser.add_argument("--bound", type=float, default=95.0, metavar="PERCENT", help="least share of lines, 0 to 100; default: 95")
    parser.add_argument("--tests", default="^rtl_.*_test$", metavar="PATTERN", help="tests to run, as for ctest -R")
    parser.add_argument("--report", action="store_true", help="only print what the last run counted")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="jobs at a time; default: one a core")
    arguments = parser.parse_args()
    if not 0 <= arguments.bound <= 100 or arguments.jobs < 1:
        parser.error("--bound: 0 to 100; --jobs: at least 1")
    build = arguments.build.resolve()
    data = build / "coverage"
    passed = arguments.report or build_and_test(build, data, arguments.jobs, arguments.tests)
    faults = report(read(data), arguments.bound)
    return 0 if passed and not faults else 1


if __name__ == "__main__":
    sys.exit(main())

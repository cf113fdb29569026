"""Lines and cover points of the RTL that its tests reach.

Builds the tests of fpga/tests with models that count (build/rtl-coverage), runs them and prints, by file, how many lines ran. A line that does not
run, or a point (cover_points.py) that is not reached, stands in coverage.toml with its reason. Ends with 1 if a test fails, less than --bound
percent of the lines run, a line or point is missed without a reason, or a reason is left for what is reached or is no longer there."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import cover_points
import rtl_sources

REASONS = pathlib.Path(__file__).resolve().parent / "coverage.toml"


@dataclasses.dataclass
class Coverage:
    lines: dict[str, dict[int, int]]  # of a file: how often each line ran, the largest of its blocks
    branches: dict[str, int]  # how often each was taken; also one without a line, as an else that is not written
    points: dict[str, int]  # MODULE.NAME: how often it was reached

    def merge(self, text: str) -> None:
        """Adds a file of Verilator: C 'KEY VALUE KEY VALUE ...' COUNT, with marks 1 and 2 before keys and values."""
        for match in re.finditer(r"^C '(.*)' (\d+)$", text, re.MULTILINE):
            fields = dict(part.split("\2", 1) for part in match.group(1).split("\1") if "\2" in part)
            count, path, page = int(match.group(2)), rtl_sources.short(fields["f"]), fields.get("page", "")
            if page.startswith("v_user/"):
                point = point_name(page, fields["h"])
                self.points[point] = self.points.get(point, 0) + count
            elif path.startswith("fpga/rtl/"):
                of_file = self.lines.setdefault(path, {})
                # A block without lines is a branch that is not written, or a message of an assertion.
                for line in lines_of(fields.get("S", "")):
                    of_file[line] = max(of_file.get(line, 0), count)
                if page.startswith("v_branch/"):
                    branch = f"{path}:{fields['l']}:{fields['n']}"
                    self.branches[branch] = self.branches.get(branch, 0) + count


def point_name(page: str, place: str) -> str:
    """MODULE.NAME or MODULE.NAME[NUMBER] of a point in a module that cover_points.py wrote."""
    module = page.removeprefix("v_user/").partition("__")[0].removesuffix("_points")
    _, _, name = place.rpartition(f".{cover_points.INSTANCE}.")
    name = name.replace("__BRA__", "[").replace("__KET__", "]")
    return f"{module}." + re.sub(r"^g(\[\d+\])\.(.*)$", r"\2\1", name)


def lines_of(text: str) -> list[int]:
    """Numbers of a list such as 7,9-11."""
    found = []
    for part in filter(None, text.split(",")):
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
    coverage = Coverage({}, {}, {})
    for path in sorted(folder.glob("*.dat")):
        coverage.merge(path.read_text(encoding="utf-8"))
    return coverage


@dataclasses.dataclass
class Reasons:
    lines: dict[str, dict[str, str]]  # of a file: a line's text without what indents it, and why it does not run
    points: dict[str, str]

    @staticmethod
    def read(path: pathlib.Path) -> Reasons:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
        return Reasons(plain.get("lines", {}), plain.get("points", {}))


def findings(coverage: Coverage, reasons: Reasons, texts: dict[str, list[str]]) -> list[str]:
    """Finds misses without a reason, and reasons without a miss. `texts`: the lines of the files."""
    found = []
    for path, counts in sorted(coverage.lines.items()):
        for line, count in sorted(counts.items()):
            text = texts[path][line - 1].strip()
            if count == 0 and text not in reasons.lines.get(path, {}):
                found.append(f"{path}:{line}: never runs: {text}")
    for path, entries in sorted(reasons.lines.items()):
        missed = {texts[path][line - 1].strip() for line, count in coverage.lines.get(path, {}).items() if count == 0}
        for text in entries:
            if text not in (line.strip() for line in texts.get(path, [])):
                found.append(f"{path}: coverage.toml has a reason for a line that is not there: {text}")
            elif text not in missed:
                found.append(f"{path}: coverage.toml has a reason for a line that runs: {text}")
    found += [f"cover point never reached: {point}" for point, count in sorted(coverage.points.items())
              if count == 0 and point not in reasons.points]
    for point in sorted(reasons.points):
        if point not in coverage.points:
            found.append(f"coverage.toml has a reason for a cover point that is not there: {point}")
        elif coverage.points[point] != 0:
            found.append(f"coverage.toml has a reason for a cover point that is reached: {point}")
    return found


def report(coverage: Coverage, reasons: Reasons, bound: float) -> int:
    """Prints the table; returns the number of faults."""
    everything = ran = 0
    for path, lines in sorted(coverage.lines.items()):
        if not lines:
            continue
        missing = sorted(line for line, count in lines.items() if count == 0)
        everything += len(lines)
        ran += len(lines) - len(missing)
        share = 100 * (len(lines) - len(missing)) / len(lines)
        print(f"{share:6.1f} %  {len(lines) - len(missing):4d} of {len(lines):4d}  {path}" + (f"  not: {ranges(missing)}" if missing else ""))
    known = rtl_sources.units().values()
    untested = [rtl_sources.short(unit.path) for unit in known
                if unit.kind == "module" and not coverage.lines.get(rtl_sources.short(unit.path))]
    for path in sorted(untested):
        print(f"       -                {path}  no line counted")
    if not everything:
        print("coverage: no line of fpga/rtl was counted", file=sys.stderr)
        return 1
    texts = {rtl_sources.short(unit.path): unit.path.read_text(encoding="utf-8").splitlines() for unit in known}
    found = findings(coverage, reasons, texts)
    for line in found:
        print(line)
    share = 100 * ran / everything
    for what, counts in (("branches", coverage.branches), ("cover points", coverage.points)):
        print(f"{sum(count != 0 for count in counts.values())} of {len(counts)} {what}")
    print(f"{share:.1f} %  {ran} of {everything} lines; {len(found)} findings")
    if share < bound:
        print(f"coverage: {share:.1f} % of the lines, bound {bound} %", file=sys.stderr)
    return int(share < bound) + len(found)


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
    environment.pop("MNEMO_RTL_CASES", None)  # the tests' usual cases reach what they should
    command = ["ctest", "--test-dir", str(build), "-R", pattern, "--parallel", str(jobs), "--output-on-failure", "--timeout", "7200"]
    return subprocess.run(command, env=environment).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/card.sh coverage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=rtl_sources.ROOT / "build" / "rtl-coverage", help="the folder to build in")
    parser.add_argument("--bound", type=float, default=95.0, metavar="PERCENT", help="least share of lines, 0 to 100; default: 95")
    parser.add_argument("--tests", default="^rtl_.*_test$|^memory_device_conformance$", metavar="PATTERN", help="tests to run, as for ctest -R")
    parser.add_argument("--report", action="store_true", help="only print what the last run counted")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="jobs at a time; default: one a core")
    arguments = parser.parse_args()
    if not 0 <= arguments.bound <= 100 or arguments.jobs < 1:
        parser.error("--bound: 0 to 100; --jobs: at least 1")
    build = arguments.build.resolve()
    data = build / "coverage"
    passed = arguments.report or build_and_test(build, data, arguments.jobs, arguments.tests)
    faults = report(read(data), Reasons.read(REASONS), arguments.bound)
    return 0 if passed and not faults else 1


if __name__ == "__main__":
    sys.exit(main())

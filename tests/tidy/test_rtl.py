"""The RTL of the card: its format, its size and its lint."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
import tree

MAX_LINES = 400
LINT = tree.ROOT / "fpga" / "tools" / "lint.py"


def lint(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LINT, *arguments], capture_output=True, text=True)


def rtl() -> list[pathlib.Path]:
    return [path for path in tree.files(".sv") if path.parts[:2] == ("fpga", "rtl")]


def test_lint_is_clean() -> None:
    done = lint()
    assert done.returncode == 0, done.stdout + done.stderr


# A module with one fault, and the check that finds it.
FAULTS = {
    "verilator": "module bad (input logic [7:0] a, output logic y);\n  assign y = a[0];\nendmodule\n",
    "slang": "module bad (input logic [7:0] a, output logic [3:0] y);\n  assign y = a;\nendmodule\n",
    "verible": "module bad (input logic clk, input logic a, output logic y);\n  always_ff @(posedge clk) y = a;\nendmodule\n",
    "format": "module bad (input logic a, output logic y);\n    assign  y = a;\nendmodule\n",
}


@pytest.mark.parametrize("check", FAULTS)
def test_lint_finds_a_fault(check: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.sv").write_text(FAULTS[check])
    done = lint("--only", check, "--folder", tmp_path)
    assert done.returncode == 1 and f"{check}: " in done.stdout, done.stdout + done.stderr


def test_a_file_holds_one_module_of_its_name() -> None:
    wrong = []
    for path in rtl():
        defined = re.findall(r"^(?:module|interface|package)\s+(?:automatic\s+)?(\w+)", tree.read(path), re.MULTILINE)
        if defined != [path.stem]:
            wrong.append(f"{path} defines {defined}")
        if not tree.read(path).startswith("//"):
            wrong.append(f"{path} has no comment at its head")
    assert not wrong, "\n".join(wrong)


def test_modules_are_of_a_readable_size() -> None:
    long = {str(path): tree.read(path).count("\n") for path in rtl()}
    long = {name: lines for name, lines in long.items() if lines > MAX_LINES}
    assert not long, f"longer than {MAX_LINES} lines, split by meaning: {long}"


def test_primitives_of_the_vendor_stay_in_base() -> None:
    primitive = re.compile(r"\b(RAMB\w*|URAM288\w*|DSP48E\w*|LUT[1-6]|FD[RSCP]E|SRL\w+E|RAM\d+[MX]\d*\w*|BUFG\w*|XPM_\w+|xpm_\w+)\s*(#\s*\(|\w+\s*\()")
    wrong = [str(path) for path in rtl() if path.parts[2] != "base" and primitive.search(tree.read(path))]
    assert not wrong, f"vendor primitives outside fpga/rtl/base: {wrong}"

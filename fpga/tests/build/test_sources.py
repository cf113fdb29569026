"""The one list of RTL sources, fpga/tools/rtl_sources.py."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOL = ROOT / "fpga" / "tools" / "rtl_sources.py"
sys.path.append(str(TOOL.parent))
import rtl_sources  # noqa: E402


def printed(*arguments: str) -> list[str]:
    run = subprocess.run([sys.executable, "-B", TOOL, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    return run.stdout.split()


@pytest.mark.parametrize("top", rtl_sources.modules())
def test_a_file_stands_behind_what_it_uses(top: str) -> None:
    known = rtl_sources.units()
    files = rtl_sources.closure(top)
    assert known[top].path in files
    for name, unit in known.items():
        if unit.path not in files:
            continue
        for used in unit.uses:
            path = known[used].path
            assert files.index(path) <= files.index(unit.path), f"{name} uses {used}"


def test_a_bench_has_the_sources_of_what_it_tests() -> None:
    bench = "fpga/tests/command/check_bench.sv"
    files = printed("check_bench", bench)
    assert files[-1] == bench
    assert set(printed("descriptor_check")) < set(files)
    # Modules of fpga/rtl alone, beside it.
    assert all(name.startswith("fpga/rtl/") for name in files[:-1])


def test_what_is_not_there_is_named() -> None:
    for arguments in (["nonsense"], ["check_bench", "nowhere.sv"]):
        run = subprocess.run([sys.executable, "-B", TOOL, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
        assert run.returncode != 0
        assert run.stderr.startswith("rtl_sources: ")
        assert arguments[-1] in run.stderr


def test_no_other_list_names_sources() -> None:
    files = sorted((ROOT / "fpga").rglob("CMakeLists.txt"))
    assert files
    for path in files:
        for line in path.read_text().splitlines():
            named = re.findall(r"[\w/]+\.sv\b", re.sub(r"#.*|\bBENCH [\w.]+", "", line))
            assert not named, f"{path.relative_to(ROOT)}: {line}"

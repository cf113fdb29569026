"""The build of the card's image, as far as it goes without Vivado: the scripts run, and what they name is what the RTL has."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = ROOT / "fpga" / "build"


def printed(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, BUILD / "print_build.py", *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return run.stdout


def refusal(*arguments: str) -> str:
    run = subprocess.run([sys.executable, BUILD / "print_build.py", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    return run.stderr


def interfaces(kernel: str) -> list[str]:
    ports = re.findall(r"(?:input|output) wire (?:\[\d+:0\] )?(\w+)", kernel)
    names = [port.rsplit("_", 1)[0] for port in ports if "axi" in port]
    return list(dict.fromkeys(names))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The commands that Vivado is given for 32 channels, as lists of words."""
    folder = tmp_path_factory.mktemp("vivado")
    kernel = folder / "card_kernel.v"
    kernel.write_text(printed("kernel", "32"))
    record = folder / "record"
    part = printed("platform", "u55c", "part").strip()
    subprocess.run(
        ["tclsh", pathlib.Path(__file__).with_name("vivado.tcl"), record, BUILD / "package_kernel.tcl", "32", part, kernel,
         folder / "mnemo_card.xo", folder / "work"],
        check=True, cwd=ROOT,
    )  # fmt: skip
    return [line.split(" ") for line in record.read_text().splitlines()]


def test_every_source_is_added_once(commands: list[list[str]]) -> None:
    text = "\n".join(" ".join(words) for words in commands if words[0] == "add_files")
    added = re.findall(r"fpga/rtl/[\w/]+\.sv", text)
    assert sorted(added) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "fpga" / "rtl").rglob("*.sv"))
    assert "card_kernel.v" in text


def test_every_port_of_the_kernel_has_a_clock_and_an_argument(commands: list[list[str]]) -> None:
    ports = interfaces(printed("kernel", "32"))
    assert len(ports) == 34
    clocked = [words[words.index("-busif") + 1] for words in commands if words[0] == "ipx::associate_bus_interfaces"]
    assert sorted(clocked) == sorted(ports)
    arguments = [words[1] for words in commands if words[0] == "ipx::add_register"]
    assert arguments == [port for port in ports if port.startswith("m_axi")]
    offsets = [words[2] for words in commands if words[0] == "set_property" and words[1] == "address_offset"]
    assert [int(offset, 16) for offset in offsets] == [0x1000 + 8 * n for n in range(33)]


def test_the_kernel_is_packaged_as_user_managed(commands: list[list[str]]) -> None:
    [package] = [words for words in commands if words[0] == "package_xo"]
    assert package[package.index("-ctrl_protocol") + 1] == "user_managed"
    assert package[package.index("-kernel_name") + 1] == "mnemo_card"
    assert ["set_property", "sdx_kernel", "true"] in [words[:3] for words in commands]


def test_the_interrupt_is_a_level(commands: list[list[str]]) -> None:
    assert "output wire interrupt" in printed("kernel", "2")
    [inferred] = [words for words in commands if words[0] == "ipx::infer_bus_interface"]
    assert inferred[1:3] == ["interrupt", "xilinx.com:signal:interrupt_rtl:1.0"]
    assert [words for words in commands if words[0] == "ipx::add_bus_parameter" and words[1] == "SENSITIVITY"]
    assert [words for words in commands if words[:3] == ["set_property", "value", "LEVEL_HIGH"]]


@pytest.mark.parametrize("card", ["u55c", "u280"])
def test_the_linker_gives_every_memory_port_its_memory(card: str) -> None:
    channels = printed("platform", card, "channels").strip()
    places = dict(re.findall(r"^sp=mnemo_card_1\.(\w+):(\S+)$", printed("link", card), re.MULTILINE))
    ports = [port for port in interfaces(printed("kernel", channels)) if port.startswith("m_axi")]
    assert list(places) == ports
    assert [places[port] for port in ports[:-1]] == [f"HBM[{n}]" for n in range(int(channels))]
    assert places["m_axi_host"] == "HOST[0]"


@pytest.mark.parametrize("channels", [1, 2])
def test_the_kernel_fits_the_card(channels: int, tmp_path: pathlib.Path) -> None:
    """Verilator finds a port that card_top lacks, or one of another width."""
    kernel = tmp_path / "mnemo_card.v"
    kernel.write_text(printed("kernel", str(channels)))
    sources = printed("sources").split()
    lint = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "-Wno-DECLFILENAME", "-Wno-UNUSED", "-Wno-SYMRSVDWORD", "--top-module", "mnemo_card", *sources, kernel],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert lint.returncode == 0, lint.stderr


def test_bad_arguments_are_named() -> None:
    assert "CHANNELS is 3; allowed: 1, 2, 4, 8, 16, 32" in refusal("kernel", "3")
    assert "card 'u50' is not known; there are: u55c, u280" in refusal("link", "u50")
    assert "key 'colour' is not known" in refusal("platform", "u55c", "colour")

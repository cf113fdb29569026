"""Sources of modules that the simulator compiles once."""

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
RTL = ROOT / "fpga" / "rtl"
VALUES = ["CHANNELS=8", "G=4", "S=16", "BANK_WORDS=4096", "N_QUEUES=8"]
TOP = f"card_top={RTL / 'card_top.sv'}"
LANE = f"lane={RTL / 'scan' / 'lane.sv'}"


def run(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "fpga" / "sim" / "print_blocks.py", folder, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_block_has_plain_ports_and_no_parameters(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path, *VALUES, TOP, LANE).returncode == 0
    text = (tmp_path / "lane.sv").read_text()
    block = text[text.index("module lane_block"):]
    block = block[:block.index("endmodule")]
    assert "parameter int" not in block.replace("localparam int", "")
    assert "localparam int CHANNELS = 8" in block
    assert "input logic [$bits(scan_job_t)-1:0] p_job" in block
    assert "hier_block" in block
    assert "parameter int CHANNELS = 8" in (tmp_path / "card_top.sv").read_text()


def test_what_cannot_be_a_block_is_named(tmp_path: pathlib.Path) -> None:
    assert "no module nothing" in run(tmp_path, *VALUES, TOP, f"nothing={RTL / 'scan' / 'lane.sv'}").stderr
    assert "no parameter DEPTH" in run(tmp_path, "DEPTH=1", TOP, LANE).stderr
    selector = run(tmp_path, *VALUES, TOP, f"selector={RTL / 'select' / 'selector.sv'}").stderr
    assert "an array of card_types::score_head_t" in selector
    assert "absent.sv" in run(tmp_path, *VALUES, TOP, "lane=absent.sv").stderr

"""The scripts that measure the RTL: counts and levels of netlists whose answers are known."""

from __future__ import annotations

import collections
import json
import pathlib
import re
import sys
from typing import Any

import pytest
import tree

sys.path.insert(0, str(tree.ROOT / "fpga" / "tools"))

import ceilings  # noqa: E402
import cover_points  # noqa: E402
import coverage  # noqa: E402
import joined  # noqa: E402
import lint  # noqa: E402
import netlist  # noqa: E402
import rtl_sources  # noqa: E402


def cell(kind: str, outputs: dict[str, list[Any]], parameters: dict[str, Any] | None = None, **inputs: list[Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "parameters": parameters or {},
        "port_directions": {**dict.fromkeys(inputs, "input"), **dict.fromkeys(outputs, "output")},
        "connections": {**inputs, **outputs},
    }


def module(cells: dict[str, Any], inputs: list[int] = [], outputs: list[int] = []) -> netlist.Netlist:
    ports = {"a": {"direction": "input", "bits": inputs}, "y": {"direction": "output", "bits": outputs}}
    return netlist.Netlist({"cells": cells, "ports": ports})


def flop(into: int, out: int) -> dict[str, Any]:
    return cell("FDRE", {"Q": [out]}, C=[2], D=[into], CE=["1"], R=["0"])


def test_a_carry_chain_counts_one_level() -> None:
    chain = {f"c{at}": cell("CARRY4", {"CO": [20 + at]}, CI=[19 + at], DI=["0"], S=["1"]) for at in range(1, 9)}
    levels = module({
        "from": flop(90, 10), "first": cell("LUT2", {"O": [20]}, I0=[10], I1=["0"]), **chain,
        "last": cell("LUT6", {"O": [30]}, I0=[28], I1=[10]), "to": flop(30, 31),
    }, [2, 90], [31]).levels()
    assert levels.register == 3
    assert levels.path[0].startswith("FDRE.D to") and levels.path[-1] == "FDRE from" and len(levels.path) == 12
    assert levels.port == 0


def test_ends_of_long_paths_have_the_names_of_their_signals() -> None:
    cells = {
        "from": flop(3, 10), "a": cell("LUT1", {"O": [11]}, I0=[10]), "b": cell("LUT1", {"O": [12]}, I0=[11]),
        "to0": flop(11, 20), "to1": flop(12, 21), "to2": flop(12, 22), "short": flop(10, 23),
        "enabled": cell("FDRE", {"Q": [24]}, C=[2], D=[10], CE=[11], R=["0"]), "port": flop(4, 25),
    }
    names = {"in.deep.start": [10], "start": [10], "sub.to": [20, 21, 22], "$auto$1": [23], "gate": [24]}
    nets = {name: {"bits": bits, "hide_name": int(name[0] == "$")} for name, bits in names.items()}
    flat = netlist.Netlist({"cells": cells, "ports": {}, "netnames": nets})
    end = netlist.End
    assert flat.ends(0) == [end(2, "sub.to", "D", 3, "start"), end(1, "gate", "CE", 1, "start")]
    assert flat.ends(1) == [end(2, "sub.to", "D", 2, "start")] and flat.ends(2) == []
    assert flat.levels().path == ["FDRE.D sub.to[1]", "LUT1 b", "LUT1 a", "FDRE start"]


def test_paths_of_ports_are_told_apart() -> None:
    levels = module({
        "in": cell("LUT1", {"O": [10]}, I0=[3]), "to": flop(10, 11), "a": cell("LUT1", {"O": [12]}, I0=[11]),
        "b": cell("INV", {"O": [13]}, I=[12]), "c": cell("MUXF7", {"O": [14]}, I0=[13], I1=["0"], S=["1"]),
        "d": cell("MUXF8", {"O": [15]}, I0=[14], I1=["0"], S=["1"]),
    }, [2, 3], [15]).levels()
    assert (levels.register, levels.port) == (0, 2)


def test_paths_across_parts_are_joined() -> None:
    """Two parts in a third: from a register of one through logic of all three to one of the other; a port passes on, too."""
    def lut(into: int, out: int) -> dict[str, Any]:
        return cell("LUT1", {"O": [out]}, I0=[into])

    def part(cells: dict[str, Any], into: list[int], out: list[int], names: dict[str, list[int]] = {}) -> dict[str, Any]:
        ports = {"clk": {"direction": "input", "bits": [2]}, "a": {"direction": "input", "bits": into}, "y": {"direction": "output", "bits": out}}
        return {"cells": cells, "ports": ports, "netnames": {name: {"bits": bits} for name, bits in names.items()}}

    # Bit 0 of a part's output: a register with a LUT behind it; bit 1: its input with a LUT, and without one bit 2.
    its = part({"from": flop(3, 10), "l": lut(10, 11), "m": lut(3, 12), "n": lut(4, 20), "o": lut(20, 21), "to": flop(21, 22), "q": flop(4, 23)},
               [3, 4], [11, 12, 3], {"kept[1]": [22]})
    box = {"clk": [2], "a": [30, 31]}
    modules = {
        "part": its,
        "top": part({"one": cell("part$1", {"y": [32, 33, 34]}, **box), "two[0]": cell("\\part$2", {"y": [36, 37, 38]}, clk=[2], a=["0", 35]),
                     "two[1]": cell("\\part$2", {"y": [46, 47, 48]}, clk=[2], a=["0", 34]),
                     "l": lut(32, 35), "start": flop(31, 30)}, [31], []),
    }
    whole = joined.Joined(modules, "top")
    assert whole.instances == {(): "top", ("one",): "part", ("two[0]",): "part", ("two[1]",): "part"}
    # The LUT of `one`, that of the top, and two of `two`. What comes from a port of the top has no register.
    assert whole.ends(0) == [joined.Crossing(4, "part.kept", ("part.y", "top.two.a"))]
    assert whole.ends(4) == []
    modules["top"]["cells"]["l"] = lut(33, 35)  # from the top's register through `one`, which has one LUT on this way
    assert joined.Joined(modules, "top").ends(3) == [joined.Crossing(4, "part.kept", ("top.one.a", "part.y", "top.two.a"))]
    del modules["top"]["cells"]["l"]  # what is left goes through `one` without a LUT
    assert joined.Joined(modules, "top").ends(0) == [joined.Crossing(2, "part.kept", ("top.one.a", "part.y", "top.two.a"))]


def test_lut_ram_begins_a_path_and_passes_its_address() -> None:
    ram = cell("RAM32M16", {"DOA": [20]}, ADDRA=[10], ADDRH=[11], DIA=[12], WE=["1"], WCLK=[2])
    levels = module({
        "address": flop(3, 9), "decode": cell("LUT1", {"O": [10]}, I0=[9]), "ram": ram,
        "write": cell("LUT1", {"O": [12]}, I0=[9]), "after": cell("LUT1", {"O": [21]}, I0=[20]), "to": flop(21, 22),
    }, [2, 3], [22]).levels()
    assert levels.register == 3


# Cells before and behind a product, whether it has a register of its own, and what is found.
PRODUCTS = [(False, False, "0", 3, 0), (True, False, "0", 4, 1), (False, True, "0", 4, 1), (True, True, "1", 1, 0)]


@pytest.mark.parametrize(("before", "behind", "own", "levels", "loose"), PRODUCTS)
def test_a_product_wants_registers_at_its_sides(before: bool, behind: bool, own: str, levels: int, loose: int) -> None:
    parameters = dict.fromkeys(["AREG", "BREG", "PREG"], "0") | {"MREG": own}
    cells = {
        "from": flop(3, 10), "product": cell("DSP48E2", {"P": [12]}, parameters, A=[11], B=["0"], CLK=[2]), "to": flop(13, 14),
        "before": cell("LUT1" if before else "INV", {"O": [11]}, I0=[10]), "behind": cell("LUT1" if behind else "INV", {"O": [13]}, I0=[12]),
    }
    found = module(cells, [2, 3], [14]).levels()
    assert (found.register, found.loose_products) == (levels, loose)


def test_a_part_of_its_own_is_no_part_of_the_netlist() -> None:
    cells = {
        "from": flop(3, 10), "box": cell("lane", {"open": [11]}, rst=[12]), "before": cell("LUT1", {"O": [12]}, I0=[10]),
        "behind": cell("LUT2", {"O": [13]}, I0=[11], I1=["0"]), "last": cell("LUT1", {"O": [14]}, I0=[13]), "to": flop(14, 15),
    }
    flat = netlist.Netlist({"cells": cells, "ports": {}}, frozenset(["lane"]))
    assert netlist.count(flat.types(), 3).ff == 2
    levels = flat.levels()
    assert (levels.register, levels.port) == (0, 2)
    with pytest.raises(ValueError, match="lane"):
        netlist.count(netlist.Netlist({"cells": cells, "ports": {}}).types(), 3)


def test_a_loop_of_logic_is_an_error() -> None:
    loop = {"a": cell("LUT1", {"O": [10]}, I0=[11]), "b": cell("LUT1", {"O": [11]}, I0=[10])}
    with pytest.raises(ValueError, match="a loop of logic"):
        module(loop).levels()


def test_counts() -> None:
    types = collections.Counter({"LUT6": 4, "LUT2": 2, "FDRE": 7, "DSP48E2": 2, "RAMB18E2": 3, "URAM288": 1, "RAM32M16": 2, "SRL16E": 5,
                                 "CARRY4": 9, "MUXF7": 1, "INV": 1})
    counts = netlist.count(types, 5)
    assert counts == netlist.Counts(lut=6, packed=5 + 16 + 5, ff=7, dsp=2, bram=1.5, uram=1)
    assert netlist.Counts().plus(counts, 32).packed == 32 * 26
    with pytest.raises(ValueError, match=r"\$_AND_"):
        netlist.count(collections.Counter({"$_AND_": 1}), 0)


def test_sources_come_behind_what_they_use(tmp_path: pathlib.Path) -> None:
    texts = {
        "top": "module top import a_types::*; (input a_types::word_t x);\n  // not_used #(3) u ();\n  mid #(.N(2)) m [1:0] (.x);\nendmodule\n",
        "mid": "module mid #(parameter int N = 1) (input logic x);\n  low u_low (.x(x));\nendmodule\n",
        "low": "module low (input logic x);\nendmodule\n",
        "not_used": "module not_used;\nendmodule\n",
        "a_types": "package a_types;\n  typedef b_types::word_t word_t;\nendpackage\n",
        "b_types": "package b_types;\n  typedef logic [3:0] word_t;\nendpackage\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.sv").write_text(text)
    known = rtl_sources.units(tmp_path)
    assert [path.stem for path in rtl_sources.closure("top", known)] == ["b_types", "a_types", "low", "mid", "top"]
    assert rtl_sources.modules(known) == ["low", "mid", "not_used", "top"]
    with pytest.raises(KeyError, match="no module absent"):
        rtl_sources.closure("absent", known)


def test_coverage_takes_the_best_of_a_line_and_sums_points() -> None:
    def point(count: int, **fields: str) -> str:
        return "C '" + "".join(f"\1{key}\2{value}" for key, value in fields.items()) + f"' {count}\n"

    file = str(tree.ROOT / "fpga" / "rtl" / "base" / "fifo.sv")
    found = coverage.Coverage({}, {}, {})
    found.merge("# SystemC::Coverage-3\n" + point(0, f=file, l="3", n="1", page="v_line/fifo", S="3-5", h="TOP.a")
                + point(7, f=file, l="5", n="5", page="v_branch/fifo", S="5", h="TOP.a")
                + point(0, f=file, l="5", n="6", page="v_branch/fifo", h="TOP.a")
                + point(0, f=file, l="6", n="6", page="v_line/fifo", o="else", h="TOP.a")  # of an assertion
                + point(2, f=file, l="4", n="1", page="v_line/fifo", S="4,8", h="TOP.a"))
    written = "fpga/build/cover_points.sv"
    for place, count in (("TOP.a", 1), ("TOP.b", 0)):
        found.merge(point(count, f=written, l="9", page="v_user/fifo_points__D10", o="full", h=f"{place}.cover_points.full"))
    found.merge(point(0, f=written, l="9", page="v_user/check_points", o="rule", h="TOP.c.cover_points.g__BRA__12__KET__.rule"))
    assert found.lines == {"fpga/rtl/base/fifo.sv": {3: 0, 4: 2, 5: 7, 8: 2}}
    assert found.branches == {"fpga/rtl/base/fifo.sv:5:5": 7, "fpga/rtl/base/fifo.sv:5:6": 0}
    assert found.points == {"fifo.full": 1, "check.rule[12]": 0}
    assert coverage.lines_of("7,9-11") == [7, 9, 10, 11] and coverage.ranges([7, 9, 10, 11]) == "7, 9-11"


def test_what_is_not_covered_has_a_reason_and_no_reason_is_left() -> None:
    texts = {"a.sv": ["if (x)", "  y <= 1;", "default: ;", "  default: ;"]}
    found = coverage.Coverage({"a.sv": {1: 5, 2: 0, 3: 0, 4: 3}}, {}, {"a.full": 0, "a.empty": 2})
    none = coverage.Reasons({}, {})
    assert coverage.findings(found, none, texts) == [
        "a.sv:2: never runs: y <= 1;", "a.sv:3: never runs: default: ;", "cover point never reached: a.full"]
    good = coverage.Reasons({"a.sv": {"y <= 1;": "why", "default: ;": "why"}}, {"a.full": "why"})
    assert coverage.findings(found, good, texts) == []
    bad = coverage.Reasons({"a.sv": {**good.lines["a.sv"], "if (x)": "why", "z;": "why"}, "b.sv": {"z;": "why"}},
                           {**good.points, "a.empty": "why", "a.gone": "why"})
    assert [re.sub(r".*coverage.toml has ", "", line) for line in coverage.findings(found, bad, texts)] == [
        "a reason for a line that runs: if (x)", "a reason for a line that is not there: z;", "a reason for a line that is not there: z;",
        "a reason for a cover point that is reached: a.empty", "a reason for a cover point that is not there: a.gone"]


def test_cover_points_are_those_of_streams_and_of_the_table() -> None:
    text = """// module not_this (input logic a_valid, output logic a_ready);
module turn #(parameter int N = 2) (
    input  logic         clk,
    input  logic         rst,
    input  logic [N-1:0] run_valid,
    output logic [N-1:0] run_ready,
    output logic         s_rvalid,
    input  logic         s_rready,
    input  logic         open_valid  // no stream
);
endmodule
module wires (
    input  logic a_valid,
    output logic a_ready
);
endmodule
"""
    found = cover_points.points(text, {"turn": {"full": "level == N", "each[N]": "grant"}})
    point = cover_points.Point
    assert found == {"turn": [
        point("run_stalls", "|(run_valid & ~run_ready)"), point("run_waits", "|(run_ready & ~run_valid)"),
        point("s_r_stalls", "|(s_rvalid & ~s_rready)"), point("s_r_waits", "|(s_rready & ~s_rvalid)"),
        point("full", "level == N"), point("each", "grant", "N")]}
    written = cover_points.code("turn", found["turn"])
    assert "  full: cover property (@(posedge clk) disable iff (rst) armed && see_full);" in written
    assert "bind turn turn_points #(.N_each(N)) cover_points (" in written and "  .see_each(grant)" in written
    assert set(cover_points.read_table()) <= set(rtl_sources.modules())


def test_lint_names_a_cover_point_of_what_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    table = tmp_path / "cover_points.toml"
    table.write_text('[arbiter]\nnone = "no_such_name"\n')
    monkeypatch.setattr(cover_points, "TABLE", table)
    found = lint.points(rtl_sources.units())
    assert found and all("no_such_name" in line for line in found), found


def test_reasons_are_of_lines_and_cover_points_that_exist() -> None:
    reasons = coverage.Reasons.read(coverage.REASONS)
    for path, entries in reasons.lines.items():
        texts = {line.strip() for line in tree.read(path).splitlines()}
        assert set(entries) <= texts, path
    table = cover_points.read_table()
    known = {f"{module}.{point.name}" for unit in rtl_sources.units().values()
             for module, seen in cover_points.points(unit.path.read_text(encoding="utf-8"), table).items() for point in seen}
    assert {re.sub(r"\[\d+\]$", "", point) for point in reasons.points} <= known
    assert all(len(reason.split()) >= 5 for reason in reasons.points.values())


def test_parts_of_the_card_are_modules_with_these_parameters() -> None:
    plan = json.loads(tree.read("fpga/tools/parts.json"))
    known = rtl_sources.units()
    for part in plan["parts"]:
        text = known[part["module"]].path.read_text(encoding="utf-8")
        for name in part["parameters"]:
            assert re.search(rf"parameter\s+(?:int\s+)?{name}\b", text), f"{part['module']} has no parameter {name}"
    assert set(plan["bounds"]) <= set(vars(netlist.Counts()))
    parts = [part["module"] for part in plan["parts"]]
    # The card's parts make up the card: the top is one, and what a part stands without is another.
    assert "card_top" in parts and {name for part in plan["parts"] for name in part.get("without", [])} == set(parts) - {"card_top"}


def test_each_module_has_a_ceiling() -> None:
    assert ceilings.strangers(ceilings.Table.read(ceilings.TABLE), rtl_sources.modules()) == []


def test_ceilings_find_what_grew_shrank_or_became_deeper(tmp_path: pathlib.Path) -> None:
    size = ceilings.Size
    table = ceilings.Table(700, 0.1, 16, {"a": size(1000, 5), "b": size(10, 2), "gone": size(1, 1)}, ["large"])
    assert ceilings.findings(table, {"a": size(1100, 5), "b": size(26, 2), "new": size(5, 5)}) == []
    assert ceilings.findings(table, {"a": size(1101, 5)}) == ["a: grew from 1000 packed LUT to 1101, by more than 10 %"]
    assert ceilings.findings(table, {"a": size(899, 5)}) == ["a: shrank from 1000 packed LUT to 899, by more than 10 %"]
    assert ceilings.findings(table, {"b": size(27, 4)}) == [
        "b: grew from 10 packed LUT to 27, by more than 16 LUT", "b: 4 LUT levels between registers, recorded are 2"]
    assert [line.split(":")[0] for line in ceilings.strangers(table, ["a", "b", "large", "new"])] == ["new", "gone"]
    table.record({"large": size(9000, 6), "a": size(1050, 5)}, ["a", "b", "large"])
    assert table.modules == {"a": size(1050, 5), "b": size(10, 2), "large": size(9000, 6)} and table.unmeasured == []
    table.write(tmp_path / "table.json")
    assert ceilings.Table.read(tmp_path / "table.json") == table
    text = "=== fifo ===\n\n   Number of cells: 3\n   Estimated number of LCs:         27\n\n=== skid ===\n   Estimated number of LCs:  11\n"
    assert ceilings.estimates(text) == {"fifo": 27, "skid": 11}

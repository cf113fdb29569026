"""Counts resources and LUT levels in a netlist that Yosys mapped for Xilinx UltraScale+ (write_json).

Levels: the LUTs in a row from one register (or RAM or DSP with a register) to the next. A LUT, a read of LUT RAM, a whole carry chain and
the wide multiplexers (MUXF7 to 9) behind a LUT count one each. Paths from and to ports are told apart: what lies behind a port is another
module's. Yosys moves no registers into DSPs of this family, so a DSP counts three: registers belong directly at both of its sides."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

# Cells with a clock, all of whose inputs end a path and whose outputs begin one.
REGISTERS = re.compile(r"FD[RSCP]E(_1)?|LD[CP]E|RAMB\w+|URAM\w+")
LUT_RAM = re.compile(r"RAM\d+[MX]\w*")
SHIFT = re.compile(r"SRL\w+")
CARRY = re.compile(r"CARRY[48]")
WIDE = re.compile(r"MUXF[789]")
CHAINS = (CARRY, WIDE)  # parts in a row count once
FREE = {"INV", "BUFG", "IBUF", "OBUF", "VCC", "GND"}
# LUTs that a LUT RAM takes.
RAM_LUTS = {
    "RAM32X1S": 1, "RAM32X1D": 2, "RAM64X1S": 1, "RAM64X1D": 2, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM256X1D": 8,
    "RAM512X1S": 8, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8,
}
DSP_LEVELS = 3


@dataclasses.dataclass
class Counts:
    lut: float = 0.0  # logic, as mapped
    packed: float = 0.0  # logic with two small LUTs in one, by Yosys' estimate, and LUT RAM and shift registers
    ff: float = 0.0
    dsp: float = 0.0
    bram: float = 0.0  # blocks of 36 Kb
    uram: float = 0.0

    def plus(self, other: Counts, times: float = 1.0) -> Counts:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Counts(*(mine + times * its for mine, its in pairs))


def count(types: collections.Counter[str], logic_cells: int) -> Counts:
    """Resources of a netlist's cells; logic_cells: Yosys' estimate (stat -tech xilinx), with two small LUTs in one."""
    result = Counts()
    memory = 0
    for name, number in types.items():
        if re.fullmatch(r"LUT[1-6]", name):
            result.lut += number
        elif re.fullmatch(r"FD[RSCP]E(_1)?|LD[CP]E", name):
            result.ff += number
        elif name.startswith("DSP48"):
            result.dsp += number
        elif name.startswith("RAMB36"):
            result.bram += number
        elif name.startswith("RAMB18"):
            result.bram += number / 2
        elif name.startswith("URAM"):
            result.uram += number
        elif LUT_RAM.fullmatch(name):
            if name not in RAM_LUTS:
                raise ValueError(f"no size is known of {name}")
            memory += RAM_LUTS[name] * number
        elif SHIFT.fullmatch(name):
            memory += number
        elif not CARRY.fullmatch(name) and not name.startswith("MUXF") and name not in FREE:
            raise ValueError(f"no resource is known of {name}: is the netlist mapped?")
    result.packed = logic_cells + memory
    return result


@dataclasses.dataclass
class Levels:
    register: int  # the longest path between registers
    port: int  # the longest path from or to a port
    path: list[str]  # the longest path between registers, its end first
    loose_products: int  # DSPs without a register, with logic before or behind them


@dataclasses.dataclass
class End:
    """A place where paths between registers end: a pin of all bits of one signal."""
    levels: int  # of the longest path to it
    signal: str  # the register's, without the bit
    pin: str
    bits: int  # whose path is longer than the bound
    begin: str  # the signal where the longest path begins


class Netlist:
    """One flat module of Yosys' JSON. Modules in `without` are boxes that another netlist holds: their ports are ports."""

    def __init__(self, module: dict[str, Any], without: frozenset[str] = frozenset()):
        boxes = [cell for cell in module["cells"].values() if cell["type"] in without]
        self.cells: dict[str, Any] = {name: cell for name, cell in module["cells"].items() if cell["type"] not in without}
        self.outputs = [bit for port in module["ports"].values() if port["direction"] == "output" for bit in port["bits"]]
        self.outputs += [bit for box in boxes for port, bits in box["connections"].items() if box["port_directions"][port] == "input" for bit in bits]
        self.drivers: dict[int, tuple[str, str]] = {}
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "output":
                    self.drivers.update((bit, (name, port)) for bit in bits if isinstance(bit, int))
        # A bit has the name highest in the hierarchy, then the shortest.
        self.names: dict[int, str] = {}
        named = [(name, net["bits"]) for name, net in module.get("netnames", {}).items() if not net.get("hide_name")]
        for name, bits in sorted(named, key=lambda one: (one[0].count("."), len(one[0]), one[0])):
            for at, bit in enumerate(bits):
                self.names.setdefault(bit, name if len(bits) == 1 else f"{name}[{at}]")

    def types(self) -> collections.Counter[str]:
        return collections.Counter(cell["type"] for cell in self.cells.values())

    @staticmethod
    def _number(cell: dict[str, Any], parameter: str) -> int:
        value = cell.get("parameters", {}).get(parameter, 1)
        return int(value, 2) if isinstance(value, str) else int(value)

    def _bare(self, cell: dict[str, Any]) -> bool:
        return cell["type"].startswith("DSP48") and not any(self._number(cell, name) for name in ("AREG", "BREG", "MREG", "PREG"))

    def _through(self, name: str) -> tuple[list[str], int]:
        """Input ports that reach the cell's outputs without a clock, and the levels of that way."""
        cell = self.cells[name]
        kind = cell["type"]
        inputs = [port for port, direction in cell["port_directions"].items() if direction == "input"]
        if REGISTERS.fullmatch(kind):
            return [], 0
        if kind.startswith("DSP48"):
            return (inputs, DSP_LEVELS) if self._bare(cell) else ([], 0)
        if LUT_RAM.fullmatch(kind):
            # Read addresses: DPRA of the two-port forms, A to G of the wide ones, whose H is the write address.
            return [port for port in inputs if re.fullmatch(r"DPRA\d*|ADDR[A-G]|A\d*", port)], 1
        if SHIFT.fullmatch(kind):
            return [port for port in inputs if re.fullmatch(r"A\d*", port)], 1
        return inputs, 0 if kind in FREE else 1

    def _begin(self, name: str, through: list[str], cost: int) -> int:
        """Levels to the cell's outputs of the path that begins in it, as in a register or a RAM that is read without a clock; else -1."""
        if not through:
            return 0
        kind = self.cells[name]["type"]
        return cost if LUT_RAM.fullmatch(kind) or SHIFT.fullmatch(kind) else -1

    def _behind(self, name: str, driver: str | None, cost: int) -> int:
        """Levels that the cell adds to what comes from the driver: none within a chain."""
        if driver is None:
            return cost
        kinds = self.cells[name]["type"], self.cells[driver]["type"]
        return 0 if any(all(map(chain.fullmatch, kinds)) for chain in CHAINS) else cost

    @functools.cached_property
    def _reach(self) -> dict[str, tuple[int, int, str | None]]:
        """By cell: levels up to its outputs, from registers and from ports, and the cell before it on the longest way."""
        reach: dict[str, tuple[int, int, str | None]] = {}
        for root in self.cells:
            self._visit(root, reach)
        return reach

    def _signal(self, name: str) -> str:
        """The name of the cell's first output that has one, else the cell's."""
        cell = self.cells[name]
        outputs = [bit for port, bits in cell["connections"].items() if cell["port_directions"][port] == "output" for bit in bits]
        return next((self.names[bit] for bit in outputs if bit in self.names), name)

    def _pins(self) -> Iterator[tuple[str, str, int | str]]:
        """Cell, port and bit where a path ends."""
        for name, cell in self.cells.items():
            through, _ = self._through(name)
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input" and port not in through:
                    yield from ((name, port, bit) for bit in bits)

    def levels(self) -> Levels:
        reach = self._reach
        best = Levels(0, 0, [], len(self._loose(reach)))
        end: str | None = None
        for name, port, bit in self._pins():
            register, outside, _ = self._arrival(bit, reach)
            best.port = max(best.port, outside)
            if register > best.register:
                best.register, end = register, self.drivers[bit][0]
                best.path = [f"{self.cells[name]['type']}.{port} {self._signal(name)}"]
        for bit in self.outputs:
            best.port = max(best.port, *self._arrival(bit, reach)[:2])
        while end is not None:
            best.path.append(f"{self.cells[end]['type']} {self._signal(end)}")
            end = reach[end][2]
        return best

    def ends(self, over: int) -> list[End]:
        """The ends of all paths between registers of more than `over` levels, the longest first."""
        found: dict[tuple[str, str], End] = {}
        for name, port, bit in self._pins():
            levels, _, driver = self._arrival(bit, self._reach)
            if levels <= over or driver is None:
                continue
            signal = re.sub(r"\[\d+\]$", "", self._signal(name))
            end = found.setdefault((signal, port), End(0, signal, port, 0, ""))
            end.bits += 1
            if levels > end.levels:
                before: str | None = driver
                while before is not None:
                    driver, before = before, self._reach[before][2]
                end.levels, end.begin = levels, self._signal(driver)
        return sorted(found.values(), key=lambda end: (-end.levels, end.signal, end.pin))

    def _loose(self, reach: dict[str, tuple[int, int, str | None]]) -> set[str]:
        found = set()
        for name, cell in self.cells.items():
            bare = self._bare(cell)
            through, cost = self._through(name)
            for port in cell["connections"] if bare else through:
                for bit in cell["connections"][port]:
                    if cell["port_directions"][port] != "input" or bit not in self.drivers:
                        continue
                    driver = self.drivers[bit][0]
                    if bare and max(reach[driver][:2]) > 0:
                        found.add(name)
                    elif not bare and cost > 0 and self._bare(self.cells[driver]):
                        found.add(driver)
        return found

    def _arrival(self, bit: int | str, reach: dict[str, tuple[int, int, str | None]]) -> tuple[int, int, str | None]:
        """Levels up to a bit: from registers and from ports; minus one where there is no such way."""
        if isinstance(bit, str):  # a constant
            return -1, -1, None
        if bit not in self.drivers:
            return -1, 0, None
        name = self.drivers[bit][0]
        return reach[name][0], reach[name][1], name

    def _visit(self, root: str, reach: dict[str, tuple[int, int, str | None]]) -> None:
        """Depth first without recursion: chains of cells are longer than Python's stack."""
        stack = [(root, False)]
        active: set[str] = set()
        while stack:
            name, ready = stack.pop()
            if name in reach:
                continue
            cell = self.cells[name]
            through, cost = self._through(name)
            bits = [bit for port in through for bit in cell["connections"].get(port, []) if isinstance(bit, int)]
            if not ready:
                if name in active:
                    raise ValueError(f"a loop of logic passes {cell['type']} {name}")
                active.add(name)
                stack.append((name, True))
                for bit in bits:
                    if bit in self.drivers and self.drivers[bit][0] not in reach:
                        if self.drivers[bit][0] in active:
                            raise ValueError(f"a loop of logic passes {cell['type']} {name}")
                        stack.append((self.drivers[bit][0], False))
                continue
            active.discard(name)
            register, outside, before = self._begin(name, through, cost), -1, None
            for bit in bits:
                its_register, its_outside, driver = self._arrival(bit, reach)
                add = self._behind(name, driver, cost)
                if its_register >= 0 and its_register + add > register:
                    register, before = its_register + add, driver
                if its_outside >= 0:
                    outside = max(outside, its_outside + add)
            reach[name] = (register, outside, before)

"""Levels of paths that cross the parts of the full card (parts.json), which no part's own netlist shows.

Parts are mapped apart. Each netlist tells the levels from its ports, and from those of the parts within it, to the next port or register; a
walk over all instances adds them up. Levels are those of netlist.py."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import netlist

# A bit of a port: the box within the part that has it ("": the part itself), the port, the bit.
Pin = tuple[str, str, int]
# Where an instance stands: the names of boxes from the top on.
Place = tuple[str, ...]
# Levels to a bit from registers, -1 without such a way, and from each pin where paths come in.
Ways = tuple[int, dict[Pin, int]]
NOWHERE: Ways = (-1, {})


@dataclasses.dataclass(frozen=True)
class Crossing:
    """The longest of the paths that come from other parts and end at one signal, in all instances of a part."""
    levels: int
    end: str  # part and signal
    way: tuple[str, ...]  # the ports that it crosses, the first one first


def without_numbers(name: str) -> str:
    return re.sub(r"\[\d+\]", "", name)


class Part(netlist.Netlist):
    """A mapped part whose cells of the types `boxes` are other parts."""

    def __init__(self, module: dict[str, Any], boxes: dict[str, str]):
        super().__init__(module, frozenset(boxes))
        self.boxes = {name: boxes[cell["type"]] for name, cell in module["cells"].items() if cell["type"] in boxes}
        self.sources: dict[int, Pin] = {}
        self.sinks: dict[Pin, int | str] = {}
        for port, its in module["ports"].items():
            self._add("", port, its["bits"], comes_in=its["direction"] == "input")
        for name in self.boxes:
            cell = module["cells"][name]
            for port, bits in cell["connections"].items():
                self._add(name, port, bits, comes_in=cell["port_directions"][port] == "output")
        self._known: dict[str, Ways] = {}
        self.reached: dict[Pin, tuple[int, str]] = {}  # the longest way from a pin to a register, and the register's signal
        for name, _, bit in self._pins():
            for pin, levels in self.ways(bit)[1].items():
                if levels > self.reached.get(pin, (-1, ""))[0]:
                    self.reached[pin] = levels, self._signal(name)

    def _add(self, box: str, port: str, bits: list[int | str], comes_in: bool) -> None:
        for at, bit in enumerate(bits):
            if not comes_in:
                self.sinks[box, port, at] = bit
            elif isinstance(bit, int):
                self.sources[bit] = (box, port, at)

    def ways(self, bit: int | str) -> Ways:
        if isinstance(bit, str):  # a constant
            return NOWHERE
        if bit in self.sources:
            return -1, {self.sources[bit]: 0}
        return self._of(self.drivers[bit][0]) if bit in self.drivers else NOWHERE

    def _of(self, root: str) -> Ways:
        """Depth first without recursion, as Netlist._visit, which has refused loops."""
        stack = [root]
        while stack:
            name = stack[-1]
            through, cost = self._through(name)
            bits = [bit for port in through for bit in self.cells[name]["connections"].get(port, []) if isinstance(bit, int)]
            before = {self.drivers[bit][0] for bit in bits if bit not in self.sources and bit in self.drivers}
            missing = [one for one in before if one not in self._known]
            if name not in self._known and missing:
                stack += missing
                continue
            stack.pop()
            if name not in self._known:
                self._known[name] = self._join(name, bits, through, cost)
        return self._known[root]

    def _join(self, name: str, bits: list[int], through: list[str], cost: int) -> Ways:
        register = self._begin(name, through, cost)
        found: dict[Pin, int] = {}
        for bit in bits:
            its_register, its_pins = self.ways(bit)
            add = self._behind(name, self.drivers.get(bit, (None,))[0], cost)
            if its_register >= 0:
                register = max(register, its_register + add)
            for pin, levels in its_pins.items():
                found[pin] = max(found.get(pin, -1), levels + add)
        return register, found


class Joined:
    """All instances of parts below one of them. modules: the mapped module of each part, by the part's name."""

    def __init__(self, modules: dict[str, dict[str, Any]], top: str):
        types = {cell["type"] for module in modules.values() for cell in module["cells"].values()}
        # A type has the part's name, and behind a $ what tells its parameters.
        boxes = {kind: name for kind in types if (name := kind.lstrip("\\").partition("$")[0]) in modules}
        self.parts = {name: Part(module, boxes) for name, module in modules.items()}
        self.instances: dict[Place, str] = {}
        self._add((), top)
        self._known: dict[tuple[Place, Pin], tuple[int, tuple[str, ...]]] = {}

    def _add(self, place: Place, part: str) -> None:
        self.instances[place] = part
        for box, its_part in self.parts[part].boxes.items():
            self._add((*place, box), its_part)

    def _arrival(self, place: Place, source: Pin) -> tuple[int, tuple[str, ...]]:
        """Levels up to where a path comes into an instance, -1 without such a path, and the ports up to there."""
        box, port, bit = source
        if box:
            return self._departure((*place, box), ("", port, bit))
        return self._departure(place[:-1], (place[-1], port, bit)) if place else (-1, ())

    def _departure(self, place: Place, sink: Pin) -> tuple[int, tuple[str, ...]]:
        """The same of where it leaves one."""
        key = (place, sink)
        if key not in self._known:
            self._known[key] = (-1, ())  # a loop through ports is none of registers, which a part's own count refuses
            part = self.parts[self.instances[place]]
            register, pins = part.ways(part.sinks[sink]) if sink in part.sinks else NOWHERE
            name = f"{self.instances[place]}.{'.'.join(filter(None, sink[:2]))}"
            best, way = (register, (name,)) if register >= 0 else (-1, ())
            for pin, levels in pins.items():
                before, its_way = self._arrival(place, pin)
                if before >= 0 and before + levels > best:
                    best, way = before + levels, (*its_way, name)
            self._known[key] = best, way
        return self._known[key]

    def ends(self, over: int) -> list[Crossing]:
        """The ends of paths across parts of more than `over` levels, the longest first."""
        found: dict[str, Crossing] = {}
        for place, name in self.instances.items():
            for pin, (levels, signal) in self.parts[name].reached.items():
                before, way = self._arrival(place, pin)
                if before < 0 or before + levels <= over:
                    continue
                end = f"{name}.{without_numbers(signal)}"
                if end not in found or found[end].levels < before + levels:
                    found[end] = Crossing(before + levels, end, tuple(without_numbers(one) for one in way))
        return sorted(found.values(), key=lambda one: (-one.levels, one.end))

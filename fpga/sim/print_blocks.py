"""Writes the sources of a design whose large modules the simulator compiles once, however many instances there are.

    print_blocks.py FOLDER PARAMETER=VALUE... TOP=FILE MODULE=FILE...

Verilator compiles a hierarchical block by itself, but takes no structs as its ports, and loses parameters that have their defaults. For each
MODULE of FILE the folder gets MODULE.sv with three modules: MODULE_core is the file's; MODULE_block, the hierarchical block, has its ports as
plain vectors, the given values and no parameters, and holds it; MODULE has the parameters and ports of the file and holds the block, so that
what instantiates MODULE stays as it is. Other values than the given ones are an error. TOP.sv is TOP with the values as its defaults.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys

HEADER = re.compile(r"^module\s+(?P<name>\w+)(?P<imports>(?:\s+import\s+[\w:*]+\s*;)*)\s*#\(\n(?P<parameters>.*?)\n\)\s*\(\n(?P<ports>.*?)\n\);",
                    re.MULTILINE | re.DOTALL)
PORT = re.compile(r"(input|output)\s+([\w:]+)((?:\s*\[[^\]]*\])*)\s+(\w+)")
PARAMETER = re.compile(r"^(\s*parameter\s+int\s+)(\w+)(\s*=\s*)([^,\n]+)", re.MULTILINE)


class BlockError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Port:
    direction: str
    type: str
    dimensions: str
    name: str

    def plain(self) -> str:
        """The declaration as a vector, of another name: some names of ports have a meaning in C++."""
        if self.type == "logic":
            return f"{self.direction} logic {self.dimensions} p_{self.name}"
        if self.dimensions:
            raise BlockError(f"port {self.name}: an array of {self.type}; allowed: logic, or one {self.type}")
        return f"{self.direction} logic [$bits({self.type})-1:0] p_{self.name}"

    def from_plain(self) -> str:
        """The connection of the core's port to the block's vector."""
        cast = self.type != "logic" and self.direction == "input"
        return f".{self.name}({self.type}'(p_{self.name}))" if cast else f".{self.name}(p_{self.name})"


def header_of(module: str, text: str) -> re.Match[str]:
    found = [match for match in HEADER.finditer(text) if match["name"] == module]
    if len(found) != 1:
        raise BlockError(f"no module {module} with parameters and ports")
    return found[0]


def with_values(parameters: str, values: dict[str, int]) -> str:
    """The parameters with `values` as defaults, others as they are."""
    return PARAMETER.sub(lambda match: match[1] + match[2] + match[3] + str(values.get(match[2], match[4])), parameters)


def top(module: str, text: str, values: dict[str, int]) -> str:
    header = header_of(module, text)
    missing = set(values) - {match[2] for match in PARAMETER.finditer(header["parameters"])}
    if missing:
        raise BlockError(f"{module} has no parameter {', '.join(sorted(missing))}")
    return text[:header.start("parameters")] + with_values(header["parameters"], values) + text[header.end("parameters"):]


def blocks(module: str, text: str, values: dict[str, int]) -> str:
    """The three modules of the source `text`."""
    header = header_of(module, text)
    plain_code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", header["ports"], flags=re.DOTALL)
    ports = [Port(match[1], match[2], match[3].strip(), match[4]) for match in PORT.finditer(plain_code)]
    if len(ports) != len(re.findall(r"\b(?:input|output)\b", plain_code)):
        raise BlockError(f"{module}: not all ports have a direction, a type and a name of their own")
    parameters = with_values(header["parameters"], values)
    names = [match[2] for match in PARAMETER.finditer(parameters)]
    fixed = re.sub(r"\bparameter\b", "localparam", parameters)
    core = text[:header.start("name")] + module + "_core" + text[header.end("name"):]
    lines = [
        "// verilator lint_off DECLFILENAME",
        core,
        f"module {module}_block{header['imports']} #(\n{fixed}\n) (",
        "  " + ",\n  ".join(port.plain() for port in ports),
        ");",
        "  /*verilator hier_block*/",
        f"  {module}_core #(" + ", ".join(f".{name}({name})" for name in names) + ") core (",
        "    " + ", ".join(port.from_plain() for port in ports),
        "  );",
        "endmodule",
        f"module {module}{header['imports']} #(\n{parameters}\n) (\n{header['ports']}\n);",
        *(f'  if ({match[2]} != {match[4]}) $error("{module}: {match[2]} is not {match[4]}");' for match in PARAMETER.finditer(parameters)),
        f"  {module}_block block (" + ", ".join(f".p_{port.name}({port.name})" for port in ports) + ");",
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    pairs = [argument.split("=", 1) for argument in arguments[1:]]
    if not all(len(pair) == 2 for pair in pairs):
        raise SystemExit(__doc__)
    values = {name: int(value) for name, value in pairs if value.isdigit()}
    files = {name: pathlib.Path(value) for name, value in pairs if not value.isdigit()}
    if len(files) < 2:
        raise SystemExit(__doc__)
    folder = pathlib.Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for number, (module, path) in enumerate(files.items()):
        try:
            text = path.read_text(encoding="utf-8")
            made = blocks(module, text, values) if number else top(module, text, values)
            (folder / f"{module}.sv").write_text(made, encoding="utf-8")
        except (OSError, BlockError) as error:
            raise SystemExit(f"print_blocks.py: {path}: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])

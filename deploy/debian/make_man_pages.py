"""Makes the man pages from the tables behind --help and the schema: make_man_pages.py OUT DATE CONFIGURATION METRICS PROGRAM:SECTION ...

CONFIGURATION and METRICS are programs that print the settings and the metrics as Markdown (print_schema, print_metrics). Each other
program is asked for --help and --version."""

from __future__ import annotations

import gzip
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

OPTION = re.compile(r"^  (-\S.*?)(?:  +(\S.*))?$")
COMMAND = re.compile(r"^  ([a-z][a-z-]*)  +(\S.*)$")
# A heading stands alone; other lines that end in a colon are part of a text.
HEADING = re.compile(r"^[A-Z][A-Za-z ]*:$")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def escaped(text: str) -> str:
    """`text` with what roff would read as its own: backslashes, hyphens, and a dot or quote at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def quoted(text: str) -> str:
    return '"' + escaped(text).replace('"', "\\(dq") + '"'


def head(name: str, section: str, release: str, text: str) -> list[str]:
    """`release` is the third and fourth argument of .TH. Lines are not stretched: keys and addresses are too long for that."""
    return [f".TH {name.upper()} {section} {release} mnemo", ".ad l", ".SH NAME", f"{escaped(name)} \\- {escaped(text)}"]


def options(lines: list[str]) -> list[str]:
    """The lines of a table of --help as tagged paragraphs; other lines are a text."""
    page: list[str] = []
    for line in lines:
        entry = OPTION.match(line) or COMMAND.match(line)
        if HEADING.match(line) or not line.strip():
            continue
        if entry:
            page += [".TP", ".B " + quoted(entry[1].strip())]
            if entry[2]:
                page.append(escaped(entry[2].strip()))
        elif line.startswith("  "):
            page.append(escaped(line.strip()))
        else:
            page += [".PP", escaped(line.strip())]
    return page


def program_page(program: str, section: str, release: str) -> tuple[str, str]:
    name = pathlib.Path(program).name
    lines = output(program, "--help").splitlines()
    usage = next(index for index, line in enumerate(lines) if line.startswith("Usage: "))
    summary = " ".join(line.strip() for line in lines[:usage]).removeprefix(name + ": ").strip()
    page = head(name, section, release, summary.split(". ")[0].rstrip("."))
    page += [".SH SYNOPSIS", ".B " + escaped(name), escaped(re.sub(r"^Usage: \S+", "", lines[usage]).strip())]
    page += [".SH DESCRIPTION", escaped(summary), ".SH OPTIONS", *options(lines[usage + 1 :])]
    commands = []
    if "Subcommands:" in lines:
        commands = [match[1] for line in lines[lines.index("Subcommands:") :] if (match := COMMAND.match(line))]
    for command in commands:
        of_command = output(program, command, "--help").splitlines()
        start = next(index for index, line in enumerate(of_command) if line.startswith("Usage: "))
        page += [f".SH {quoted('Command ' + command)}", *(escaped(line) for line in of_command[:start] if line.strip())]
        page += options(of_command[start + 1 :])
    page += [".SH SEE ALSO", "The documents in", ".IR /usr/share/doc/mnemo ."]
    return f"{name}.{section}", "\n".join(page) + "\n"


def plain(markdown: str) -> str:
    return re.sub(r"`([^`]*)`", r"\1", markdown).replace("\\|", "|").strip()


def table_page(page: list[str], program: str, heading: str, entry: Callable[[list[str]], list[str]]) -> str:
    """Appends what `program` prints as Markdown: a section for each of its own, whose heading follows `heading`, and the lines that
    `entry` makes of the cells of a row."""
    page += [".SH DESCRIPTION"]
    for line in output(program).splitlines():
        if line.startswith("## "):
            page.append(".SH " + quoted(heading + plain(line[3:])))
        elif line.startswith("| `"):
            page += entry([plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:6]])
        elif line.startswith(("|", "#", "<!--")):
            continue
        elif line:
            page.append(escaped(plain(line)))
        elif page[-1] != ".PP" and not page[-1].startswith((".SH", ".br")):
            page.append(".PP")
    # A paragraph without text before a heading is an error to mandoc.
    page = [line for index, line in enumerate(page) if line != ".PP" or (index + 1 < len(page) and not page[index + 1].startswith("."))]
    return "\n".join(page) + "\n"


def settings_page(program: str, release: str) -> tuple[str, str]:
    def entry(cells: list[str]) -> list[str]:
        key, kind, default, allowed, text = cells
        return [".TP", ".B " + quoted(key), escaped(text), ".br", escaped(f"Type {kind}, default {default}, allowed: {allowed}.")]

    page = head("mnemo.yaml", "5", release, "settings of mnemod, mnemo-worker and mnemo-memory")
    return "mnemo.yaml.5", table_page(page, program, "Settings ", entry)


def metrics_page(program: str, release: str) -> tuple[str, str]:
    def entry(cells: list[str]) -> list[str]:
        name, kind, labels, since, text = cells
        with_labels = f" with {'label' if ',' not in labels else 'labels'} {labels}" if labels else ""
        return [".TP", ".B " + quoted(name), escaped(text), ".br", escaped(f"A {kind}{with_labels}, from {since} on.")]

    page = head("mnemo-metrics", "7", release, "metrics of mnemod and mnemo-memory for Prometheus")
    return "mnemo-metrics.7", table_page(page, program, "Metrics of ", entry)


def main() -> None:
    out, date, configuration, metrics, *programs = sys.argv[1:]
    version = output(programs[0].rsplit(":", 1)[0], "--version").split()[-1]
    release = f'"{date}" {quoted("mnemo " + version)}'
    pages = [program_page(*entry.rsplit(":", 1), release) for entry in programs]
    pages += [settings_page(configuration, release), metrics_page(metrics, release)]
    for name, text in pages:
        path = pathlib.Path(out) / (name + ".gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()

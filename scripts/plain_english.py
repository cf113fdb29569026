#!/usr/bin/env python3
"""Lists comments and documents that are hard to read.

There are three kinds of findings, each one line, FILE:LINE: KIND: TEXT:
    opening   a comment or docstring whose first word is Of, What or Who
    long      a sentence of more than 30 words, in a comment, a docstring or a document
    torn      a declaration or expression that a trailing comment breaks over two lines

Exit status: 1 with findings, 0 without. The list is advice: the reader's eye decides.
"""

from __future__ import annotations

import argparse
import ast
import collections.abc
import dataclasses
import io
import pathlib
import re
import subprocess
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_WORDS = 30
MAX_COLUMNS = 110  # ColumnLimit of .clang-format
OPENINGS = {"Of", "What", "Who"}
GENERATED = {"docs/CONFIGURATION.md", "docs/METRICS.md", "docs/MODELS.md"}
SLASHES = {".h", ".cc", ".proto", ".cu"}
HASHES = {".cmake", ".sh", ".yaml", ".service", ".target"}
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "approx.")


@dataclasses.dataclass
class Comment:
    """A comment of one or more lines. column: where its first mark stands; code: what stands in front of it on its line."""

    line: int
    column: int
    code: str
    lines: list[str]


def split_slashes(text: str) -> tuple[list[tuple[str, int, str | None]], set[int]]:
    """Each line as (code, column of the comment, comment or None), and the lines that begin inside a raw string or block comment."""
    result = []
    inside: set[int] = set()
    closing = ""
    for number, line in enumerate(text.split("\n"), 1):
        at = 0
        comment = None
        column = 0
        if closing:
            inside.add(number)
            end = line.find(closing)
            if end < 0:
                if closing == "*/":
                    result.append(("", line.find(line.strip()), line.strip().lstrip("*").strip()))
                else:
                    result.append((line, 0, None))
                continue
            at = end + len(closing)
            closing = ""
        code = line
        while at < len(line):
            if line.startswith("//", at):
                comment, column, code = line[at + 2 :], at, line[:at]
                break
            if line.startswith("/*", at):
                end = line.find("*/", at + 2)
                if end < 0:
                    comment, column, code, closing = line[at + 2 :].lstrip("*"), at, line[:at], "*/"
                    break
                at = end + 2
                continue
            raw = re.compile(r'R"([^(\s]*)\(').match(line, at)
            if raw:
                closing = f"){raw.group(1)}\""
                end = line.find(closing, raw.end())
                if end < 0:
                    break
                at, closing = end + len(closing), ""
                continue
            quoted = re.compile(r'"(?:\\.|[^"\\])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\])+\'').match(line, at)
            at = quoted.end() if quoted else at + 1
        result.append((code, column, comment))
    return result, inside


def joined(lines: collections.abc.Iterable[tuple[int, str, int, str | None]]) -> list[Comment]:
    """Comments of (line, code, column, comment); lines of comment alone that stand in the same column belong to the one before."""
    result: list[Comment] = []
    last = 0
    for line, code, column, comment in lines:
        if comment is None:
            continue
        alone = not code.strip()
        if alone and result and last == line - 1 and result[-1].column == column:
            result[-1].lines.append(comment)
        else:
            result.append(Comment(line, column, code, [comment]))
        last = line
    return result


def comments_of(name: pathlib.Path, text: str) -> list[Comment]:
    if name.suffix in SLASHES:
        lines, _ = split_slashes(text)
        return joined((number, *line) for number, line in enumerate(lines, 1))
    if name.suffix == ".py":
        found = []
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and not token.string.startswith("#!"):
                found.append((token.start[0], token.line[: token.start[1]], token.start[1], token.string[1:]))
        result = joined(found)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node)
                if doc:
                    result.append(Comment(node.body[0].lineno, node.body[0].col_offset, "", doc.split("\n")))
        return sorted(result, key=lambda comment: comment.line)
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r"^((?:[^#\"']|\"[^\"]*\"|'[^']*'|(?<=\S)#)*?)(?<!\S)#(?!!)(.*)$", line)
        if match:
            lines.append((number, match.group(1), len(match.group(1)), match.group(2)))
    return joined(lines)


def paragraphs(lines: list[str], first: int) -> list[tuple[int, str]]:
    """Running text of the lines by its first line. A list's item begins a paragraph; an indented block is taken for code."""
    result: list[tuple[int, str]] = []
    open_ = False
    listed = False
    for number, line in enumerate(lines, first):
        body = line.strip()
        item = re.match(r"([-*]|\d+\.)\s+", body)
        if not body or re.fullmatch(r"[-=~#*|+ ]+", body):
            open_ = listed = False
        elif item:
            result.append((number, body[item.end() :]))
            open_ = listed = True
        elif re.match(r"\s{3,}", line) and not listed:
            open_ = False
        elif open_:
            result[-1] = (result[-1][0], f"{result[-1][1]} {body}")
        else:
            result.append((number, body))
            open_ = True
    return result


def document(text: str) -> list[tuple[int, str]]:
    """Paragraphs of a markdown text without fenced code, tables and headings."""
    lines = []
    fenced = False
    for line in text.split("\n"):
        fence = line.lstrip().startswith("```")
        if fenced or fence or line.startswith(("|", "#", "<")):
            lines.append("")
        else:
            # Text of a list's item is indented as far as the item.
            lines.append(line.lstrip() if not line.lstrip().startswith(("- ", "* ")) else line)
        fenced ^= fence
    return paragraphs(lines, 1)


def sentences(text: str) -> list[str]:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "`code`", text))
    result = [""]
    for word in text.split():
        result[-1] += f" {word}"
        if re.search(r"[.!?][\"')*_]*$", word) and word.strip("(\"'").lower() not in ABBREVIATIONS:
            result.append("")
    return [sentence.strip() for sentence in result if sentence.strip()]


def words(sentence: str) -> int:
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def torn(text: str) -> list[tuple[int, str]]:
    """Lines whose trailing comment, not their length, breaks a declaration or an expression."""
    lines, inside = split_slashes(text)
    result = []
    depth = 0
    for index, (code, _, comment) in enumerate(lines):
        stripped = code.rstrip()
        before_depth = depth
        plain = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])+'", "", stripped)
        depth = max(0, depth + plain.count("(") - plain.count(")"))
        if comment is None or not stripped.strip() or index + 1 in inside or stripped.lstrip().startswith("#"):
            continue
        if re.search(r"(\|\||&&|[-+*/%=?|^]|<<|>>|==|[<>]=)$", stripped) and not stripped.endswith(("*/", "++", "--")):
            result.append((index + 1, "operator in front of the comment: " + code.strip()))
            continue
        previous = lines[index - 1][0].rstrip() if index else ""
        if index and lines[index - 1][2] is None and previous.strip() and stripped.endswith((";", ",", "{")):
            indent = len(previous) - len(previous.lstrip())
            deeper = len(stripped) - len(stripped.lstrip()) > indent
            whole = f"{previous}{'' if previous.endswith('(') else ' '}{stripped.strip()}"
            braced = previous.endswith("{") and re.fullmatch(r"\s*[\w.]+\};", stripped)
            if deeper and (braced or not previous.endswith((";", "{", "}", ":", ",", "["))) and not previous.lstrip().startswith("#"):
                if len(whole) <= MAX_COLUMNS:
                    result.append((index + 1, whole.strip()))
                    continue
        if depth > 0 and stripped.endswith((",", "(")) and before_depth == 0:
            statement = stripped
            level = depth
            for following, _, _ in lines[index + 1 : index + 6]:
                statement += f" {following.strip()}"
                level += following.count("(") - following.count(")")
                if level <= 0:
                    break
            if level <= 0 and len(statement) <= MAX_COLUMNS:
                result.append((index + 1, statement.strip()))
    return result


def findings(name: pathlib.Path) -> list[tuple[int, str, str]]:
    text = (ROOT / name).read_text(encoding="utf-8")
    result = []
    blocks: list[tuple[int, str]] = []
    if name.suffix == ".md":
        blocks = document(text)
    else:
        for comment in comments_of(name, text):
            parts = paragraphs(comment.lines, comment.line)
            if parts and re.split(r"\W", parts[0][1], maxsplit=1)[0] in OPENINGS:
                result.append((comment.line, "opening", parts[0][1][:100]))
            blocks += parts
        if name.suffix in SLASHES:
            result += [(line, "torn", code) for line, code in torn(text)]
    for line, block in blocks:
        for sentence in sentences(block):
            if words(sentence) > MAX_WORDS:
                result.append((line, "long", f"{words(sentence)} words: {sentence}"))
    return sorted(result)


def files(under: list[str]) -> list[pathlib.Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *under],
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(pathlib.Path(name) for name in listed.stdout.split("\0") if name)
    kinds = SLASHES | HASHES | {".py", ".md"}
    return [
        name
        for name in names
        if (name.suffix in kinds or name.name == "CMakeLists.txt" or name.parts[0] == ".ci")
        and str(name) not in GENERATED
        and (ROOT / name).is_file()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders, relative to the root; all of the tree without any")
    parser.add_argument("--kind", choices=["opening", "long", "torn"], help="list one kind alone")
    parser.add_argument("--count", action="store_true", help="print the number of findings by kind, not the findings")
    options = parser.parse_args()
    found: dict[str, int] = {"opening": 0, "long": 0, "torn": 0}
    for name in files(options.paths):
        for line, kind, text in findings(name):
            if options.kind in (None, kind):
                found[kind] += 1
                if not options.count:
                    print(f"{name}:{line}: {kind}: {text}")
    if options.count:
        print(", ".join(f"{kind} {count}" for kind, count in found.items()))
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

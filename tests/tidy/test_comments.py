"""Comments cite files that exist, and scripts/plain_english.py lists what it says it lists."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys
import types

import tree


def load_script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("plain_english", tree.ROOT / "scripts" / "plain_english.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_english"] = module
    spec.loader.exec_module(module)
    return module


plain_english = load_script()

SUFFIXES = "h|cc|py|md|proto|sh|cmake|inc|yaml|service|txt|in"
CITED = re.compile(rf"(?<![\w./~$<*:-])((?:[\w-]+/)*[\w-]+(?:\.[\w-]+)*\.(?:{SUFFIXES}))(?![\w/=(-]|\.\w)")
# A word in capitals stands for a name: devices/KIND/KIND_device.h.
PLACEHOLDER = re.compile(r"(?:^|[/_.])[A-Z]{2,}(?=[/_.])")
# Headers of the system, which a comment names by folder.
SYSTEM = "linux/"


def exists(cited: str, citing: pathlib.Path, by_name: dict[str, list[pathlib.Path]]) -> bool:
    """A path is relative to the root or to a folder above the citing file; a path that fits nowhere else names one file of the tree."""
    if any(list((tree.ROOT / folder).glob(cited)) for folder in [citing.parent, *citing.parent.parents]):
        return True
    named = [path for path in by_name.get(pathlib.Path(cited).name, []) if str(path).endswith("/" + cited)]
    return len(named) == 1


def dead_citations(citing: pathlib.Path, text: str, by_name: dict[str, list[pathlib.Path]]) -> list[str]:
    dead = []
    for comment in plain_english.comments_of(citing, text):
        for number, line in enumerate(comment.lines, comment.line):
            for cited in CITED.findall(line):
                if cited.startswith(SYSTEM) or (PLACEHOLDER.search(cited) and "README" not in cited):
                    continue
                if not exists(cited, citing, by_name):
                    dead.append(f"{citing}:{number}: {cited}")
    return dead


def names() -> dict[str, list[pathlib.Path]]:
    result: dict[str, list[pathlib.Path]] = {}
    for path in tree.files():
        result.setdefault(path.name, []).append(path)
    return result


def test_files_cited_in_comments_exist() -> None:
    by_name = names()
    sources = [path for path in plain_english.files([]) if path.suffix != ".md"]
    assert len(sources) > 300
    dead = [line for path in sources for line in dead_citations(path, tree.read(path), by_name)]
    assert not dead, "\n".join(dead)


def test_a_dead_citation_is_found() -> None:
    text = "int x;  // see gone.h and (devices/device.h)\n// README.md, devices/KIND/KIND_device.h\nconst char* y = \"other.h\";\n"
    assert dead_citations(pathlib.Path("devices/x.cc"), text, names()) == ["devices/x.cc:1: gone.h"]


def test_the_script_lists_openings_and_long_sentences(tmp_path: pathlib.Path, monkeypatch: object) -> None:
    monkeypatch.setattr(plain_english, "ROOT", tmp_path)
    long = " ".join(["word"] * 31)
    short = " ".join(["word"] * 30)
    (tmp_path / "a.cc").write_text(f"// Of x.\nint a;  // Plain.\n\n// {short}.\n// {short}.\n")
    (tmp_path / "b.py").write_text(f'"""What b is."""\n\n# {long[:60]}\n# {long[60:]}.\nx = "# Who"\n')
    (tmp_path / "c.md").write_text(f"# Of titles\n\n| {long} |\n\n```\n{long}\n```\n\n- {short}\n- {long}\n")
    kinds = {name: [(line, kind) for line, kind, _ in plain_english.findings(pathlib.Path(name))] for name in ("a.cc", "b.py", "c.md")}
    assert kinds == {"a.cc": [(1, "opening")], "b.py": [(1, "opening"), (3, "long")], "c.md": [(10, "long")]}


def test_the_script_lists_torn_declarations() -> None:
    torn = "config::Config\n    config;  // The daemon's.\nint a = b ||  // why\n        c;\nint F(int a,  // ms\n      int b);\n"
    whole = "int a;  // x\nenum { kA,  // one\n       kB };\nint F(int a, int b);  // ms\n"
    assert [line for line, _ in plain_english.torn(torn)] == [2, 3, 5]
    assert plain_english.torn(whole) == []

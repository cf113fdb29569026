"""Every header can be included alone, and no file relies on an include that only the precompiled header has."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shlex
import subprocess
import threading

import pytest
import tree


def commands() -> dict[str, list[str]]:
    """Compiler arguments by source file, without its own name and output."""
    result = {}
    for entry in json.loads((tree.BUILD / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        launcher = next((i for i, word in enumerate(words) if pathlib.Path(word).name == "ccache"), -1)
        words = words[launcher + 1 :]
        if "-include" in words:  # the precompiled header
            at = words.index("-include")
            words = [word for i, word in enumerate(words) if i not in (at, at + 1) and word != "-Winvalid-pch"]
        at = words.index("-o")
        words = [word for i, word in enumerate(words) if i not in (at, at + 1) and word not in ("-c", entry["file"])]
        result[entry["file"]] = words
    return result


def arguments(header: pathlib.Path, known: dict[str, list[str]]) -> list[list[str]]:
    """Arguments of a source beside the header: its namesake, else one of the folder, else one of a folder above or below.
    There are several where the folder has several layers: the header belongs to one of them."""
    namesakes = [str(tree.ROOT / header.with_suffix(".cc")), str(tree.ROOT / header.with_name(header.stem + "_test.cc"))]
    for name in namesakes:
        if name in known:
            return [known[name]]
    folder = tree.ROOT / header.parent
    of_tests = "testing" in header.parts
    while folder != tree.ROOT:
        beside = sorted(name for name in known if pathlib.Path(name).is_relative_to(folder))
        # A test sees more than the layer does.
        beside.sort(key=lambda name: (name.endswith("_test.cc") != of_tests, len(pathlib.Path(name).parts)))
        if beside:
            different = {tuple(word for word in known[name] if word.startswith("-I")): known[name] for name in reversed(beside)}
            return list(reversed(different.values()))
        folder = folder.parent
    return []


@functools.cache
def first_includes(sources: frozenset[str]) -> set[str]:
    """Headers that a built source includes before all others, which proves at no cost that they can be included alone."""
    found = set()
    for source in map(pathlib.Path, sources):
        match = INCLUDE.search(source.read_text()) if source.is_relative_to(tree.ROOT) and source.exists() else None
        found |= {match.group(1)} if match else set()
    return found


def headers() -> list[pathlib.Path]:
    """All headers but the bodies that are included once for each instruction set."""
    return [path for path in tree.files(".h") if not path.name.endswith("-inl.h")]


# Sets of headers that take most of a compiler's time, the richest first. Each is compiled once for all headers that include all of it.
FRONTS = (
    {"absl/status/status.h", "absl/status/statusor.h", "fmt/format.h", "mnemo/internal/worker.pb.h"},
    {"absl/status/status.h", "absl/status/statusor.h", "fmt/format.h"},
    {"string", "vector"},
)
# Macros that no front reads: a front is compiled without them. The compiler takes the text where that is wrong.
OTHER_MACROS = re.compile(r"-D(MNEMO_|SPDLOG_|\w+_EXPORTS\b)")


def front_of(included: set[str]) -> set[str]:
    """The set that a header may find compiled. Since the header includes all of it, directly or through headers of this tree, it hides
    nothing that the header lacks."""
    return next((front for front in FRONTS if front <= included), set())


class Compiler:
    """Compiles texts, with precompiled fronts in a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.fronts: dict[tuple[str, ...], pathlib.Path] = {}
        self.lock = threading.Lock()

    def front(self, names: set[str], words: list[str]) -> list[str]:
        """Arguments that put the front before a text. Who needs it first compiles it, while others wait."""
        if not names:
            return []
        words = [word for word in words if not OTHER_MACROS.match(word)]
        key = (*sorted(names), *(word for word in words if re.match("-[DOfmp]|-std=", word)))
        with self.lock:
            if key not in self.fronts:
                path = self.folder / f"front{len(self.fronts)}.h"
                path.write_text("".join(f"#include <{name}>\n" for name in sorted(names)))
                done = subprocess.run([*words, "-x", "c++-header", path, "-o", f"{path}.gch"], capture_output=True, cwd=tree.BUILD)
                if done.returncode:  # arguments of another layer; the text does not compile with them either
                    return []
                self.fronts[key] = path
            return ["-include", str(self.fronts[key])]

    def errors(self, text: str, included: set[str], choices: list[list[str]]) -> str:
        """Nothing when the text compiles with one of the choices of arguments, else what the first of them says."""
        first_error = ""
        for choice in choices:
            # One kind of code for all, as compiled fronts want it.
            words = [word for word in choice if word != "-fPIC"] + ["-O0"]
            command = [*words, *self.front(front_of(included), words), "-fsyntax-only", "-x", "c++", "-"]
            done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=tree.BUILD)
            if done.returncode == 0:
                return ""
            first_error = first_error or done.stderr[:2000]
        return first_error or "no built source beside it"


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(tmp_path_factory.mktemp("fronts"))


def test_headers_are_self_contained(compiler: Compiler) -> None:
    known = commands()
    proven = first_includes(frozenset(known))
    texts = {str(path): tree.read(path) for path in tree.files(".h")}
    jobs = [(header, choices) for header in headers() if str(header) not in proven and (choices := arguments(header, known))]
    assert len(jobs) > 10

    def compile_one(job: tuple[pathlib.Path, list[list[str]]]) -> str:
        header, choices = job
        errors = compiler.errors(f'#include "{header}"\n' * 2, includes_of(str(header), texts, set()), choices)
        return f"{header}:\n{errors}" if errors else ""

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = [error for error in pool.map(compile_one, jobs) if error]
    assert not errors, "\n".join(errors)


def test_a_front_hides_no_missing_include(compiler: Compiler) -> None:
    front = FRONTS[1]
    includes = "".join(f"#include <{name}>\n" for name in sorted(front))
    uses = "inline absl::StatusOr<std::string> Text() { return fmt::format(\"\"); }\n"
    known = commands()
    words = next(known[name] for name in sorted(known) if "-DFMT_SHARED" in known[name])
    assert compiler.errors(includes + uses, front, [words]) == ""
    _, name = compiler.front(front, [word for word in words if word != "-fPIC"] + ["-O0"])
    path = pathlib.Path(name)
    text = path.read_text()
    path.write_text("#error the text of a front\n")
    # The compiled one is read, also with other macros, and not its text.
    assert compiler.errors(includes + uses, front, [[*words, "-DMNEMO_OTHER=1"]]) == ""
    path.write_text(text)
    for lacking in front:
        # A text that lacks one of the headers gets none of them from outside.
        assert front_of(front - {lacking}) == set()
    assert "absl" in compiler.errors(uses, set(), [words])
    # A front adds no names beside its own.
    assert "regex" in compiler.errors(includes + "inline std::regex pattern;\n", front, [words])


def test_arguments_of_another_layer_spoil_no_front(compiler: Compiler) -> None:
    folder = compiler.folder / "beside"
    folder.mkdir()
    (folder / "late.h").write_text("inline int late = 1;\n")
    words = next(iter(commands().values()))[:1] + ["-std=c++20", "-O0"]
    assert compiler.front({"late.h"}, words) == []
    (_, path) = compiler.front({"late.h"}, [*words, f"-I{folder}"])
    assert pathlib.Path(f"{path}.gch").exists()


def test_headers_are_guarded() -> None:
    wrong = [str(path) for path in headers() if "\n#pragma once\n" not in "\n" + tree.read(path)]
    assert not wrong, f"no #pragma once: {wrong}"


# Names that each header of cmake/MnemoPrecompiled.cmake declares, as far as this tree uses them.
DECLARED = {
    "absl/status/status.h": r"absl::(Status\b|StatusCode|OkStatus|Is[A-Z]\w+\(|\w+Error\()",
    "absl/status/statusor.h": r"absl::StatusOr\b",
    "algorithm": r"std::(all_of|any_of|none_of|binary_search|clamp|copy|copy_n|copy_if|count|count_if|equal|equal_range|fill|fill_n"
    r"|find|find_if|find_if_not|for_each|generate|is_sorted|lexicographical_compare|lower_bound|max|max_element|merge|min"
    r"|min_element|minmax|mismatch|nth_element|partial_sort|partition|remove|remove_if|replace|reverse|rotate|search|shuffle"
    r"|sort|stable_sort|transform|unique|upper_bound)\s*[(<]",
    "atomic": r"std::(atomic|memory_order)",
    "catch2/catch.hpp": r"\b(TEST_CASE|SECTION|REQUIRE|CHECK|CHECK_THAT)\(",
    "chrono": r"std::chrono\b",
    "CLI/CLI.hpp": r"\bCLI::",
    "fmt/format.h": r"\bfmt::",
    "functional": r"std::(function|greater|hash|less|plus|ref|cref)\b",
    "grpcpp/grpcpp.h": r"\bgrpc::",
    "map": r"std::(multi)?map\b",
    "memory": r"std::(addressof|enable_shared_from_this|make_shared|make_unique|shared_ptr|unique_ptr|weak_ptr)\b",
    "mutex": r"std::(call_once|lock_guard|mutex|once_flag|recursive_mutex|scoped_lock|unique_lock)\b",
    "optional": r"std::(make_optional|nullopt|optional)\b",
    "random": r"std::(mt19937|random_device|\w+_distribution)",
    "span": r"std::(as_bytes|as_writable_bytes|span)\b",
    "string": r"std::(string|sto[a-z]+|to_string)\b",
    "string_view": r"std::string_view\b",
    "thread": r"std::(this_thread|thread)\b",
    "utility": r"std::(as_const|exchange|forward|in_place|index_sequence|make_pair|move|pair|swap)\b",
    "vector": r"std::vector\b",
}
# Other headers that declare the same.
EQUIVALENT = {
    "absl/status/status.h": {"absl/status/statusor.h"},
    "chrono": {"condition_variable", "future", "mutex", "thread"},
    "fmt/format.h": {"fmt/ranges.h"},
    "mutex": {"condition_variable", "shared_mutex"},
    "string": {"fmt/format.h"},
    "string_view": {"fmt/format.h", "string"},
    "utility": {
        "algorithm", "array", "deque", "fmt/format.h", "functional", "map", "memory", "optional", "set", "string", "tuple",
        "unordered_map", "variant", "vector",
    },
}  # fmt: skip
INCLUDE = re.compile(r"^\s*#\s*include\s+[<\"]([^>\"]+)[>\"]", re.MULTILINE)
NO_CODE = re.compile(r"R\"\((?:.|\n)*?\)\"|\"(?:\\.|[^\"\\\n])*\"|//[^\n]*|^\s*#\s*include.*$", re.MULTILINE)


def includes_of(name: str, texts: dict[str, str], found: set[str]) -> set[str]:
    """Names of all headers that a file includes, directly or through headers of this tree."""
    for included in INCLUDE.findall(texts[name]):
        if included not in found:
            found.add(included)
            if included in texts:
                includes_of(included, texts, found)
    return found


def lacks(text: str, included: set[str]) -> list[str]:
    """Precompiled headers that a text uses and does not include. A forward declaration needs no include."""
    code = NO_CODE.sub("", text)
    result = []
    for header, pattern in DECLARED.items():
        folder = header.split("/")[0]
        enough = {header} | EQUIVALENT.get(header, set())
        if header == "grpcpp/grpcpp.h":
            enough |= {name for name in included if name.startswith("grpcpp/") or name.endswith(".grpc.pb.h")}
        if not enough & included and f"namespace {folder} {{" not in code and re.search(pattern, code):
            result.append(header)
    return result


def test_lacking_includes_are_found() -> None:
    assert lacks("std::sort(a.begin(), a.end());", {"vector"}) == ["algorithm"]
    assert lacks("// std::sort(\nauto text = \"std::map\";", set()) == []
    assert lacks("std::string_view text;", {"string"}) == []
    assert lacks("absl::Status Run(grpc::Server* server);", set()) == ["absl/status/status.h", "grpcpp/grpcpp.h"]
    assert lacks("namespace CLI {\nclass App;\n}\nvoid Add(CLI::App* app);", set()) == []


def test_table_names_all_precompiled_headers() -> None:
    text = "".join(line for line in tree.read(pathlib.Path("cmake/MnemoPrecompiled.cmake")).splitlines(True) if line[0] != "#")
    assert set(re.findall(r"<([\w/.]+)>", text)) == set(DECLARED)


def test_precompiled_header_hides_no_missing_include() -> None:
    texts = {str(path): tree.read(path) for path in tree.files(".h", ".cc")}
    wrong = []
    for name, text in texts.items():
        # Bodies that are included once for each instruction set have the includes of the source.
        missing = [] if name.endswith("-inl.h") else lacks(text, includes_of(name, texts, set()))
        wrong += [f"{name}: #include <{header}>" for header in missing]
    assert not wrong, "\n".join(wrong)

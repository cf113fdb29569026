"""Documents cite existing files and stay short; all settings and calls are documented."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tree
import yaml

DOCUMENTS = tree.files(".md")


def prose(name: pathlib.Path) -> str:
    """The text without fenced code."""
    return re.sub(r"^```.*?^```", "", tree.read(name), flags=re.MULTILINE | re.DOTALL)


def anchors(name: pathlib.Path) -> set[str]:
    """Anchors of the headings as GitHub makes them: lower case, blanks to dashes, other signs dropped."""
    headings = re.findall(r"^#+\s+(.*)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS, ids=str)
def test_links_lead_somewhere(name: pathlib.Path) -> None:
    dead = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (tree.ROOT / name.parent / path).resolve() if path else tree.ROOT / name
        if not to.exists():
            dead.append(target)
        elif anchor and to.suffix == ".md" and anchor not in anchors(to.relative_to(tree.ROOT)):
            dead.append(target)
    assert not dead, f"{name}: {dead}"


def cited_paths(name: pathlib.Path) -> set[str]:
    """Words in backticks that begin with a folder of the root, or are a file of the root. `a/{b,c}.h` cites two files, `a/*_x.cc`
    any that fit."""
    tops = {path.parts[0] for path in tree.files()}
    cited = set()
    for word in re.findall(r"`([^`\s]+)`", prose(name)):
        top = re.split(r"[/:]", word)[0]
        if top not in tops or ("/" not in word and "." not in word):
            continue
        braces = re.search(r"\{([^}]*)\}", word)
        choices = [word.replace(braces.group(0), choice) for choice in braces.group(1).split(",")] if braces else [word]
        cited.update(re.sub(r":\d+$", "", choice).rstrip("/") for choice in choices)
    return cited


@pytest.mark.parametrize("name", DOCUMENTS, ids=str)
def test_cited_paths_exist(name: pathlib.Path) -> None:
    dead = [path for path in sorted(cited_paths(name)) if not list(tree.ROOT.glob(path))]
    assert not dead, f"{name} cites what is not there: {dead}"


def test_architecture_cites_the_parts() -> None:
    cited = cited_paths(pathlib.Path("ARCHITECTURE.md"))
    assert len(cited) > 30
    for folder in ("client", "config", "devices", "proto", "server/frontend", "server/model", "server/telemetry", "server/worker", "tests"):
        assert any(path.startswith(folder) for path in cited), f"nothing of {folder} is cited"


def test_picture_of_speed_is_current() -> None:
    script = tree.ROOT / "tests" / "bench" / "speed_chart.py"
    drawn = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert tree.read("docs/speed.svg") == drawn, f"run: python {script.relative_to(tree.ROOT)} > docs/speed.svg"


# Longest documents of their kind; what is cut goes to tests/bench/NOTES.md or to the headers.
MAX_LINES = {"ARCHITECTURE.md": 250, "docs/PERFORMANCE.md": 90, "docs/QUALITY.md": 90}


@pytest.mark.parametrize("name", MAX_LINES)
def test_documents_are_short(name: str) -> None:
    assert tree.read(name).count("\n") <= MAX_LINES[name]


def schema() -> str:
    return subprocess.run([tree.BUILD / "tools" / "print_schema"], capture_output=True, text=True, check=True).stdout


def keys() -> list[str]:
    found = re.findall(r"^\| `([a-z_.]+)` \|", schema(), re.MULTILINE)
    assert len(found) > 40
    return found


def test_configuration_reference_is_current() -> None:
    assert tree.read("docs/CONFIGURATION.md") == schema(), "run: build/release/tools/print_schema > docs/CONFIGURATION.md"


def test_table_of_metrics_is_current() -> None:
    printed = subprocess.run([tree.BUILD / "tools" / "print_metrics"], capture_output=True, text=True, check=True).stdout
    assert tree.read("docs/METRICS.md") == printed, "run: build/release/tools/print_metrics > docs/METRICS.md"


def test_table_of_metadata_keys_is_current() -> None:
    printed = subprocess.run([tree.BUILD / "tools" / "print_metadata_keys"], capture_output=True, text=True, check=True).stdout
    assert tree.read("docs/MODELS.md") == printed, "run: build/release/tools/print_metadata_keys > docs/MODELS.md"


def flat(node: dict, prefix: str = "") -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[prefix + key] = value
    return result


def test_local_configuration_holds_every_key_with_its_default() -> None:
    values = flat(yaml.safe_load(tree.read("config/local.yaml")))
    assert list(values) == keys(), "in the order of the schema"
    defaults = dict(re.findall(r"^\| `([a-z_.]+)` \| [^|]* \| `([^`]*)` \|", schema(), re.MULTILINE))
    for key, value in values.items():
        assert value == yaml.safe_load(defaults[key]), key


def test_node_configuration_is_of_known_keys() -> None:
    assert set(flat(yaml.safe_load(tree.read("config/node.yaml")))) <= set(keys())


def settings_read_in(sources: dict[str, str], wanted: list[str]) -> set[str]:
    """Keys whose fields a source reads: as SECTION.NAME, or as NAME of a variable that the same folder declares to be of the section's
    type. What is only assigned to is not read."""
    aliases: dict[tuple[str, str], set[str]] = {}
    for path, text in sources.items():
        for section, variable in re.findall(r"\bConfig::([A-Z]\w*)(?:[&*]\s*|\s+)(\w+)", text):
            aliases.setdefault((str(pathlib.Path(path).parent), section.lower()), set()).add(variable)
    found = set()
    for path, text in sources.items():
        code = re.sub(r"//.*", "", text)
        for key in wanted:
            section, _, name = key.rpartition(".")
            owners = {section or "config", *aliases.get((str(pathlib.Path(path).parent), section), set())}
            if re.search(rf"\b(?:{'|'.join(sorted(owners))})_?(?:\.|->){name}\b(?!\s*=[^=])", code):
                found.add(key)
    return found


def test_every_setting_is_read() -> None:
    """A setting that nothing reads is documented and validated, and does nothing."""
    sources = {str(path): tree.read(path) for path in tree.files(".h", ".cc") if path.parts[0] in ("server", "devices")}
    sources = {path: text for path, text in sources.items() if not path.endswith("_test.cc")}
    wanted = keys()
    read = settings_read_in(sources, wanted)
    unread = [key for key in wanted if key not in read]
    assert not unread, f"no program reads {unread}"


def test_a_setting_that_is_not_read_is_noticed() -> None:
    wanted = ["limits.session_ttl_ms", "memory.kv_wait_ms", "memory.services", "device"]
    source = """
        void F(const Config::Memory& timing) { Wait(timing.kv_wait_ms); config->limits.session_ttl_ms = 1; }  // config.device
    """
    assert settings_read_in({"server/a/a.cc": source}, wanted) == {"memory.kv_wait_ms"}
    assert settings_read_in({"server/a/a.cc": source, "server/b/b.cc": "x = timing.services + config.device;"}, wanted) == {
        "memory.kv_wait_ms", "device"
    }


def test_systemd_units(tmp_path: pathlib.Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is not installed: run scripts/setup.sh")
    bin = tree.BUILD / "bin"
    units = [path for path in tree.files(".service", ".target", ".slice", ".socket") if path.parts[0] == "deploy"]
    assert {"mnemod.service", "mnemod@.service", "mnemo-worker@.service", "mnemo-memory@.service", "mnemo-energy.service"} <= {
        path.name for path in units
    }
    for name in units:
        # An instance of a template, as it is started.
        unit = tmp_path / name.name.replace("@.", "@one.")
        # The programs are not installed on the machine that runs the tests.
        installed = lambda program: str(bin / program[1]) if (bin / program[1]).exists() else "/bin/true"  # noqa: E731
        unit.write_text(re.sub(r"/usr/bin/(mnemo[\w-]*)", installed, tree.read(name)))
        verify = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
        assert verify.returncode == 0 and unit.name not in verify.stderr, verify.stderr
        if name.suffix != ".service":
            continue
        threshold = 15 if name.name.startswith("mnemod") else 20  # tenths
        security = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", f"--threshold={threshold}", str(unit)], capture_output=True, text=True
        )
        assert security.returncode == 0, security.stdout[-2000:]

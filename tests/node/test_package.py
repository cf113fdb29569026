"""The packages on a node: install, configure, serve, upgrade, rotate logs, remove and purge, by dpkg, systemd and logrotate themselves."""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import shutil
import subprocess

import nodes
import pytest

BUILD = nodes.BIN.parent
MODEL = pathlib.Path.home() / ".cache/mnemo/models/SmolLM2-135M-Instruct.Q4_1.gguf"
LIFE = pathlib.Path(__file__).resolve().parent / "package_life.sh"
NAMES = ("mnemo", "mnemo-client", "mnemo-dev", "mnemo-monitoring")


@pytest.fixture(scope="module")
def packages() -> pathlib.Path:
    """A folder with folders 1 and 2: two versions of the packages, of one build."""
    if shutil.which("cpack") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("cpack and dpkg-deb are not both installed")
    # Below the build folder, which a node sees; its /tmp is its own.
    folder = BUILD / "node_packages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = ["cpack", "--config", str(BUILD / "CPackConfig.cmake"), "-B", str(folder / "1")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=BUILD)
    assert done.returncode == 0, done.stdout
    (folder / "2").mkdir()
    (folder / "tree").mkdir()
    for package in sorted((folder / "1").glob("*.deb")):
        tree = folder / "tree" / package.stem
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
        control = tree / "DEBIAN/control"
        lines = control.read_text().splitlines(keepends=True)
        control.write_text("".join(line.rstrip("\n") + "+1\n" if line.startswith("Version: ") else line for line in lines))
        if package.name.startswith("mnemo_"):
            # A conffile that both sides changed: dpkg has to choose.
            with (tree / "etc/mnemo/node.yaml").open("a") as file:
                file.write("# of the newer package\n")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, folder / "2"], check=True, stdout=subprocess.DEVNULL)
    return folder


def field(package: pathlib.Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], check=True, capture_output=True, text=True).stdout.strip()


def test_each_package_has_its_fields(packages: pathlib.Path) -> None:
    found = {field(path, "Package"): path for path in (packages / "1").glob("*.deb")}
    assert sorted(found) == sorted(NAMES)
    architecture = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    for name, path in found.items():
        assert field(path, "Architecture") == ("all" if name == "mnemo-monitoring" else architecture)
        newer = next((packages / "2").glob(f"{name}_*.deb"))
        assert subprocess.run(["dpkg", "--compare-versions", field(newer, "Version"), "gt", field(path, "Version")]).returncode == 0
    for name in ("mnemo", "mnemo-client"):
        assert "libgrpc++" in field(found[name], "Depends"), "the libraries that the program needs are found by dpkg-shlibdeps"


def test_monitoring_has_rules_consoles_and_dashboards(packages: pathlib.Path) -> None:
    package = next((packages / "1").glob("mnemo-monitoring_*.deb"))
    told = subprocess.run(["dpkg-deb", "-c", package], check=True, capture_output=True, text=True).stdout
    held = set(re.findall(r" \./usr/share/mnemo/(\S+[^/\s])$", told, re.MULTILINE))
    files = {str(path.relative_to(nodes.ROOT / "deploy")) for name in ("prometheus", "grafana") for path in (nodes.ROOT / "deploy" / name).rglob("*.*")}
    assert held == files and {"prometheus/consoles/overview.html", "grafana/mnemo-overview.json", "prometheus/mnemo.rules.yml"} <= files


def test_lintian_has_nothing_to_say(packages: pathlib.Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    options = ["--allow-root", "--fail-on", "error,warning", "--no-cfg"]
    if not any((nodes.ROOT / "deploy" / name).is_dir() for name in ("prometheus", "grafana")):
        # Without these folders there is nothing to put into mnemo-monitoring.
        options += ["--suppress-tags", "empty-binary-package"]
    done = subprocess.run(
        ["lintian", *options, *map(str, sorted((packages / "1").glob("*.deb")))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_man_pages_have_no_warning_and_every_option(packages: pathlib.Path, tmp_path: pathlib.Path) -> None:
    if shutil.which("mandoc") is None or shutil.which("man") is None:
        pytest.skip("mandoc and man are not both installed")
    for path in (packages / "1").glob("mnemo*.deb"):
        subprocess.run(["dpkg-deb", "-x", path, tmp_path], check=True)
    pages = {path.name.removesuffix(".gz"): path for path in sorted((tmp_path / "usr/share/man").rglob("*.gz"))}
    programs = {path.name for path in (tmp_path / "usr/bin").iterdir()}
    assert {f"{name}.{1 if name == 'mnemo' else 8}" for name in programs} | {"mnemo.yaml.5", "mnemo-metrics.7"} == set(pages)
    for name, path in pages.items():
        # The locale, or man replaces characters and says so.
        variables = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MANROFFOPT": "-rHY=0"}
        shown = subprocess.run(["man", "--warnings", "-l", path], env=variables, capture_output=True, text=True)
        assert (shown.returncode, shown.stderr) == (0, ""), name
        text = gzip.decompress(path.read_bytes())
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert lint.stdout.decode() == "", name
        if name == "mnemo.yaml.5":
            keys = re.findall(r"^\| `([a-z_.0-9]+)` ", (nodes.ROOT / "docs/CONFIGURATION.md").read_text(), re.MULTILINE)
            assert len(keys) > 50 and [key for key in keys if key not in shown.stdout] == []
        elif name == "mnemo-metrics.7":
            table = re.findall(r"^\| `(mnemo_\w+)` \| (\w+) ", (nodes.ROOT / "docs/METRICS.md").read_text(), re.MULTILINE)
            entries = re.findall(r"^ +(mnemo_\w+)\n +\S.*\n +A (\w+)\b.*, from .* on\.$", shown.stdout, re.MULTILINE)
            assert len(table) > 60 and entries == table
        else:
            told = subprocess.run([nodes.BIN / name.split(".")[0], "--help"], check=True, capture_output=True, text=True).stdout
            options = re.findall(r"--[a-z][a-z-]+", told)
            assert options and [option for option in options if option not in shown.stdout] == [], name


def test_a_node_from_install_to_purge(packages: pathlib.Path) -> None:
    if not MODEL.is_file():
        pytest.skip(f"{MODEL} is not there; scripts/setup.sh fetches it")
    done = nodes.boot(LIFE, 300, MNEMO_PACKAGES=str(packages), MNEMO_MODEL=str(MODEL), MNEMO_LOAD=str(LIFE.with_name("load.py")))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "purged", done.stdout


def test_an_outside_program_builds_with_the_library(packages: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Compiles and links against the tree of mnemo-dev alone, with the flags of pkg-config, and runs the program."""
    tree = tmp_path / "root"
    subprocess.run(["dpkg-deb", "-x", next((packages / "1").glob("mnemo-dev_*.deb")), tree], check=True)
    description = next(tree.glob("usr/lib/*/pkgconfig/mnemo-client.pc"))
    source = tmp_path / "program.cc"
    source.write_text(
        """
        #include <cstdio>
        #include "client/client.h"
        int main() {
          mnemo::client::ClientOptions options;
          options.connect_timeout = std::chrono::milliseconds(200);
          auto client = mnemo::client::Client::Connect("unix:/nonexistent/mnemo.sock", options);
          std::printf("%d\\n", static_cast<int>(client.status().code()));
        }
        """
    )
    variables = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(description.parent)}
    flags = subprocess.run(
        ["pkg-config", "--define-variable=prefix=" + str(tree / "usr"), "--cflags", "--libs", "mnemo-client"],
        env=variables, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    program = tmp_path / "program"
    done = subprocess.run(["g++", "-std=c++20", str(source), "-o", str(program), *flags], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unavailable = 14
    assert subprocess.run([program], capture_output=True, text=True, timeout=60).stdout.strip() == json.dumps(unavailable)

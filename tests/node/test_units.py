"""The units that test_package.py does not start: meters, further models, workers and memory services of their own."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import nodes
import pytest

sys.path.append(str(nodes.ROOT / "tests/e2e"))
from harness import tiny_model  # noqa: E402

BUILD = nodes.BIN.parent
LIFE = pathlib.Path(__file__).resolve().parent / "units_life.sh"


@pytest.fixture(scope="module")
def packages() -> pathlib.Path:
    """A folder with the packages of the daemon and the client, uncompressed. It is below the build folder, which a node sees."""
    if shutil.which("cpack") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("cpack and dpkg-deb are not both installed")
    folder = BUILD / "node_units"
    shutil.rmtree(folder, ignore_errors=True)
    options = ["-D", "CPACK_DEBIAN_COMPRESSION_TYPE=none", "-D", "CPACK_COMPONENTS_ALL=mnemo;client"]
    command = ["cpack", "--config", str(BUILD / "CPackConfig.cmake"), *options, "-B", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=BUILD)
    assert done.returncode == 0, done.stdout
    return folder


def test_every_unit_starts_works_and_stops(packages: pathlib.Path) -> None:
    model = tiny_model(packages / "tiny.gguf", context=4096)
    done = nodes.boot(LIFE, 180, MNEMO_PACKAGES=str(packages), MNEMO_MODEL=str(model))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "all units worked", done.stdout

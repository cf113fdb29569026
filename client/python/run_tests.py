"""Installs the package into a folder of its own, the way a user's pip does, and tests the installed package: run_tests.py PROTO_FOLDER WORK_FOLDER

Nothing is downloaded: the interpreter's environment holds the packages of scripts/python-requirements.txt.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main() -> int:
    protos, work = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    shutil.rmtree(work, ignore_errors=True)
    # A copy, since setuptools leaves its own folders beside the sources.
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".mypy_cache", ".pytest_cache", "*_pb2*")
    shutil.copytree(HERE, work / "source", ignore=ignored)
    shutil.copytree(protos / "mnemo" / "v1", work / "source" / "proto" / "mnemo" / "v1")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(work / "installed"), str(work / "source")], check=True)
    environment = dict(os.environ, PYTHONPATH=str(work / "installed"), PYTHONDONTWRITEBYTECODE="1")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(work / "source" / "tests")]
    return subprocess.run(pytest, cwd=work, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())

"""The step that makes the protobuf stubs; all static settings are in pyproject.toml."""

from __future__ import annotations

import pathlib
import shutil
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import build_stubs  # noqa: E402


class BuildWithStubs(build_py):
    def run(self) -> None:
        super().run()
        # An editable install imports from the source folder, so the stubs go there; else into the build folder.
        out = HERE if self.editable_mode else pathlib.Path(self.build_lib)
        build_stubs.generate(build_stubs.proto_folder(HERE), out)


class SdistWithProtos(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copytree(build_stubs.proto_folder(HERE) / "mnemo" / "v1", pathlib.Path(base_dir) / "proto" / "mnemo" / "v1")
        shutil.copy(HERE / "build_stubs.py", base_dir)


setup(cmdclass={"build_py": BuildWithStubs, "sdist": SdistWithProtos})

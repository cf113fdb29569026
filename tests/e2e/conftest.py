from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import harness
import pytest

sys.path.append(str(harness.ROOT / "tests" / "support"))
import models  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return harness.tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def smol() -> Iterator[harness.Daemon]:
    """One daemon with the real model for all tests of a file."""
    with harness.Daemon(models.find("smollm2")) as daemon:
        yield daemon

"""A scripted meter: a powercap tree that a thread counts up with time."""

from __future__ import annotations

import pathlib
import threading
import time
from typing import Any


class Meter:
    """One package and its memory, which draw `watts` each, by name. A count is 0 after its range."""

    RANGE_UJ = 65_536_000_000
    ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "dram"}

    def __init__(self, root: pathlib.Path, watts: dict[str, float], begin_uj: int = 0):
        self.begin_uj = begin_uj
        self.watts = {}
        for zone, name in self.ZONES.items():
            folder = root / zone
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text(f"{self.RANGE_UJ}\n")
            (folder / "energy_uj").write_text(f"{begin_uj}\n")
            self.watts[folder] = watts[name]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        begin = time.monotonic()
        while not self.stop.wait(0.01):
            for folder, watts in self.watts.items():
                count = (self.begin_uj + int((time.monotonic() - begin) * watts * 1e6)) % self.RANGE_UJ
                # A rename replaces the count: no reader sees half of one.
                (folder / "new").write_text(f"{count}\n")
                (folder / "new").rename(folder / "energy_uj")

    def __enter__(self) -> Meter:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.thread.join()

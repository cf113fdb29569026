#!/usr/bin/env bash
# Checks and measures the RTL of the FPGA card (fpga/rtl): lint, synthesis, formal proofs, coverage, report.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<USAGE
usage: scripts/card.sh COMMAND [ARGUMENT...]
  lint         Verilator -Wall, slang, Verible's lint and format over fpga/rtl; --fix formats
  synth        LUT, FF, DSP, BRAM, URAM and LUT levels of modules, for a Xilinx UltraScale+ by Yosys
  ceilings     size and levels of modules against those recorded in fpga/tools/ceilings.json; --record updates it
  formal       proofs of fpga/formal by SymbiYosys and Yices
  coverage     builds the tests of the RTL so that they count lines, runs them, prints what they cover by file
  conformance  builds the simulated card with more channels (8, 32) and runs the conformance suite on it
  report       figures of the card: cycles, times and bandwidth of scans, selections and descriptors
scripts/card.sh COMMAND --help tells each command's arguments. scripts/setup.sh installs the tools.
USAGE
}
command=${1:-}
case $command in
  -h | --help) usage && exit 0 ;;
  '') usage >&2 && exit 2 ;;
esac
shift
[[ -x $python ]] || fail "no virtual environment in $venv: run scripts/setup.sh"
export PYTHONDONTWRITEBYTECODE=1
# The compiled WebAssembly of Yosys, made once.
export YOWASP_CACHE_DIR=${YOWASP_CACHE_DIR:-$cache/yowasp}
case $command in
  lint | synth | ceilings | formal | coverage | conformance) exec "$python" "$root/fpga/tools/$command.py" "$@" ;;
  report)
    program=$root/build/release/tools/card_report
    [[ -x $program ]] || fail "no $program: build it by cmake --build --preset release --target card_report"
    exec "$program" "$@"
    ;;
  *)
    printf 'card.sh: no command %s\n' "$command" >&2
    usage >&2
    exit 2
    ;;
esac

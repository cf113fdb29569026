#!/usr/bin/env bash
# Runs all checks of a change: sets up, builds the release preset and runs all tests. Ends with ctest's summary and returns
# its status.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<USAGE
usage: scripts/test.sh [--sanitizers] [--no-setup] [CTEST-OPTION...]
  --sanitizers  also build the asan and tsan presets and run the unit tests under them, first
  --no-setup    do not run scripts/setup.sh
USAGE
}
sanitizers=0
setup=1
while (($#)); do
  case $1 in
    --sanitizers) sanitizers=1 ;;
    --no-setup) setup=0 ;;
    -h | --help) usage && exit 0 ;;
    *) break ;;
  esac
  shift
done

if ((setup)); then "$root/scripts/setup.sh"; fi
cd "$root"
export PYTHONDONTWRITEBYTECODE=1

# Runs one step and prints the seconds that it took.
step() {
  local what=$1 began=$SECONDS
  shift
  say "$what"
  "$@"
  say "$what: $((SECONDS - began)) s"
}
build() {
  step "Configuring $1" cmake --preset "$1"
  step "Building $1" cmake --build --preset "$1" --parallel "$(jobs)" --target "$2"
}

if ((sanitizers)); then
  for preset in asan tsan; do
    build "$preset" all
    step "Unit tests under $preset" ctest --preset "$preset" --parallel "$(jobs)" -L unit
  done
fi
build release all
say "Tests"
exec ctest --preset release --parallel "$(jobs)" "$@"

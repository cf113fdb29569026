#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the sources of a configured release build: all, or the named ones. It takes minutes.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<USAGE
usage: scripts/tidy.sh [--changed] [FILE.cc...]
  --changed  only the sources that differ from the main branch
USAGE
}
cd "$root"
build=build/release
files=()
case ${1:-} in
  -h | --help) usage && exit 0 ;;
  --changed) mapfile -t files < <(git diff --name-only --diff-filter=d main -- '*.cc') ;;
  -*) usage >&2 && exit 2 ;;
  '') mapfile -t files < <(git ls-files '*.cc') ;;
  *) files=("$@") ;;
esac
[[ -f $build/compile_commands.json ]] || cmake --preset release >/dev/null

# Keeps only sources that this build compiles: some parts are optional, and fuzz targets have a build of their own.
known=()
for file in "${files[@]}"; do
  if grep -qF "\"$root/$file\"" "$build/compile_commands.json"; then known+=("$file"); fi
done
((${#known[@]})) || { say "Nothing to check" && exit 0; }
say "clang-tidy over ${#known[@]} files"
# clang cannot read GCC's precompiled headers: without them it also finds includes that they hide.
mkdir -p "$build/tidy"
sed -E 's/ -Winvalid-pch//; s/ -include [^ ]*cmake_pch\.hxx//' "$build/compile_commands.json" >"$build/tidy/compile_commands.json"
# clang does not know some warning flags of GCC.
printf '%s\0' "${known[@]}" |
  xargs -0 -n 1 -P "$(jobs)" clang-tidy --quiet -p "$build/tidy" --extra-arg=-Wno-unknown-warning-option

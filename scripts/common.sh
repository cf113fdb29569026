# shellcheck shell=bash disable=SC2034
# Paths and small helpers; the other scripts source this file.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# HOME is unset under some service managers.
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mnemo
venv=$cache/venv
models=$cache/models
templates=$cache/templates
python=$venv/bin/python

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}
# Prints the number of parallel jobs of make and ctest: one a core, fewer where memory is small (a gRPC unit takes about 1 GB).
jobs() {
  local cores memory_gb
  cores=$(nproc)
  # A container's limit may be lower than the machine's memory.
  memory_gb=$({
    awk '/^MemTotal/ {printf "%.0f\n", $2 * 1024}' /proc/meminfo
    cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null
  } | awk '/^[0-9]+$/ && (least == "" || $1 + 0 < least) {least = $1 + 0} END {print int(least / 1073741824)}')
  echo $((memory_gb < cores ? (memory_gb > 1 ? memory_gb : 1) : cores))
}

# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts: places and small helpers.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Some services run without it.
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mnemo
venv=$cache/venv
models=$cache/models
python=$venv/bin/python

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}
# What make and ctest may run at once: one job a core, fewer when memory is small (a gRPC unit takes about 1 GB).
jobs() {
  local cores memory_gb
  cores=$(nproc)
  memory_gb=$(awk '/^MemTotal/ {print int($2 / 1048576)}' /proc/meminfo)
  echo $((memory_gb < cores ? (memory_gb > 1 ? memory_gb : 1) : cores))
}

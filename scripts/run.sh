#!/usr/bin/env bash
# Takes a fresh machine to a model's answer in the terminal: sets up, builds, starts mnemod with its worker, and streams one
# answer through the client.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<USAGE
usage: scripts/run.sh [--keep] [--dashboard] [--model FILE.gguf] [--set KEY=VALUE]... [PROMPT...]
  --keep       leave the daemon serving afterwards, until Ctrl-C
  --dashboard  the same, and show its dashboards by a Prometheus of their own (scripts/dashboard.sh)
  --model      serve this file, the first one of a split model (default: SmolLM2 135M Instruct, which scripts/setup.sh installs)
  --set        any other setting of the daemon (docs/CONFIGURATION.md)
USAGE
}
keep=0
dashboard=0
model=
settings=()
while (($#)); do
  case $1 in
    --keep) keep=1 ;;
    --dashboard) keep=1 dashboard=1 ;;
    --model) model=${2:?--model needs a file} && shift ;;
    --set) settings+=(--set "${2:?--set needs KEY=VALUE}") && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
  esac
  shift
done
prompt=${*:-"Explain in three sentences how a rainbow forms."}

"$root/scripts/setup.sh"
model=${model:-$models/SmolLM2-135M-Instruct.Q4_1.gguf}
[[ -f $model ]] || fail "no such file: $model"

say "Building"
cd "$root"
cmake --preset release >"$cache/configure.log" || { cat "$cache/configure.log" >&2 && exit 1; }
cmake --build --preset release --parallel "$(jobs)" --target mnemod mnemo-worker mnemo-memory mnemo

# Ports: the defaults, or free ones where those are taken.
free_ports() {
  "$python" - <<'PYTHON'
import socket

sockets = []
for port in (50051, 9464):
    for candidate in (port, 0):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        sockets.append(s)
        break
print(*(s.getsockname()[1] for s in sockets))
PYTHON
}
read -r port metrics_port < <(free_ports)
address=127.0.0.1:$port
log=$cache/mnemod.log
bin=$root/build/release/bin

say "Starting mnemod on $address (metrics: http://127.0.0.1:$metrics_port/metrics, log: $log)"
"$bin/mnemod" --config "$root/config/local.yaml" --listen "$address" --metrics-listen "127.0.0.1:$metrics_port" \
  --model "$model" "${settings[@]}" >"$log" 2>&1 &
children=($!)
stop() {
  # mnemod finishes running requests and ends its workers (server.drain_timeout_ms).
  kill -TERM "${children[@]}" 2>/dev/null || true
  wait "${children[@]}" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ready() { "$bin/mnemo" status --address "$address" --json 2>/dev/null | grep -Eqi '"state": *"(state_)?ready"'; }
for ((tries = 0; ; ++tries)); do
  ready && break
  kill -0 "${children[0]}" 2>/dev/null || { tail -n 20 "$log" >&2 && fail "mnemod ended; its log is above"; }
  ((tries < 600)) || { tail -n 20 "$log" >&2 && fail "mnemod is not ready after two minutes; its log is above"; }
  sleep 0.2
done

if ((dashboard)); then
  # It runs before the first request, so that the pages have that one too; its lines must not mix with the answer.
  dashboard_log=$cache/dashboard.log
  "$root/scripts/dashboard.sh" "127.0.0.1:$metrics_port" >"$dashboard_log" 2>&1 &
  children+=($!)
  until grep -q "Dashboards: " "$dashboard_log"; do
    kill -0 "${children[1]}" 2>/dev/null || { cat "$dashboard_log" >&2 && fail "there are no dashboards; their log is above"; }
    sleep 0.2
  done
fi
say "mnemo generate --address $address --chat --temperature 0 --max-tokens 200 \"$prompt\""
"$bin/mnemo" generate --address "$address" --chat --temperature 0 --max-tokens 200 "$prompt"

if ((keep)); then
  say "Serving on $address until Ctrl-C. Try: build/release/bin/mnemo chat --address $address"
  if ((dashboard)); then cat "$dashboard_log" >&2; fi
  # The first of them that ends, ends the others.
  wait -n "${children[@]}" || fail "mnemod${dashboard_log:+ or Prometheus} ended; see $log${dashboard_log:+ and $dashboard_log}"
fi

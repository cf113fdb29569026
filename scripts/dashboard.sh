#!/usr/bin/env bash
# Shows the dashboards of running daemons: starts a Prometheus of its own, which keeps its data in a temporary folder and ends
# with this script.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

usage() {
  cat <<USAGE
usage: scripts/dashboard.sh [HOST:PORT]...
HOST:PORT is where a daemon serves its metrics (server.metrics_listen); default: 127.0.0.1:9464. The pages have the data that is
recorded while this script runs, which is until Ctrl-C.
USAGE
}
targets=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) targets+=("$argument") ;;
  esac
done
((${#targets[@]})) || targets=(127.0.0.1:9464)
for target in "${targets[@]}"; do
  [[ $target =~ ^[A-Za-z0-9._-]+:[0-9]{1,5}$ ]] || fail "not HOST:PORT: $target"
done
command -v prometheus >/dev/null || fail "prometheus is not installed; scripts/setup.sh installs it"

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port=9090
while is_open "$port"; do
  ((port < 9190)) || fail "the ports 9090 to 9190 of 127.0.0.1 are all taken"
  port=$((port + 1))
done

folder=$(mktemp -d)
prometheus=
stop() {
  if [[ -n $prometheus ]]; then
    kill -TERM "$prometheus" 2>/dev/null || true
    wait "$prometheus" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cp "$root/deploy/prometheus/mnemo.rules.yml" "$folder"
list=$(printf ', "%s"' "${targets[@]}")
cat >"$folder/prometheus.yml" <<YAML
global:
  scrape_interval: 2s
  evaluation_interval: 5s
rule_files: [mnemo.rules.yml]
scrape_configs:
  - job_name: mnemo
    static_configs:
      - targets: [${list:2}]
YAML
consoles=$root/deploy/prometheus/consoles
prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" --storage.tsdb.retention.time=1d \
  --web.listen-address="127.0.0.1:$port" --web.console.templates="$consoles" --web.console.libraries="$consoles" \
  --log.level=warn >"$folder/log" 2>&1 &
prometheus=$!

ready() {
  local line=
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
  printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3
  read -r -t 5 line <&3 || true
  exec 3>&-
  [[ $line == *" 200 "* ]]
}
for ((tries = 0; ; ++tries)); do
  kill -0 "$prometheus" 2>/dev/null || { cat "$folder/log" >&2 && fail "Prometheus ended; its log is above"; }
  ready && break
  ((tries < 600)) || { cat "$folder/log" >&2 && fail "Prometheus is not ready after two minutes; its log is above"; }
  sleep 0.2
done
say "Dashboards: http://127.0.0.1:$port/consoles/overview.html (metrics of ${targets[*]}, until Ctrl-C)"
wait "$prometheus" || true
cat "$folder/log" >&2
fail "Prometheus ended; its log is above"
